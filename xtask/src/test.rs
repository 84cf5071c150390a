//! `cargo xtask test`: everything that must hold before a commit.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::{conformance, shell, tidy, vm};

/// Crates without C in their dependencies: checked for aarch64 also where
/// there is no cross compiler for C.
const PURE: &[&str] = &["corten-base", "corten-kernel", "corten-protocol", "corten-shim"];

/// Tests that passed and failed; each step that is not made of tests counts
/// for one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

/// The command.
pub fn main(arguments: &[String]) -> Result<()> {
    let with_vm = match arguments {
        [] => true,
        [only] if only == "--no-vm" => false,
        _ => bail!("usage: cargo xtask test [--no-vm]"),
    };
    let mut total = Tally::default();
    let mut step = |name: &str, work: &dyn Fn() -> Result<Tally>| {
        println!("== {name}");
        let start = Instant::now();
        let tally = work().unwrap_or_else(|error| {
            eprintln!("{error:#}");
            Tally { passed: 0, failed: 1 }
        });
        let seconds = start.elapsed().as_secs_f32();
        println!("== {name}: {} passed, {} failed, {seconds:.1} s", tally.passed, tally.failed);
        total.passed += tally.passed;
        total.failed += tally.failed;
    };
    step("format", &|| one(shell::run(&mut shell::cargo(["fmt", "--all", "--check"]))));
    step("tidy", &tidy_step);
    step("clippy", &|| one(shell::run(&mut clippy())));
    step("tests", &tests);
    step("critest", &critest);
    step("aarch64", &|| one(aarch64()));
    if with_vm && std::env::consts::ARCH != "x86_64" {
        println!("== virtual machine: skipped, it is made for x86_64 alone");
    } else if with_vm {
        step("virtual machine", &|| one(vm::smoke()));
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    if total.failed > 0 {
        bail!("not all is well");
    }
    Ok(())
}

/// A step that is one check.
fn one(outcome: Result<()>) -> Result<Tally> {
    outcome.map(|()| Tally { passed: 1, failed: 0 })
}

fn tidy_step() -> Result<Tally> {
    let findings = tidy::check()?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    Ok(Tally { passed: findings.is_empty().into(), failed: findings.len() as u64 })
}

fn clippy() -> std::process::Command {
    shell::cargo(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])
}

/// All specs, over both kinds of streams.
fn critest() -> Result<Tally> {
    let found = conformance::run_at_once(&[&[], &["--websocket"]])?;
    Ok(Tally { passed: found.passed, failed: found.failed })
}

/// All tests of the workspace. The programs are built first: tests of whole
/// pods run them.
fn tests() -> Result<Tally> {
    crate::build::build(crate::build::Variant::Dev)?;
    let mut cargo = shell::cargo(["test", "--workspace", "--no-fail-fast"]);
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("unable to start cargo test")?;
    let stdout = child.stdout.take().context("cargo test without output")?;
    let mut tally = Tally::default();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("unable to read what cargo test prints")?;
        println!("{line}");
        if let Some(counted) = count(&line) {
            tally.passed += counted.passed;
            tally.failed += counted.failed;
        }
    }
    let status = child.wait().context("unable to wait for cargo test")?;
    // A test program that does not build, or dies, prints no result.
    if !status.success() && tally.failed == 0 {
        tally.failed = 1;
    }
    Ok(tally)
}

/// `test result: ok. 3 passed; 0 failed; …`
fn count(line: &str) -> Option<Tally> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |name: &str| {
        let found =
            counts.split("; ").find_map(|part| part.strip_suffix(name)?.trim().parse().ok());
        found.unwrap_or(0)
    };
    Some(Tally { passed: number("passed"), failed: number("failed") })
}

/// That everything compiles for aarch64: with a C cross compiler the whole
/// workspace, without one the crates that need none.
fn aarch64() -> Result<()> {
    let target = "aarch64-unknown-linux-gnu";
    if !shell::has_target(target) {
        bail!("no target {target}: rustup target add {target}");
    }
    let mut cargo = shell::cargo(["check", "--quiet", "--target", target]);
    if shell::has("aarch64-linux-gnu-gcc") {
        cargo.args(["--workspace", "--exclude", "xtask"]);
    } else {
        println!("no aarch64-linux-gnu-gcc: only {}", PURE.join(", "));
        cargo.args(PURE.iter().flat_map(|name| ["--package", *name]));
    }
    shell::run(&mut cargo)
}

#[cfg(test)]
mod tests {
    use super::{Tally, count};

    #[test]
    fn counting() {
        let line =
            "test result: FAILED. 21 passed; 7 failed; 0 ignored; 0 measured; 15 filtered out";
        assert_eq!(count(line), Some(Tally { passed: 21, failed: 7 }));
        assert_eq!(count("test a ... ok"), None);
    }
}
