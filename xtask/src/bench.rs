//! `cargo xtask bench`: Corten and its peers, measured side by side.
//!
//! What measures is the package `corten-bench`; here is what it needs.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

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
    let quick = arguments.iter().any(|argument| *argument == "--quick");
    setup::for_bench()?;
    images::pause()?;
    if !quick {
        println!("building containerd and runc (minutes the first time)");
        peers::build()?;
    }
    let programs = match std::env::var_os(build::PROGRAMS) {
        Some(directory) => PathBuf::from(directory),
        None => build::build(Variant::Release)?,
    };
    let package = ["--package", "corten-bench", "--bin", "corten-bench"];
    shell::run(shell::cargo(["build", "--quiet", "--release"]).args(package))?;
    let output = match publish.is_empty() {
        true => shell::target().join("bench"),
        false => shell::root().join(PUBLISHED),
    };
    // In our place: an interrupt reaches the one that clears up, and nobody
    // returns before it has.
    let program = shell::target().join("release/corten-bench");
    let error = shell::program(&program.display().to_string(), arguments)
        .arg("--output")
        .arg(output)
        .env(build::PROGRAMS, programs)
        .exec();
    Err(error).context("unable to start the bench")
}
