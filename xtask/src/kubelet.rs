//! `cargo xtask kubelet`: a real kubelet keeps pods on Corten. The tests are in
//! `tests/tests/kubelet.rs`; here is what they need.

use anyhow::{Context as _, Result};

use crate::tools::{self, Age};
use crate::{build, shell};

/// The command: arguments are for the tests (`cargo xtask kubelet probes`).
pub fn main(arguments: &[String]) -> Result<()> {
    println!("building kubelets (minutes the first time)");
    for age in [Age::Newest, Age::Older] {
        println!("{}", tools::kubelet(age)?.display());
    }
    tools::visitor()?;
    let programs = build::programs()?;
    // One kubelet at a time: each keeps a processor busy while it starts.
    let tests = ["test", "--package", "corten-tests", "--test", "kubelet", "--"];
    let mut cargo = shell::cargo(tests);
    cargo.args(["--ignored", "--test-threads=1"]).args(arguments);
    shell::run(cargo.env("CORTEN_PROGRAMS", programs)).context("not all is well under a kubelet")
}
