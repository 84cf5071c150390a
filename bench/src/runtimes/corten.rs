//! Corten, with either of its networks.

use anyhow::Result;

use super::recipe::{
    CNI, PLUGINS, Recipe, SUBNET, bring, configure_cni, described, version, write,
};
use crate::home::Home;
use crate::report::Role;

/// Corten, configured in a home.
///
/// # Errors
/// If it is not built.
pub fn recipe(home: &Home, name: &str, with_plugins: bool) -> Result<Recipe> {
    let programs = corten_tests::binaries::directory();
    let cortend = bring(home, &programs.join("cortend"))?;
    let shim = bring(home, &programs.join("corten-shim"))?;
    let (provider, network) =
        if with_plugins { ("cni", CNI) } else { ("builtin", "built-in bridge") };
    let cni = if with_plugins { configure_cni(home)? } else { home.path("cni") };
    let socket = home.path("corten.sock");
    let configuration = format!(
        r#"
root = "{root}"
state = "/run/corten"
socket = "{socket}"
shim = "{shim}"
log_dir = "{logs}"
cgroup.root = "{cgroup}"
network.cri = "{provider}"
network.cni.conf_dirs = ["{cni}"]
network.cni.bin_dirs = ["{PLUGINS}"]
network.bridge.subnets = ["{SUBNET}"]
"#,
        root = home.path("data").display(),
        socket = socket.display(),
        shim = shim.display(),
        logs = home.path("logs").display(),
        cgroup = home.cgroup(),
        cni = cni.display(),
    );
    let file = home.path("config.toml");
    write(&file, &configuration)?;
    Ok(Recipe {
        runtime: described(name, Role::Corten, network, vec![version(&cortend)?]),
        command: [&cortend.display().to_string(), "--config", &file.display().to_string()]
            .map(str::to_owned)
            .to_vec(),
        environment: Vec::new(),
        socket,
        monitors: &["corten-shim"],
    })
}
