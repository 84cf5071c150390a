//! Sysctls of a pod, and whose they are.
//!
//! A name that belongs to no namespace is the whole machine's: set for one
//! pod, it would be set for all.

use std::collections::BTreeMap;

use super::NodePolicy;
use crate::error::{Error, Result};
use crate::oci::NamespaceType;
use crate::request::{NamespaceMode, SandboxConfig};

/// A sysctl of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// Its name, as it was asked for.
    pub name: String,
    /// Its file below /proc/sys.
    pub path: String,
    /// What it is set to.
    pub value: String,
    /// The namespace that has it: network or IPC.
    pub namespace: NamespaceType,
}

/// The sysctls of a pod: the node's defaults where the pod has the namespace,
/// and what was asked for. One that is the host's is refused.
pub fn sandbox_sysctls(sandbox: &SandboxConfig, policy: &NodePolicy) -> Result<Vec<Sysctl>> {
    wanted(sandbox, policy)
        .into_iter()
        .map(|(name, value)| {
            let path = sysctl_path(&name)?;
            let namespace = namespace_of(&path).ok_or_else(|| {
                invalid(&name, "it belongs to no namespace of a pod; set it on the node")
            })?;
            if !has(sandbox, namespace) {
                return Err(invalid(&name, "the pod shares its namespace with the host"));
            }
            Ok(Sysctl { name, path, value, namespace })
        })
        .collect()
}

/// Names and values, as the OCI spec has them.
pub(super) fn wanted(sandbox: &SandboxConfig, policy: &NodePolicy) -> BTreeMap<String, String> {
    let mut sysctls: BTreeMap<String, String> = policy
        .default_sysctls
        .iter()
        .filter(|(name, _)| namespace_of(&name.replace('.', "/")).is_some_and(|n| has(sandbox, n)))
        // Its range is one of host ids, most of which a user namespace does not map.
        .filter(|(name, _)| {
            sandbox.namespaces.user.is_none() || *name != "net.ipv4.ping_group_range"
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    sysctls.extend(sandbox.sysctls.iter().map(|(name, value)| (name.clone(), value.clone())));
    sysctls
}

/// The pod has this namespace for itself.
fn has(sandbox: &SandboxConfig, namespace: NamespaceType) -> bool {
    let mode = match namespace {
        NamespaceType::Network => &sandbox.namespaces.network,
        _ => &sandbox.namespaces.ipc,
    };
    *mode != NamespaceMode::Node
}

/// The namespace that has the sysctl at this path; none for the machine's own.
fn namespace_of(path: &str) -> Option<NamespaceType> {
    const IPC: [&str; 9] = [
        "kernel/auto_msgmni",
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
    ];
    if path.starts_with("net/") {
        Some(NamespaceType::Network)
    } else if IPC.contains(&path) || path.starts_with("fs/mqueue/") {
        Some(NamespaceType::Ipc)
    } else {
        None
    }
}

/// Dots become slashes. A name that has slashes already is taken as it is, so
/// that interface names may hold dots (`net/ipv4/conf/eth0.100/…`).
pub(crate) fn sysctl_path(name: &str) -> Result<String> {
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    let fine = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if fine { Ok(path) } else { Err(invalid(name, "it is no name of a sysctl")) }
}

fn invalid(name: &str, reason: &'static str) -> Error {
    Error::invalid("sysctl", name, reason)
}

#[cfg(test)]
mod tests {
    use super::super::CgroupLayout;
    use super::*;

    fn of(sandbox: &SandboxConfig) -> Result<Vec<Sysctl>> {
        sandbox_sysctls(sandbox, &NodePolicy::new(0, 1024, CgroupLayout::V2))
    }

    fn asking(name: &str) -> SandboxConfig {
        SandboxConfig {
            sysctls: [(name.to_owned(), "1".to_owned())].into(),
            ..SandboxConfig::default()
        }
    }

    #[test]
    fn each_goes_to_its_namespace() {
        let find = |name: &str| of(&asking(name)).unwrap().into_iter().find(|s| s.name == name);
        let dotted = find("net.ipv4.conf.eth0.forwarding").unwrap();
        assert_eq!(dotted.path, "net/ipv4/conf/eth0/forwarding");
        assert_eq!(dotted.namespace, NamespaceType::Network);
        assert_eq!(find("net/ipv4/conf/eth0.1/x").unwrap().path, "net/ipv4/conf/eth0.1/x");
        assert_eq!(find("kernel.shmmax").unwrap().namespace, NamespaceType::Ipc);
        assert_eq!(find("fs.mqueue.msg_max").unwrap().namespace, NamespaceType::Ipc);
    }

    #[test]
    fn the_machines_own_are_refused() {
        for name in ["vm.swappiness", "kernel.panic", "kernel.shm_next_id", "fs.file-max", "net"] {
            assert!(of(&asking(name)).unwrap_err().to_string().contains(name), "{name}");
        }
        for name in ["net/../kernel/panic", "net..x", "net/./x"] {
            assert!(of(&asking(name)).is_err(), "{name}");
        }
    }

    #[test]
    fn a_pod_of_the_host_has_none() {
        let mut sandbox = asking("net.core.somaxconn");
        sandbox.namespaces.network = NamespaceMode::Node;
        assert!(of(&sandbox).unwrap_err().to_string().contains("shares"));
        sandbox.sysctls.clear();
        assert_eq!(of(&sandbox).unwrap(), []);
    }
}
