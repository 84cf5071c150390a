//! resolv.conf, hosts and hostname of a pod.

use std::path::Path;

use corten_spec::files;
use corten_spec::request::{NamespaceMode, SandboxConfig};

use crate::error::{Error, Result};

/// Writes them into the sandbox's directory.
pub fn write(dir: &Path, config: &SandboxConfig) -> Result<()> {
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
    for (name, text) in [("resolv.conf", resolv_conf), ("hosts", hosts), ("hostname", hostname)] {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|error| {
            Error::internal(format!("unable to write {}: {error}", path.display()))
        })?;
    }
    Ok(())
}

fn invalid(error: corten_spec::Error) -> Error {
    Error::invalid(error.to_string())
}
