//! What the servers tell about this node and this daemon.

use corten_api::cri::CgroupDriver as CriDriver;
use corten_cri::NodeFacts;
use corten_pods::CgroupDriver;

use crate::config::{Config, CriNetwork};

/// The facts as they are when the daemon starts.
pub fn facts(config: &Config) -> NodeFacts {
    NodeFacts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cgroup_driver: match config.cgroup.driver.resolve() {
            CgroupDriver::Systemd => CriDriver::Systemd,
            CgroupDriver::Cgroupfs => CriDriver::Cgroupfs,
        },
        config: status_config(config),
        facts: for_people(config),
    }
}

/// The configuration as the verbose status shows it, with the two paths also
/// under the names that tools look for.
fn status_config(config: &Config) -> serde_json::Value {
    let mut json = serde_json::to_value(config).unwrap_or_default();
    json["rootDir"] = serde_json::json!(config.root);
    json["stateDir"] = serde_json::json!(config.state);
    json
}

fn for_people(config: &Config) -> Vec<(String, String, String)> {
    let fact = |group: &str, name: &str, value: String| (group.to_owned(), name.to_owned(), value);
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let path = |path: &std::path::Path| path.display().to_string();
    let driver = match config.cgroup.driver.resolve() {
        CgroupDriver::Systemd => "systemd",
        CgroupDriver::Cgroupfs => "cgroupfs",
    };
    let network = match config.network.cri {
        CriNetwork::Cni => "CNI plugins",
        CriNetwork::Builtin => "the built-in bridge",
    };
    vec![
        fact("daemon", "version", env!("CARGO_PKG_VERSION").to_owned()),
        fact("daemon", "socket", path(&config.socket)),
        fact("daemon", "shim", path(&config.shim)),
        fact("kernel", "release", read("/proc/sys/kernel/osrelease")),
        fact("kernel", "architecture", std::env::consts::ARCH.to_owned()),
        fact("kernel", "cgroups", cgroups().to_owned()),
        fact("kernel", "cgroup driver", driver.to_owned()),
        fact("kernel", "AppArmor", on(read("/sys/module/apparmor/parameters/enabled") == "Y")),
        fact("kernel", "SELinux", on(std::path::Path::new("/sys/fs/selinux/enforce").exists())),
        fact("storage", "root", path(&config.root)),
        fact("storage", "state", path(&config.state)),
        fact("network", "pods of the kubelet", network.to_owned()),
        fact(
            "network",
            "people's containers",
            format!("the bridge {}", config.network.bridge.name),
        ),
    ]
}

fn on(on: bool) -> String {
    if on { "on" } else { "off" }.to_owned()
}

fn cgroups() -> &'static str {
    let exists = |path: &str| std::path::Path::new(path).exists();
    if exists("/sys/fs/cgroup/cgroup.controllers") {
        "v2"
    } else if exists("/sys/fs/cgroup/unified/cgroup.controllers") {
        "v1, with v2 beside it (hybrid)"
    } else {
        "v1"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_find_the_paths_in_the_verbose_status() {
        let facts = facts(&Config::default());
        assert_eq!(facts.config["stateDir"], "/run/corten");
        assert_eq!(facts.config["network"]["cri"], "cni");
    }
}
