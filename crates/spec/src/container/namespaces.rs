//! Which namespaces a container lives in.

use super::ContainerInput;
use super::policy::CgroupLayout;
use crate::error::{Error, Result};
use crate::oci::{LinuxNamespace, NamespaceType};
use crate::request::NamespaceMode;

/// What cannot be: combinations that the kernel or CRI refuses.
pub(super) fn check(input: &ContainerInput<'_>) -> Result<()> {
    let options = &input.container.security.namespaces;
    if options.pid == NamespaceMode::Node && super::user_namespace(input).is_some() {
        return Err(Error::invalid(
            "PID namespace",
            "the host's",
            "a pod in a user namespace cannot have it; use host users too",
        ));
    }
    if input.container.security.privileged && !input.sandbox.privileged {
        return Err(Error::invalid(
            "privileged container",
            input.container.name.as_str(),
            "its pod was made without privileged containers in mind; make a privileged pod",
        ));
    }
    Ok(())
}

/// The namespaces of a container.
pub(super) fn namespaces(input: &ContainerInput<'_>) -> Vec<LinuxNamespace> {
    let pod = &input.sandbox.namespaces;
    let own = |kind| LinuxNamespace { kind, path: String::new() };
    let joined = |kind, path: &Option<String>| LinuxNamespace {
        kind,
        path: path.clone().unwrap_or_default(),
    };
    let paths = input.namespaces;
    let mut list = Vec::new();
    match &input.container.security.namespaces.pid {
        NamespaceMode::Container => list.push(own(NamespaceType::Pid)),
        NamespaceMode::Pod | NamespaceMode::Target(_) => {
            list.push(joined(NamespaceType::Pid, &paths.pid));
        }
        NamespaceMode::Node => {}
    }
    if pod.network != NamespaceMode::Node {
        list.push(joined(NamespaceType::Network, &paths.net));
        // With the host's network the host's name comes along.
        list.push(joined(NamespaceType::Uts, &paths.uts));
    }
    if pod.ipc != NamespaceMode::Node {
        list.push(joined(NamespaceType::Ipc, &paths.ipc));
    }
    if super::user_namespace(input).is_some() {
        list.push(joined(NamespaceType::User, &paths.user));
    }
    list.push(own(NamespaceType::Mount));
    // A privileged container manages the host's cgroups where there is one tree.
    let host_cgroups = input.container.security.privileged
        && input.policy.cgroups == CgroupLayout::V2
        && super::user_namespace(input).is_none();
    if !host_cgroups {
        list.push(own(NamespaceType::Cgroup));
    }
    list
}
