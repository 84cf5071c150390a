//! containerd, built from its Go module, over either OCI runtime.
//!
//! It has its defaults, but for places, the image of its pause container, the
//! OCI runtime, and that it does not lower oom_score_adj where it may not.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::recipe::{CNI, PLUGINS, Recipe, bring, configure_cni, described, version, write};
use crate::home::Home;
use crate::report::Role;

/// containerd over this OCI runtime, configured in a home.
///
/// # Errors
/// If the programs are not there.
pub fn recipe(home: &Home, name: &str, oci: &Path) -> Result<Recipe> {
    let peers = xtask::peers::build().context("unable to build containerd and runc")?;
    let containerd = bring(home, &peers.containerd)?;
    let shim = bring(home, &peers.shim)?;
    let oci = bring(home, oci)?;
    let cni = configure_cni(home)?;
    let configuration = format!(
        r#"
version = 3
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{pause}"
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["{PLUGINS}"]
conf_dir = "{cni}"
[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = "runc"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
runtime_path = "{shim}"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = "{oci}"
SystemdCgroup = false
"#,
        pause = home.image("pause"),
        cni = cni.display(),
        shim = shim.display(),
        oci = oci.display(),
    );
    let file = home.path("config.toml");
    write(&file, &configuration)?;
    let socket = home.path("containerd.sock");
    let text = |path: &Path| path.display().to_string();
    let command = [
        text(&containerd),
        "--config".to_owned(),
        text(&file),
        "--address".to_owned(),
        text(&socket),
        "--root".to_owned(),
        text(&home.path("data")),
        "--state".to_owned(),
        "/run/containerd".to_owned(),
    ];
    Ok(Recipe {
        runtime: described(name, Role::Peer, CNI, vec![version(&containerd)?, version(&oci)?]),
        command: command.to_vec(),
        environment: Vec::new(),
        socket,
        monitors: &["containerd-shim-runc-v2"],
    })
}
