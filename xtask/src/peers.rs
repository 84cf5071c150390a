//! Runtimes of others that Corten is measured beside, built from their Go
//! modules as their own makefiles do, and kept in `target/tools`.

use std::path::PathBuf;

use anyhow::Result;

use crate::tools;

const CONTAINERD: &str = "github.com/containerd/containerd/v2";
const RUNC: &str = "github.com/opencontainers/runc";

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Peers {
    /// containerd.
    pub containerd: PathBuf,
    /// Its monitor of pods.
    pub shim: PathBuf,
    /// runc, with seccomp.
    pub runc: PathBuf,
}

/// Builds them, unless they are there. The first build takes minutes.
///
/// # Errors
/// Without Go, a C compiler, libseccomp's headers, or the modules.
pub fn build() -> Result<Peers> {
    Ok(Peers {
        containerd: containerd("containerd", "urfave_cli_no_docs", true)?,
        shim: containerd("containerd-shim-runc-v2", "urfave_cli_no_docs,no_grpc", false)?,
        runc: tools::peer("runc", "runc", &["-buildmode=pie", "-tags=seccomp"], true, RUNC, "")?,
    })
}

fn containerd(name: &str, tags: &str, cgo: bool) -> Result<PathBuf> {
    let package = format!("{CONTAINERD}/cmd/{name}");
    let stamp = format!("-s -w -X {CONTAINERD}/version.Version=");
    tools::peer("containerd", name, &[&format!("-tags={tags}")], cgo, &package, &stamp)
}
