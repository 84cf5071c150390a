//! `cargo xtask bench`: Corten and its peers, measured side by side.
//!
//! What measures is the package `corten-bench`; here is what it needs.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::build::{self, Variant};
use crate::{images, peers, setup, shell};

/// Where figures of a release are kept, with date and machine.
const PUBLISHED: &str = "docs/benchmarks";

/// The command: builds what is shipped and what it is compared with, and
/// measures both over their sockets. What measures is optimised as well: the
/// floor's children walk the same way as Corten's.
pub fn main(arguments: &[String]) -> Result<()> {
    let (publish, arguments): (Vec<&String>, Vec<&String>) =
        arguments.iter().partition(|argument| *argument == "--publish");
    let has = |name: &str| {
        let mut names = arguments.iter().map(|argument| argument.split('=').next());
        names.any(|argument| argument == Some(name))
    };
    // These measure nothing.
    if has("--help") || has("-h") || has("--redraw") {
        return start(&mut shell::program(&built()?, &arguments));
    }
    shell::as_root("make bench")?;
    let quick = has("--quick");
    if quick && !publish.is_empty() {
        bail!("few figures of Corten alone are not to be published: without --quick");
    }
    setup::for_bench(!quick)?;
    images::pause()?;
    if !quick {
        println!("building containerd, runc and crun (minutes the first time)");
        peers::build()?;
    }
    let programs = match std::env::var_os(build::PROGRAMS) {
        Some(directory) => PathBuf::from(directory),
        None => build::build(Variant::Release)?,
    };
    let output = match publish.is_empty() {
        true => shell::target().join("bench"),
        false => shell::root().join(PUBLISHED),
    };
    let mut program = shell::program(&built()?, &arguments);
    if !has("--output") {
        program.arg("--output").arg(output);
    }
    start(program.env(build::PROGRAMS, programs))
}

/// The program that measures.
fn built() -> Result<String> {
    let package = ["--package", "corten-bench", "--bin", "corten-bench"];
    shell::run(shell::cargo(["build", "--quiet", "--release"]).args(package))?;
    Ok(shell::target().join("release/corten-bench").display().to_string())
}

/// In our place: an interrupt reaches the one that clears up, and nobody
/// returns before it has.
fn start(program: &mut Command) -> Result<()> {
    Err(program.exec()).context("unable to start the bench")
}
