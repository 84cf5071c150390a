//! What is mounted where.

use std::collections::BTreeSet;

use super::{ContainerInput, MountFact};
use crate::error::{Error, Result};
use crate::oci::Mount;
use crate::request::{MountPropagation, MountRequest, NamespaceMode};

/// The mounts in the order in which they are made, and the propagation that
/// they ask of the root filesystem (empty for none in particular).
pub(super) fn mounts(input: &ContainerInput<'_>) -> Result<(Vec<Mount>, &'static str)> {
    let config = input.container;
    if config.mounts.len() != input.mounts.len() {
        return Err(Error::invalid(
            "mounts",
            config.mounts.len().to_string(),
            "not every source was looked at",
        ));
    }
    let mut asked = Vec::new();
    let mut propagation = "";
    for (request, fact) in config.mounts.iter().zip(input.mounts) {
        asked.push(bind(request, fact)?);
        propagation = match (request.propagation, propagation) {
            (MountPropagation::Private, before) => before,
            (MountPropagation::HostToContainer, "rshared") => "rshared",
            (MountPropagation::HostToContainer, _) => "rslave",
            (MountPropagation::Bidirectional, _) => "rshared",
        };
    }
    let taken: BTreeSet<String> = asked.iter().map(|mount| mount.destination.clone()).collect();
    // Who brings a whole /dev brings what is in it.
    let own_dev = taken.contains("/dev");
    let mut all: Vec<Mount> = system_mounts(input)
        .into_iter()
        .chain(file_mounts(input))
        .filter(|mount| !taken.contains(&mount.destination))
        .filter(|mount| !(own_dev && mount.destination.starts_with("/dev/")))
        .collect();
    all.extend(asked);
    // A mount must come after the one that it lies in.
    all.sort_by_key(|mount| mount.destination.matches('/').count());
    Ok((all, propagation))
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.into(),
        kind: kind.into(),
        source: source.into(),
        options: options.iter().map(|option| (*option).into()).collect(),
        ..Mount::default()
    }
}

fn system_mounts(input: &ContainerInput<'_>) -> Vec<Mount> {
    let privileged = input.container.security.privileged;
    let write = if privileged { "rw" } else { "ro" };
    let pod = &input.sandbox.namespaces;
    let mut list = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    // sysfs shows the network namespace, and can only be mounted by its owner.
    let foreign_network = pod.user.is_some() && pod.network == NamespaceMode::Node;
    list.push(if foreign_network {
        let read = if input.policy.recursive_readonly { "rro" } else { "ro" };
        mount("/sys", "bind", "/sys", &["rbind", "rprivate", "nosuid", "noexec", "nodev", read])
    } else {
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", write])
    });
    if !foreign_network {
        list.push(mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", write],
        ));
    }
    list
}

fn file_mounts(input: &ContainerInput<'_>) -> Vec<Mount> {
    let write = if input.container.security.readonly_rootfs { "ro" } else { "rw" };
    let files = input.files;
    let texts = [
        ("/etc/hostname", &files.hostname),
        ("/etc/hosts", &files.hosts),
        ("/etc/resolv.conf", &files.resolv_conf),
    ];
    let mut list: Vec<Mount> = texts
        .into_iter()
        .filter_map(|(destination, source)| {
            let source = source.as_ref()?;
            Some(mount(destination, "bind", source, &["rbind", "rprivate", write]))
        })
        .collect();
    let shm = if input.sandbox.namespaces.ipc == NamespaceMode::Node {
        Some("/dev/shm")
    } else {
        files.shm.as_deref()
    };
    if let Some(source) = shm {
        list.push(mount(
            "/dev/shm",
            "bind",
            source,
            &["rbind", "rprivate", "nosuid", "noexec", "nodev", "rw"],
        ));
    }
    list
}

fn bind(request: &MountRequest, fact: &MountFact) -> Result<Mount> {
    let destination = clean_path(&request.container_path)?;
    let invalid = |reason| Err(Error::invalid("mount", destination.as_str(), reason));
    if fact.source.is_empty() {
        return invalid("it has no source on the host");
    }
    if request.image.is_some() && !request.readonly {
        return invalid("an image is only ever mounted read-only; ask for that");
    }
    if request.recursive_readonly {
        if !request.readonly {
            return invalid("recursively read-only needs read-only too");
        }
        if request.propagation != MountPropagation::Private {
            return invalid("recursively read-only needs private propagation");
        }
    }
    let propagation = match request.propagation {
        MountPropagation::Private => "rprivate",
        MountPropagation::HostToContainer if fact.shared || fact.slave => "rslave",
        MountPropagation::HostToContainer => {
            return invalid(
                "it lies on a mount that is neither shared nor slave; run `mount --make-rshared` on it",
            );
        }
        MountPropagation::Bidirectional if fact.shared => "rshared",
        MountPropagation::Bidirectional => {
            return invalid(
                "it lies on a mount that is not shared; run `mount --make-rshared` on it",
            );
        }
    };
    let write = match (request.readonly, request.recursive_readonly) {
        (true, true) => "rro",
        (true, false) => "ro",
        (false, _) => "rw",
    };
    let mut options = vec!["rbind".to_owned(), propagation.to_owned(), write.to_owned()];
    for option in &request.options {
        if !["noexec", "nodev", "nosuid"].contains(&option.as_str()) {
            return invalid("only the options noexec, nodev and nosuid can be asked for");
        }
        options.push(option.clone());
    }
    // An image is mounted for the pod's user namespace to begin with.
    let shifted = request.image.is_none();
    let mappings = |list: &[crate::request::IdMapping]| {
        list.iter().filter(|_| shifted).map(|mapping| (*mapping).into()).collect()
    };
    Ok(Mount {
        destination,
        kind: "bind".into(),
        source: fact.source.clone(),
        options,
        uid_mappings: mappings(&request.uid_mappings),
        gid_mappings: mappings(&request.gid_mappings),
    })
}

/// An absolute path without `.`, `..`, doubled or trailing slashes.
fn clean_path(path: &str) -> Result<String> {
    if path.is_empty() || path.contains('\0') {
        return Err(Error::invalid("container path", path, "it must be a path"));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return Err(Error::invalid("container path", path, "nothing can be mounted over the root"));
    }
    Ok(format!("/{}", parts.join("/")))
}
