//! The edits, made to a spec.

use super::document::{DeviceNode, Edits, HookName, MountEdit};
use super::{DeviceName, Registry};
use crate::error::{Error, Result};
use crate::oci::{
    DeviceRule, EnvText, Hook, Hooks, Linux, LinuxDevice, LinuxNetDevice, Mount, NamespaceType,
    Process, Spec,
};

/// What a device node of the host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeFact {
    /// `b`, `c` or `p`.
    pub kind: char,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
}

/// Gives the container of `spec` these devices. `look` says what a device node
/// of the host is; none where there is none.
pub fn apply(
    spec: &mut Spec,
    registry: &Registry,
    names: &[DeviceName],
    look: &dyn Fn(&str) -> Option<NodeFact>,
) -> Result<()> {
    for edits in registry.edits(names)? {
        one(spec, edits, look)?;
    }
    // A mount must come after the one that it lies in.
    spec.mounts.sort_by_key(|mount| mount.destination.matches('/').count());
    Ok(())
}

fn one(spec: &mut Spec, edits: &Edits, look: &dyn Fn(&str) -> Option<NodeFact>) -> Result<()> {
    let process = spec.process.get_or_insert_default();
    environment(process, &edits.env);
    for gid in edits.additional_gids.iter().filter(|gid| **gid != 0) {
        if !process.user.additional_gids.contains(gid) {
            process.user.additional_gids.push(*gid);
        }
    }
    let linux = spec.linux.get_or_insert_default();
    for node in &edits.device_nodes {
        device(linux, &mut spec.mounts, process, node, look)?;
    }
    for device in &edits.net_devices {
        let moved = LinuxNetDevice { name: device.name.clone() };
        linux.net_devices.insert(device.host_interface_name.clone(), moved);
    }
    if edits.intel_rdt.is_some() {
        linux.intel_rdt.clone_from(&edits.intel_rdt);
    }
    for edit in &edits.mounts {
        let new = mount(edit);
        spec.mounts.retain(|mount| mount.destination != new.destination);
        spec.mounts.push(new);
    }
    for hook in &edits.hooks {
        let list = hooks(&mut spec.hooks, hook.hook_name);
        list.push(Hook {
            path: hook.path.clone(),
            args: hook.args.clone(),
            env: hook.env.clone(),
            timeout: hook.timeout,
        });
    }
    Ok(())
}

fn environment(process: &mut Process, env: &[String]) {
    for text in env {
        let entry = EnvText::from(text.as_str());
        match process.env.iter_mut().find(|known| known.name() == entry.name()) {
            Some(known) => *known = entry,
            None => process.env.push(entry),
        }
    }
}

fn hooks(hooks: &mut Hooks, name: HookName) -> &mut Vec<Hook> {
    match name {
        HookName::Prestart => &mut hooks.prestart,
        HookName::CreateRuntime => &mut hooks.create_runtime,
        HookName::CreateContainer => &mut hooks.create_container,
        HookName::StartContainer => &mut hooks.start_container,
        HookName::Poststart => &mut hooks.poststart,
        HookName::Poststop => &mut hooks.poststop,
    }
}

/// A mount without a type is a bind.
fn mount(edit: &MountEdit) -> Mount {
    let mut mount = Mount {
        destination: edit.container_path.clone(),
        kind: edit.kind.clone(),
        source: edit.host_path.clone(),
        options: edit.options.clone(),
        ..Mount::default()
    };
    if !mount.is_bind() && (mount.kind.is_empty() || mount.kind == "none") {
        mount.kind = "bind".into();
        mount.options.push("rbind".into());
    }
    mount
}

/// A device node, and the rule that lets it be used. What the vendor does not
/// say of it is as on the host; its owner is the container's user.
fn device(
    linux: &mut Linux,
    mounts: &mut Vec<Mount>,
    process: &Process,
    node: &DeviceNode,
    look: &dyn Fn(&str) -> Option<NodeFact>,
) -> Result<()> {
    let source = if node.host_path.is_empty() { &node.path } else { &node.host_path };
    let complete = !node.kind.is_empty() && node.major.is_some() && node.minor.is_some();
    let fact = if complete || node.kind == "p" { None } else { Some(found(source, node, look)?) };
    let kind = match fact {
        Some(fact) => fact.kind.to_string(),
        None => node.kind.clone(),
    };
    let major = node.major.or(fact.map(|fact| fact.major.into())).unwrap_or(0);
    let minor = node.minor.or(fact.map(|fact| fact.minor.into())).unwrap_or(0);
    if kind != "p" {
        let access = if node.permissions.is_empty() { "rwm" } else { &node.permissions };
        linux.resources.get_or_insert_default().devices.push(DeviceRule {
            allow: true,
            kind: if kind == "u" { "c".into() } else { kind.clone() },
            major: Some(major),
            minor: Some(minor),
            access: access.into(),
        });
    }
    linux.devices.retain(|known| known.path != node.path);
    if linux.namespace(NamespaceType::User).is_some() && *source != node.path {
        // Where no node can be made, the host's is bound; under another name it
        // needs a mount of its own.
        mounts.push(Mount {
            destination: node.path.clone(),
            kind: "bind".into(),
            source: source.clone(),
            options: ["bind", "nosuid", "noexec"].map(str::to_owned).into(),
            ..Mount::default()
        });
        return Ok(());
    }
    let owner = |id: u32| (id != 0).then_some(id);
    linux.devices.push(LinuxDevice {
        path: node.path.clone(),
        kind,
        major,
        minor,
        file_mode: node.file_mode.or(fact.map(|fact| fact.mode)),
        uid: node.uid.or_else(|| owner(process.user.uid)),
        gid: node.gid.or_else(|| owner(process.user.gid)),
    });
    Ok(())
}

fn found(
    path: &str,
    node: &DeviceNode,
    look: &dyn Fn(&str) -> Option<NodeFact>,
) -> Result<NodeFact> {
    let refused = |reason: String| Error::Device { name: node.path.clone(), reason };
    let fact = look(path).ok_or_else(|| refused(format!("there is no device {path} here")))?;
    let said = node.kind.replace('u', "c");
    if !said.is_empty() && said != fact.kind.to_string() {
        return Err(refused(format!("its CDI file says type {said}, the device is {}", fact.kind)));
    }
    Ok(fact)
}
