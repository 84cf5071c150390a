//! `cargo xtask fuzz [target] [runs]`: what reads others' bytes is shown wrong
//! ones. `=NUMBER` instead of runs shows one input again.

use anyhow::{Result, bail};

use crate::shell;

/// Inputs for each target, unless told otherwise.
const RUNS: &str = "1000000";

/// The command.
pub fn main(arguments: &[String]) -> Result<()> {
    let (target, runs) = match arguments {
        [] => ("all", RUNS),
        [target] => (target.as_str(), RUNS),
        [target, runs] => (target.as_str(), runs.as_str()),
        _ => bail!("usage: cargo xtask fuzz [TARGET|all] [RUNS|=NUMBER]"),
    };
    let program = ["run", "--quiet", "--profile", "fuzz", "--package", "corten-fuzz"];
    let mut cargo = shell::cargo(program);
    shell::run(cargo.args(["--", target, runs]))
}
