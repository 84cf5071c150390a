//! `cargo xtask build`: the daemon, the command and the static shim, side by
//! side in one directory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// How much care goes into a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// What is shipped: `target/dist`.
    Release,
    /// What is quickly built: `target/dist-dev`.
    Dev,
    /// The same with the shim that is shipped, whose size is shown:
    /// `target/dist-demo`.
    Demo,
}

/// The command: `--dev` for the quick variant.
pub fn main(arguments: &[String]) -> Result<()> {
    let variant = match arguments {
        [] => Variant::Release,
        [only] if only == "--dev" => Variant::Dev,
        _ => bail!("usage: cargo xtask build [--dev]"),
    };
    let directory = build(variant)?;
    println!("{}", directory.display());
    Ok(())
}

/// Names, by environment, where the programs are, if somebody has built them.
pub const PROGRAMS: &str = "CORTEN_PROGRAMS";

/// The directory with programs to test: those that somebody has built, else
/// the quick variant, built now.
pub fn programs() -> Result<PathBuf> {
    match std::env::var_os(PROGRAMS) {
        Some(directory) => Ok(directory.into()),
        None => build(Variant::Dev),
    }
}

/// Builds everything, and returns the directory with the programs.
pub fn build(variant: Variant) -> Result<PathBuf> {
    let (profile, output, dist) = match variant {
        Variant::Release => ("release", "release", "dist"),
        Variant::Dev => ("dev", "debug", "dist-dev"),
        Variant::Demo => ("dev", "debug", "dist-demo"),
    };
    let dist = shell::target().join(dist);
    fs::create_dir_all(&dist).with_context(|| format!("unable to make {}", dist.display()))?;
    let programs = ["--package", "cortend", "--package", "corten"];
    shell::run(shell::cargo(["build", "--profile", profile]).args(programs))?;
    for name in ["cortend", "corten"] {
        install(&shell::target().join(output).join(name), &dist.join(name))?;
    }
    install(&build_shim(variant)?, &dist.join("corten-shim"))?;
    Ok(dist)
}

/// Builds the shim, static and at a fixed address: with musl it has the
/// smallest memory; where that target is not installed, with glibc.
fn build_shim(variant: Variant) -> Result<PathBuf> {
    let architecture = std::env::consts::ARCH;
    let musl = format!("{architecture}-unknown-linux-musl");
    let target = if shell::has_target(&musl) {
        musl
    } else {
        eprintln!("xtask: no target {musl} (rustup target add {musl}): the shim gets glibc");
        format!("{architecture}-unknown-linux-gnu")
    };
    let (profile, output) = match variant {
        Variant::Release | Variant::Demo => ("shim", "shim"),
        Variant::Dev => ("dev", "debug"),
    };
    // Named for the target, so that build scripts and macros do not get them.
    let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", target.to_uppercase().replace('-', "_"));
    let mut cargo = shell::cargo(["build", "--profile", profile, "--target", &target]);
    cargo
        .args(["--package", "corten-shim"])
        .env(flags, "-C target-feature=+crt-static -C relocation-model=static");
    shell::run(&mut cargo)?;
    Ok(shell::target().join(target).join(output).join("corten-shim"))
}

/// Puts a program in its place in one step: the old one may be running.
fn install(from: &Path, to: &Path) -> Result<()> {
    let fresh = crate::tools::fresh(to);
    fs::copy(from, &fresh)
        .and_then(|_| fs::rename(&fresh, to))
        .with_context(|| format!("unable to copy {} to {}", from.display(), to.display()))
}
