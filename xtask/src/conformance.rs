//! `cargo xtask conformance`: critest against Corten.
//!
//! What runs it is in `tests/src/bin/conformance`; here is what it needs.

use std::path::PathBuf;

use anyhow::Result;

use crate::{build, images, shell, tools};

/// The command. Without arguments, all specs over SPDY.
pub fn main(arguments: &[String]) -> Result<()> {
    let program = program()?;
    shell::run(&mut shell::program(&program.display().to_string(), arguments))
}

/// Builds everything that it needs, and the program that runs critest.
pub fn program() -> Result<PathBuf> {
    build::programs()?;
    tools::critest()?;
    tools::ginkgo()?;
    images::busybox()?;
    images::nonewprivs()?;
    let program = ["--package", "corten-tests", "--bin", "corten-conformance"];
    shell::run(shell::cargo(["build", "--quiet"]).args(program))?;
    Ok(shell::target().join("debug/corten-conformance"))
}
