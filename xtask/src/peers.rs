//! Runtimes of others that Corten is measured beside, built from their sources
//! as their own makefiles do, and kept in `target/tools`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::{images, shell, tools};

const CONTAINERD: &str = "github.com/containerd/containerd/v2";
const RUNC: &str = "github.com/opencontainers/runc";

/// The sources of crun in Debian 13: archive, digest, directory in the pool.
/// Debian 12's crun takes no container from a containerd of today.
const CRUN: &str = "crun_1.21.orig.tar.gz";
const CRUN_SHA256: &str = "4bfb700e764a4804a4de3ecf07753f4c391005356d60356df65d80ae0914c486";
const CRUN_POOL: &str = "c/crun";
/// Where it is kept: another version is another program.
const CRUN_DIRECTORY: &str = "crun-1.21";

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Peers {
    /// containerd.
    pub containerd: PathBuf,
    /// Its monitor of pods.
    pub shim: PathBuf,
    /// runc, with seccomp.
    pub runc: PathBuf,
    /// crun, with seccomp.
    pub crun: PathBuf,
}

/// Builds them, unless they are there. The first build takes minutes.
///
/// # Errors
/// Without Go, a C compiler, the headers of libraries, or the sources.
pub fn build() -> Result<Peers> {
    Ok(Peers {
        containerd: containerd("containerd", "urfave_cli_no_docs", true)?,
        shim: containerd("containerd-shim-runc-v2", "urfave_cli_no_docs,no_grpc", false)?,
        runc: tools::peer("runc", "runc", &["-buildmode=pie", "-tags=seccomp"], true, RUNC, "")?,
        crun: crun()?,
    })
}

fn containerd(name: &str, tags: &str, cgo: bool) -> Result<PathBuf> {
    let package = format!("{CONTAINERD}/cmd/{name}");
    let stamp = format!("-s -w -X {CONTAINERD}/version.Version=");
    tools::peer("containerd", name, &[&format!("-tags={tags}")], cgo, &package, &stamp)
}

fn crun() -> Result<PathBuf> {
    let directory = tools::directory().join(CRUN_DIRECTORY);
    let program = directory.join("crun");
    if program.exists() {
        return Ok(program);
    }
    fs::create_dir_all(&directory).context("unable to make a directory for crun")?;
    let work = tools::directory().join("crun.build");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work).context("unable to make a directory for crun")?;
    images::fetch(&work, CRUN_POOL, CRUN, CRUN_SHA256)?;
    let mut tar = shell::program("tar", ["--extract", "--gzip", "--strip-components=1"]);
    shell::run(tar.arg("--file").arg(work.join(CRUN)).arg("--directory").arg(&work))?;
    // Debian's has systemd and CRIU; neither is asked for here.
    let options = ["--disable-systemd", "--disable-criu"];
    let configure = work.join("configure").display().to_string();
    images::quietly(shell::program(&configure, options).current_dir(&work))?;
    images::quietly(shell::program("make", ["git-version.h"]).current_dir(&work))?;
    images::quietly(shell::program("make", ["crun"]).current_dir(&work))?;
    fs::rename(work.join("crun"), &program).context("unable to put crun in its place")?;
    fs::remove_dir_all(&work).context("unable to remove what crun was built in")?;
    Ok(program)
}

/// Names, by environment, a directory with `crio` and `pinns`, where somebody
/// has built them: they are in no registry that a clean clone can ask.
pub const CRIO: &str = "CORTEN_CRIO";

/// CRI-O and what belongs to it, if this machine has it: `crio`, `pinns` and
/// `conmon`.
pub fn crio() -> Option<[PathBuf; 3]> {
    let directory = std::env::var_os(CRIO).map_or_else(|| PathBuf::from("/usr/bin"), PathBuf::from);
    let places = |name: &str| [directory.join(name), PathBuf::from("/usr/bin").join(name)];
    let found = |name| places(name).into_iter().find(|place| place.is_file());
    Some([found("crio")?, found("pinns")?, found("conmon")?])
}
