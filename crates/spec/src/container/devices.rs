//! Device nodes and the rules of the device cgroup.

use super::{ContainerInput, HostDevice};
use crate::error::{Error, Result};
use crate::oci::{DeviceRule, LinuxDevice, Mount};

/// Rules that every container has: any node may be made, only these be used.
const ALLOWED: [(&str, Option<i64>, Option<i64>, &str); 11] = [
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", Some(1), Some(3), "rwm"), // null
    ("c", Some(1), Some(5), "rwm"), // zero
    ("c", Some(1), Some(7), "rwm"), // full
    ("c", Some(1), Some(8), "rwm"), // random
    ("c", Some(1), Some(9), "rwm"), // urandom
    ("c", Some(5), Some(0), "rwm"), // tty
    ("c", Some(5), Some(1), "rwm"), // console
    ("c", Some(5), Some(2), "rwm"), // ptmx
    ("c", Some(136), None, "rwm"),  // pts
];

/// What a container's devices come to.
pub(super) struct Devices {
    pub nodes: Vec<LinuxDevice>,
    /// Of the device cgroup.
    pub rules: Vec<DeviceRule>,
    /// Devices that are bound instead of made.
    pub mounts: Vec<Mount>,
}

/// The nodes, and the rules of the cgroup.
pub(super) fn devices(input: &ContainerInput<'_>) -> Result<Devices> {
    let (mut nodes, mut rules, mut mounts) = (Vec::new(), Vec::new(), Vec::new());
    let in_user_namespace = super::user_namespace(input).is_some();
    if input.container.security.privileged && input.policy.privileged_devices {
        if !in_user_namespace {
            nodes.extend(input.policy.host_devices.iter().map(node));
        }
        rules.push(rule(true, "a", None, None, "rwm"));
    } else {
        rules.push(rule(false, "a", None, None, "rwm"));
        rules.extend(
            ALLOWED
                .iter()
                .map(|(kind, major, minor, access)| rule(true, kind, *major, *minor, access)),
        );
    }
    for device in input.devices {
        let access = access(device)?;
        nodes.retain(|known: &LinuxDevice| known.path != device.path);
        if in_user_namespace && device.host_path != device.path {
            // A node cannot be made there, and the host's has another name.
            mounts.push(Mount {
                destination: device.path.clone(),
                kind: "bind".into(),
                source: device.host_path.clone(),
                options: ["bind", "nosuid", "noexec"].map(str::to_owned).into(),
                ..Mount::default()
            });
        } else {
            nodes.push(node(device));
        }
        rules.push(rule(
            true,
            kind(device),
            Some(device.major.into()),
            Some(device.minor.into()),
            access,
        ));
    }
    Ok(Devices { nodes, rules, mounts })
}

fn access(device: &HostDevice) -> Result<&str> {
    let access = if device.access.is_empty() { "rwm" } else { &device.access };
    if access.chars().all(|c| "rwm".contains(c)) {
        return Ok(access);
    }
    Err(Error::invalid("device permissions", access, "they are made of `r`, `w` and `m`"))
}

fn kind(device: &HostDevice) -> &'static str {
    if device.block { "b" } else { "c" }
}

fn node(device: &HostDevice) -> LinuxDevice {
    LinuxDevice {
        path: device.path.clone(),
        kind: kind(device).into(),
        major: device.major.into(),
        minor: device.minor.into(),
        file_mode: Some(device.mode & 0o7777),
        uid: Some(device.uid),
        gid: Some(device.gid),
    }
}

fn rule(
    allow: bool,
    kind: &str,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> DeviceRule {
    DeviceRule { allow, kind: kind.into(), major, minor, access: access.into() }
}
