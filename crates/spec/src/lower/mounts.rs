//! Mounts, devices and hidden paths of a spec as steps.

use corten_kernel::launch::{FdIndex, MountAttributes, Step, TargetKind};
use corten_protocol::plan::CStrings;

use super::options::Options;
use super::{LowerInput, Plan, c_text, plan_error, process};
use crate::error::{Error, Result};
use crate::oci::{Linux, LinuxDevice, LinuxIdMapping, Mount, NamespaceType, Process, Spec};

/// Something on the host of which a detached mount is needed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BindSource {
    /// Its path.
    pub path: String,
    /// With everything mounted below.
    pub recursive: bool,
    /// Idmap of the mount, users; empty for none.
    pub uid_mappings: Vec<LinuxIdMapping>,
    /// Idmap of the mount, groups.
    pub gid_mappings: Vec<LinuxIdMapping>,
    /// Idmap everything below too.
    pub recursive_idmap: bool,
}

/// What every container has in /dev. (A terminal's and ptmx come with devpts.)
const DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

const LINKS: [(&str, &str); 6] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
    ("/dev/ptmx", "pts/ptmx"),
];

const S_IFIFO: u32 = 0o010_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFBLK: u32 = 0o060_000;

/// What the caller opens before [`super::lower`], in the order of
/// [`LowerInput::binds`]: the sources of bind mounts (but those that the shim
/// has itself), and in a user namespace, where no device can be made, the
/// host's device nodes.
pub fn bind_sources(spec: &Spec, own_mounts: &[(&str, &str)]) -> Vec<BindSource> {
    let mut list = mount_sources(spec, own_mounts);
    let none = Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&none);
    if linux.namespace(NamespaceType::User).is_some() && !has_foreign_dev(spec) {
        list.extend(
            devices(linux)
                .into_iter()
                .filter(|device| device.kind != "p")
                .map(|device| BindSource { path: device.path, ..BindSource::default() }),
        );
    }
    list
}

/// The sources of bind mounts, but of those that the shim has itself.
pub(super) fn mount_sources(spec: &Spec, own_mounts: &[(&str, &str)]) -> Vec<BindSource> {
    let binds = spec.mounts.iter().filter(|mount| mount.is_bind());
    binds
        .filter(|mount| !own_mounts.iter().any(|(host, _)| *host == mount.source))
        .map(|mount| {
            let options = Options::parse(&mount.options);
            BindSource {
                path: mount.source.clone(),
                recursive: options.recursive_bind,
                uid_mappings: mount.uid_mappings.clone(),
                gid_mappings: mount.gid_mappings.clone(),
                recursive_idmap: options.recursive_idmap,
            }
        })
        .collect()
}

/// A bind over /dev: it is the host's, and nothing may be made in it.
fn has_foreign_dev(spec: &Spec) -> bool {
    spec.mounts.iter().any(|mount| mount.destination == "/dev" && mount.is_bind())
}

fn devices(linux: &Linux) -> Vec<LinuxDevice> {
    let usual = DEVICES.iter().map(|(path, major, minor)| LinuxDevice {
        path: (*path).into(),
        kind: "c".into(),
        major: i64::from(*major),
        minor: i64::from(*minor),
        file_mode: Some(0o666),
        uid: None,
        gid: None,
    });
    let mut list: Vec<LinuxDevice> =
        usual.filter(|usual| !linux.devices.iter().any(|asked| asked.path == usual.path)).collect();
    // /dev/ptmx of the host leads to the host's terminals: it is a link here.
    let linked = |device: &LinuxDevice| LINKS.iter().any(|(path, _)| *path == device.path);
    list.extend(linux.devices.iter().filter(|device| !linked(device)).cloned());
    list
}

/// All mounts, then what is made in /dev, then the terminal.
pub(super) fn all(
    plan: &mut Plan,
    spec: &Spec,
    linux: &Linux,
    process: &Process,
    input: &LowerInput<'_>,
) -> Result<()> {
    let mut binds = input.binds.iter().copied();
    let mut later = Vec::new();
    for mount in &spec.mounts {
        one(plan, mount, &linux.mount_label, input, &mut binds, &mut later)?;
    }
    if !has_foreign_dev(spec) {
        let in_user_namespace = linux.namespace(NamespaceType::User).is_some();
        for device in devices(linux) {
            if in_user_namespace && device.kind != "p" {
                let fd = next(&mut binds, &device.path)?;
                let target = c_text("device", &device.path)?;
                plan.step(Step::MountFd {
                    fd,
                    target: &target,
                    kind: TargetKind::File,
                    attributes: MountAttributes::default(),
                    propagation: None,
                });
            } else {
                node(plan, &device)?;
            }
        }
        for (path, target) in LINKS {
            let (path, target) = (c_text("link", path)?, c_text("link", target)?);
            plan.step(Step::Symlink { target: &target, path: &path });
        }
    }
    process::console(plan, process);
    for (target, attributes) in later {
        let target = c_text("mount", &target)?;
        plan.step(Step::Remount { target: &target, attributes });
    }
    match binds.next() {
        None => Ok(()),
        Some(_) => Err(Error::invalid("bind sources", "", "more were opened than are needed")),
    }
}

fn next(binds: &mut impl Iterator<Item = FdIndex>, what: &str) -> Result<FdIndex> {
    binds.next().ok_or_else(|| Error::invalid("bind source", what, "it was not opened"))
}

/// One mount. What must stay writable until /dev is filled is closed `later`.
fn one(
    plan: &mut Plan,
    mount: &Mount,
    label: &str,
    input: &LowerInput<'_>,
    binds: &mut impl Iterator<Item = FdIndex>,
    later: &mut Vec<(String, MountAttributes)>,
) -> Result<()> {
    if !mount.destination.starts_with('/') {
        return Err(Error::invalid(
            "mount",
            mount.destination.as_str(),
            "its destination must be absolute",
        ));
    }
    let mut options = Options::parse(&mount.options);
    let target = c_text("mount", &mount.destination)?;
    if mount.is_bind() {
        let own = input.own_mounts.iter().find(|(host, _)| *host == mount.source);
        return match own {
            Some((_, path)) => {
                let source = c_text("mount", path)?;
                plan.step(Step::MountOwn {
                    source: &source,
                    target: &target,
                    attributes: options.attributes,
                });
                Ok(())
            }
            None => {
                bind(plan, next(binds, &mount.source)?, &target, &options);
                Ok(())
            }
        };
    }
    if shows_cgroups(mount) {
        return cgroups(plan, &mount.destination, input.v1_cgroups, options);
    }
    // Others have labels of their own, or share one filesystem with the host.
    if !label.is_empty() && ["tmpfs", "devpts"].contains(&mount.kind.as_str()) {
        options.data.push(format!("context={label}"));
    }
    if mount.destination == "/dev" && options.is_readonly() {
        later.push((mount.destination.clone(), options.attributes));
        options = options.writable();
    }
    let (fstype, source) = (c_text("mount", &mount.kind)?, c_text("mount", &mount.source)?);
    let data = CStrings::new(&options.data).map_err(plan_error)?;
    plan.step(Step::MountNew {
        fstype: &fstype,
        source: &source,
        options: data.as_list(),
        target: &target,
        attributes: options.attributes,
        copy_up: options.copy_up,
    });
    Ok(())
}

/// Whether a container sees its cgroups by this mount.
pub(super) fn shows_cgroups(mount: &Mount) -> bool {
    mount.kind == "cgroup" || mount.kind == "cgroup2"
}

/// The container's cgroups: `cgroup2` inside its cgroup namespace on a unified
/// host; on others a tmpfs with the group's directory in each v1 hierarchy.
fn cgroups(
    plan: &mut Plan,
    destination: &str,
    hierarchies: &[(&str, FdIndex)],
    options: Options,
) -> Result<()> {
    let target = c_text("mount", destination)?;
    let attributes = options.attributes;
    let mode = CStrings::new(["mode=755"]).map_err(plan_error)?;
    let none = CStrings::new([""; 0]).map_err(plan_error)?;
    let (fstype, source, data, at_first) = match hierarchies {
        [] => (c"cgroup2", c"cgroup", none.as_list(), attributes),
        _ => (c"tmpfs", c"tmpfs", mode.as_list(), options.writable().attributes),
    };
    plan.step(Step::MountNew {
        fstype,
        source,
        options: data,
        target: &target,
        attributes: at_first,
        copy_up: false,
    });
    for (name, fd) in hierarchies {
        let place = c_text("mount", &format!("{destination}/{name}"))?;
        let kind = TargetKind::Directory;
        plan.step(Step::MountFd { fd: *fd, target: &place, kind, attributes, propagation: None });
        // `cpu` and `cpuacct` are looked for by their own names, too.
        for controller in name.split(',').filter(|_| name.contains(',')) {
            let link = c_text("mount", &format!("{destination}/{controller}"))?;
            let name = c_text("mount", name)?;
            plan.step(Step::Symlink { target: &name, path: &link });
        }
    }
    if at_first != attributes {
        plan.step(Step::Remount { target: &target, attributes });
    }
    Ok(())
}

/// A bind: attributes that hold below too are set before attaching, those of
/// the mount alone after it, where there are both.
fn bind(plan: &mut Plan, fd: FdIndex, target: &std::ffi::CStr, options: &Options) {
    let has = |attributes: &MountAttributes| attributes.set | attributes.clear != 0;
    let both = has(&options.attributes) && has(&options.recursive);
    let first = if has(&options.recursive) { options.recursive } else { options.attributes };
    plan.step(Step::MountFd {
        fd,
        target,
        kind: TargetKind::LikeSource,
        attributes: first,
        propagation: options.propagation,
    });
    if both {
        plan.step(Step::Remount { target, attributes: options.attributes });
    }
}

fn node(plan: &mut Plan, device: &LinuxDevice) -> Result<()> {
    let kind = match device.kind.as_str() {
        "c" | "u" => S_IFCHR,
        "b" => S_IFBLK,
        "p" => S_IFIFO,
        other => {
            return Err(Error::invalid("device type", other, "it is one of c, b, u and p"));
        }
    };
    let number = |number: i64| {
        u32::try_from(number).map_err(|_| {
            Error::invalid("device", device.path.as_str(), "its numbers must not be negative")
        })
    };
    let path = c_text("device", &device.path)?;
    plan.step(Step::Device {
        path: &path,
        mode: kind | (device.file_mode.unwrap_or(0o666) & 0o7777),
        major: number(device.major)?,
        minor: number(device.minor)?,
        uid: device.uid.unwrap_or(0),
        gid: device.gid.unwrap_or(0),
    });
    Ok(())
}

/// Read-only and hidden paths, after the root switch.
pub(super) fn hide(plan: &mut Plan, linux: &Linux) -> Result<()> {
    for path in &linux.readonly_paths {
        let path = c_text("read-only path", path)?;
        plan.step(Step::ReadonlyPath { path: &path });
    }
    for path in &linux.masked_paths {
        let path = c_text("masked path", path)?;
        plan.step(Step::Mask { path: &path });
    }
    Ok(())
}
