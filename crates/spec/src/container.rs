//! Request, image and node policy in; the OCI spec of a container out.
//!
//! A pure function: whatever had to be looked up on the node (users, devices,
//! what a bind source is) comes in as data.

mod devices;
mod input;
mod mounts;
mod namespaces;
mod policy;
mod process;
mod security;
mod sysctls;

use std::collections::BTreeMap;

pub use input::*;
pub use policy::*;
pub use process::{DEFAULT_PATH, ExecRequest, exec_process};
pub(crate) use sysctls::sysctl_path;
pub use sysctls::{Sysctl, sandbox_sysctls};

use crate::error::Result;
use crate::oci;
use crate::request::Resources;

/// The OCI spec of a container.
pub fn container_spec(input: &ContainerInput<'_>) -> Result<oci::Spec> {
    namespaces::check(input)?;
    let config = input.container;
    let security = &config.security;
    let (mut mounts, propagation) = mounts::mounts(input)?;
    let devices = devices::devices(input)?;
    // They lie in /dev, which is among the mounts before.
    mounts.extend(devices.mounts);
    let process = process::process(input)?;
    let seccomp = security::seccomp(input, &process)?;
    let hidden = |asked: &Option<Vec<String>>, usual: &Vec<String>| {
        if security.privileged { Vec::new() } else { asked.as_ref().unwrap_or(usual).clone() }
    };
    let user_namespace = user_namespace(input);
    let mapped = |gids: bool| {
        let mappings = user_namespace
            .map_or(&[][..], |user| if gids { &user.gids[..] } else { &user.uids[..] });
        mappings.iter().map(|mapping| (*mapping).into()).collect()
    };
    let linux = oci::Linux {
        uid_mappings: mapped(false),
        gid_mappings: mapped(true),
        sysctl: sysctls::wanted(input.sandbox, input.policy),
        resources: Some(oci::Resources { devices: devices.rules, ..resources(input.resources) }),
        cgroups_path: input.cgroup_path.to_owned(),
        namespaces: namespaces::namespaces(input),
        devices: devices.nodes,
        seccomp,
        rootfs_propagation: propagation.to_owned(),
        masked_paths: hidden(&security.masked_paths, &input.policy.masked_paths),
        readonly_paths: hidden(&security.readonly_paths, &input.policy.readonly_paths),
        mount_label: input.labels.as_ref().map_or(String::new(), |labels| labels.mount.clone()),
        ..oci::Linux::default()
    };
    Ok(oci::Spec {
        oci_version: oci::VERSION.to_owned(),
        process: Some(process),
        root: Some(oci::Root { path: input.rootfs.to_owned(), readonly: security.readonly_rootfs }),
        mounts,
        annotations: annotations(input),
        linux: Some(linux),
        ..oci::Spec::default()
    })
}

/// The user namespace of the pod, if it has one of its own.
pub(crate) fn user_namespace<'a>(
    input: &ContainerInput<'a>,
) -> Option<&'a crate::request::UserNamespace> {
    input.sandbox.namespaces.user.as_ref()
}

/// Limits, in the words of the OCI spec.
pub fn resources(asked: &Resources) -> oci::Resources {
    let memory = oci::Memory {
        limit: asked.memory_limit_bytes,
        reservation: asked.memory_reservation_bytes,
        swap: asked.memory_swap_limit_bytes,
        ..oci::Memory::default()
    };
    let cpu = oci::Cpu {
        shares: asked.cpu_shares,
        quota: asked.cpu_quota,
        period: asked.cpu_period,
        cpus: asked.cpuset_cpus.clone(),
        mems: asked.cpuset_mems.clone(),
        ..oci::Cpu::default()
    };
    oci::Resources {
        memory: (memory != oci::Memory::default()).then_some(memory),
        cpu: (cpu != oci::Cpu::default()).then_some(cpu),
        pids: asked.pids_limit.map(|limit| oci::Pids { limit }),
        hugepage_limits: asked
            .hugepage_limits
            .iter()
            .map(|(page_size, limit)| oci::HugepageLimit {
                page_size: page_size.clone(),
                limit: *limit,
            })
            .collect(),
        unified: asked.unified.clone(),
        ..oci::Resources::default()
    }
}

/// Whether an annotation's name is on a list of names and of beginnings of
/// names (`io.example.*`).
pub fn allowed(list: &[String], name: &str) -> bool {
    list.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    })
}

/// What the handler lets through of the pod, then of the container; and what
/// hooks and monitoring agents look for, by the names that containerd made
/// common, which nobody can take for something else.
fn annotations(input: &ContainerInput<'_>) -> BTreeMap<String, String> {
    let sandbox = input.sandbox;
    let through = [
        (&sandbox.annotations, input.pod_annotations),
        (&input.container.annotations, input.container_annotations),
    ];
    let mut all = BTreeMap::new();
    for (from, list) in through {
        let let_through = from.iter().filter(|(name, _)| allowed(list, name));
        all.extend(let_through.map(|(name, value)| (name.clone(), value.clone())));
    }
    let ours = [
        ("container-type", "container"),
        ("container-name", &input.container.name),
        ("image-name", &input.container.image),
        ("sandbox-id", input.sandbox_id),
        ("sandbox-name", &sandbox.name),
        ("sandbox-namespace", &sandbox.namespace),
        ("sandbox-uid", &sandbox.uid),
    ]
    .map(|(name, value)| (format!("io.kubernetes.cri.{name}"), value.to_owned()));
    all.extend(ours);
    all
}

impl From<crate::request::IdMapping> for oci::LinuxIdMapping {
    fn from(mapping: crate::request::IdMapping) -> Self {
        Self { container_id: mapping.container_id, host_id: mapping.host_id, size: mapping.length }
    }
}

#[cfg(test)]
mod tests;
