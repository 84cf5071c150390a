//! `cargo xtask bench`: the figures of `SPECIFICATION.md`.

use anyhow::Result;

use crate::build::{Variant, build};
use crate::shell;

/// Where the figures go, for programs.
const JSON: &str = "bench.json";

/// The command: builds what is shipped, and measures it over its socket. The
/// client that measures is built quickly: it waits most of the time.
pub fn main(arguments: &[String]) -> Result<()> {
    let programs = build(Variant::Release)?;
    let json = shell::target().join(JSON);
    let mut cargo = shell::cargo([
        "run",
        "--quiet",
        "--package",
        "corten-tests",
        "--bin",
        "corten-bench",
        "--",
    ]);
    cargo.arg("--json").arg(&json).args(arguments).env("CORTEN_PROGRAMS", programs);
    shell::run(&mut cargo)?;
    println!("{}", json.display());
    Ok(())
}
