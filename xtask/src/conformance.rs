//! `cargo xtask conformance`: critest against Corten.
//!
//! What runs it is in `tests/src/bin/conformance`; here is what it needs.

use std::path::PathBuf;
use std::process::Output;
use std::thread;

use anyhow::{Context as _, Result, bail};

use crate::{build, images, shell, tools};

/// The command. Without arguments, all specs over SPDY.
pub fn main(arguments: &[String]) -> Result<()> {
    let (program, programs) = prepare()?;
    let mut run = shell::program(&program.display().to_string(), arguments);
    shell::run(run.env(build::PROGRAMS, programs))
}

/// Builds everything that it needs: the program that runs critest, and the
/// directory with the programs under test.
pub(crate) fn prepare() -> Result<(PathBuf, PathBuf)> {
    let programs = build::programs()?;
    tools::critest()?;
    tools::ginkgo()?;
    images::busybox()?;
    images::nonewprivs()?;
    let program = ["--package", "corten-tests", "--bin", "corten-conformance"];
    shell::run(shell::cargo(["build", "--quiet"]).args(program))?;
    Ok((shell::target().join("debug/corten-conformance"), programs))
}

/// What [`run_at_once`] found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Specs that passed.
    pub passed: u64,
    /// Specs that failed; at least one where a run is not well otherwise.
    pub failed: u64,
}

/// Several runs at the same time: critest waits most of the time. Each is a
/// list of arguments, and is shown when it has ended.
pub fn run_at_once(runs: &[&[&str]]) -> Result<Found> {
    let (program, programs) = prepare()?;
    let command = program.display().to_string();
    let outputs: Vec<Output> = thread::scope(|scope| {
        let start = |arguments: &&[&str]| {
            let mut run = shell::program(&command, *arguments);
            run.env(build::PROGRAMS, &programs);
            scope.spawn(move || run.output())
        };
        let running: Vec<_> = runs.iter().map(start).collect();
        let ended = running.into_iter().map(|run| match run.join() {
            Ok(output) => output.context("unable to start corten-conformance"),
            Err(_) => bail!("unable to wait for corten-conformance"),
        });
        ended.collect::<Result<_>>()
    })?;
    let mut found = Found::default();
    for output in &outputs {
        let told = String::from_utf8_lossy(&output.stdout);
        print!("{told}{}", String::from_utf8_lossy(&output.stderr));
        let counted = told.lines().find_map(count).unwrap_or_default();
        found.passed += counted.passed;
        found.failed += match output.status.success() {
            true => counted.failed,
            false => counted.failed.max(1),
        };
    }
    Ok(found)
}

/// `critest spdy: 108 passed, 0 failed, 14 not run, 55.9 s; …`
fn count(line: &str) -> Option<Found> {
    let (_, counts) = line.strip_prefix("critest ")?.split_once(": ")?;
    let number = |name: &str| {
        counts.split(", ").find_map(|part| part.strip_suffix(name)?.trim().parse().ok())
    };
    Some(Found { passed: number("passed")?, failed: number("failed")? })
}

#[cfg(test)]
mod tests {
    use super::{Found, count};

    #[test]
    fn counting() {
        let line = "critest websocket-runc: 98 passed, 10 failed, 14 not run, 54.1 s; see /x";
        assert_eq!(count(line), Some(Found { passed: 98, failed: 10 }));
        assert_eq!(count("   9 not run: the kernel has no AppArmor"), None);
    }
}
