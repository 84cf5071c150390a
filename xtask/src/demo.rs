//! `cargo xtask demo`: Corten at work, on a bare Debian machine.
//!
//! What is shown is in `tests/src/bin/demo`; here is what it needs.

use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result, bail};

use crate::build::{Variant, build};
use crate::{setup, shell};

/// The command.
pub fn main(arguments: &[String]) -> Result<()> {
    if !arguments.is_empty() {
        bail!("usage: cargo xtask demo");
    }
    shell::as_root("make demo")?;
    setup::for_demo()?;
    println!("building (minutes the first time, seconds the next)");
    let programs = build(Variant::Demo)?;
    let demo = ["--package", "corten-tests", "--bin", "corten-demo"];
    shell::run(shell::cargo(["build", "--quiet"]).args(demo))?;
    // In our place: an interrupt reaches the one that cleans up, and nobody
    // returns before it has.
    let program = shell::target().join("debug/corten-demo");
    let error = shell::program(&program.display().to_string(), [""; 0])
        .env("CORTEN_PROGRAMS", programs)
        .exec();
    Err(error).context("unable to start the demo")
}
