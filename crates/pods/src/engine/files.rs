//! resolv.conf, hosts and hostname of a pod.

use std::os::unix::fs::chown;
use std::path::Path;

use corten_spec::files;
use corten_spec::request::{NamespaceMode, SandboxConfig};

use super::namespaces::host_root;
use crate::error::{Error, Result};

/// Writes them into the sandbox's directory.
/// `label` is theirs for SELinux; empty where that is off.
pub fn write(dir: &Path, config: &SandboxConfig, label: &str) -> Result<()> {
    let resolv_conf = match &config.dns {
        Some(dns) => files::resolv_conf(dns).map_err(invalid)?,
        // A node without one has no name resolution to pass on.
        None => std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
    };
    let host_network = config.namespaces.network == NamespaceMode::Node;
    let hosts = if host_network {
        std::fs::read_to_string("/etc/hosts").unwrap_or_default()
    } else {
        files::hosts(&config.hostname, &[]).map_err(invalid)?
    };
    let hostname = if host_network || config.hostname.is_empty() {
        std::fs::read_to_string("/etc/hostname").unwrap_or_default()
    } else {
        files::hostname(&config.hostname).map_err(invalid)?
    };
    let owner = owner(config)?;
    for (name, text) in [("resolv.conf", resolv_conf), ("hosts", hosts), ("hostname", hostname)] {
        let path = dir.join(name);
        std::fs::write(&path, text).and_then(|()| chown(&path, owner.0, owner.1)).map_err(
            |error| Error::internal(format!("unable to write {}: {error}", path.display())),
        )?;
        if !label.is_empty() {
            super::selinux::relabel(&path, label)?;
        }
    }
    Ok(())
}

/// The root of the pod, as the host sees it: the files are the pod's own, also
/// where no idmapped mount can make them so.
fn owner(config: &SandboxConfig) -> Result<(Option<u32>, Option<u32>)> {
    let Some(user) = &config.namespaces.user else { return Ok((None, None)) };
    Ok((Some(host_root(&user.uids, "user")?), Some(host_root(&user.gids, "group")?)))
}

fn invalid(error: corten_spec::Error) -> Error {
    Error::invalid(error.to_string())
}
