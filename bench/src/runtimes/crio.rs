//! CRI-O over crun, where the machine has one.
//!
//! It has its defaults, but for places, cgroups without systemd, and the OCI
//! runtime: no infra container, conmon in the pod's cgroup.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::recipe::{CNI, PLUGINS, Recipe, bring, configure_cni, described, version, write};
use crate::home::Home;
use crate::report::Role;

/// CRI-O over this crun, configured in a home.
///
/// # Errors
/// If the programs are not there.
pub fn recipe(home: &Home, name: &str, crun: &Path) -> Result<Recipe> {
    let found = xtask::peers::crio();
    let [crio, pinns, conmon] = found.context("there is no crio, pinns or conmon")?;
    let (crio, conmon) = (bring(home, &crio)?, bring(home, &conmon)?);
    let (pinns, crun) = (bring(home, &pinns)?, bring(home, crun)?);
    let cni = configure_cni(home)?;
    let (socket, data) = (home.path("crio.sock"), home.path("data"));
    let policy = home.path("policy.json");
    write(&policy, r#"{"default": [{"type": "insecureAcceptAnything"}]}"#)?;
    let registries = home.path("registries.conf");
    let registry = home.registry();
    write(&registries, &format!("[[registry]]\nlocation = \"{registry}\"\ninsecure = true\n"))?;
    let configuration = format!(
        r#"
[crio]
root = "{data}"
runroot = "/run/containers/storage"
storage_driver = "overlay"
log_dir = "{logs}"
version_file_persist = "{data}/version"
clean_shutdown_file = "{data}/clean.shutdown"
[crio.api]
listen = "{socket}"
stream_port = "0"
[crio.runtime]
cgroup_manager = "cgroupfs"
conmon_cgroup = "pod"
pinns_path = "{pinns}"
default_runtime = "crun"
[crio.runtime.runtimes.crun]
runtime_path = "{crun}"
runtime_root = "/run/crun"
monitor_path = "{conmon}"
monitor_cgroup = "pod"
[crio.image]
pause_image = "{pause}"
signature_policy = "{policy}"
[crio.network]
network_dir = "{cni}"
plugin_dirs = ["{PLUGINS}"]
"#,
        data = data.display(),
        logs = home.path("logs").display(),
        socket = socket.display(),
        pinns = pinns.display(),
        crun = crun.display(),
        conmon = conmon.display(),
        pause = home.image("pause"),
        policy = policy.display(),
        cni = cni.display(),
    );
    let file = home.path("crio.conf");
    write(&file, &configuration)?;
    let text = |path: &Path| path.display().to_string();
    let versions = vec![version(&crio)?, version(&conmon)?, version(&crun)?];
    Ok(Recipe {
        runtime: described(name, Role::Peer, CNI, versions),
        command: vec![
            text(&crio),
            "--config".to_owned(),
            text(&file),
            "--config-dir".to_owned(),
            String::new(),
        ],
        environment: vec![("CONTAINER_REGISTRIES_CONF".to_owned(), text(&registries))],
        socket,
        monitors: &["conmon"],
    })
}
