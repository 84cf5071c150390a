//! Mounts, by descriptors: cloned, made and changed while detached, then
//! attached. (The mounts of a container are made by its own child, see
//! [`crate::launch`]; here is what daemons need.)

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use crate::launch::{MountAttributes, Propagation};
use crate::{Context, Result, sys};

pub use crate::sys::{
    MOUNT_ATTR_ATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY,
};

/// A detached clone of the mount at `path` (its subtree, if it is no mount
/// point), with everything mounted below it if `recursive`.
pub fn open_tree(path: &Path, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(rustix::fs::CWD, path, flags)
        .context("clone the mount at", || path.display().to_string())
}

/// A detached clone of the subtree at an open descriptor (`O_PATH` will do).
pub fn open_tree_at(fd: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd> {
    clone_fd(fd, recursive).context("clone a mount", || "by descriptor")
}

pub(crate) fn clone_fd(fd: BorrowedFd<'_>, recursive: bool) -> std::result::Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(fd, c"", flags)
}

/// A new filesystem instance, detached. Options without a value have an empty
/// one. (Of the attributes only what is to be set counts: nothing is set yet.)
pub fn new_filesystem(
    fstype: &str,
    options: &[(&str, &str)],
    attributes: MountAttributes,
) -> Result<OwnedFd> {
    make(fstype, options, attributes.set)
        .context("make a filesystem of type", || format!("{fstype} ({options:?})"))
}

fn make(
    fstype: &str,
    options: &[(&str, &str)],
    attributes: u64,
) -> std::result::Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(context.as_fd(), *key)?;
        } else {
            rustix::mount::fsconfig_set_string(context.as_fd(), *key, *value)?;
        }
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Attaches a detached mount at an existing path of the caller's mount namespace.
pub fn attach(mount: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", rustix::fs::CWD, path, flags)
        .context("mount at", || path.display().to_string())
}

/// Changes a mount: its attributes, its propagation, its idmapping (only while
/// it is detached and was never idmapped).
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    attributes: MountAttributes,
    propagation: Option<Propagation>,
    idmap: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let propagation = propagation.map_or(0, propagation_flag);
    let MountAttributes { set, clear, recursive } = attributes;
    sys::mount_setattr(mount, recursive, set, clear, propagation, idmap)
        .context("set the attributes of", || "a mount")
}

pub(crate) fn propagation_flag(propagation: Propagation) -> u64 {
    match propagation {
        Propagation::Private => libc::MS_PRIVATE,
        Propagation::Slave => libc::MS_SLAVE,
        Propagation::Shared => libc::MS_SHARED,
        Propagation::Unbindable => libc::MS_UNBINDABLE,
    }
}

/// Unmounts what is on top at `path`, with everything below it; whoever uses it
/// still keeps it until he is done. Nothing mounted there is EINVAL.
pub fn unmount_detach(path: &Path) -> Result<()> {
    rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        .context("unmount", || path.display().to_string())
}

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Number of the mount.
    pub id: u64,
    /// Number of the mount it lies on.
    pub parent: u64,
    /// Directory of the filesystem that is its root.
    pub root: PathBuf,
    /// Where it is mounted.
    pub target: PathBuf,
    /// Options of the mount (`ro,nosuid,…`).
    pub options: String,
    /// Propagation fields (`shared:1 master:2`).
    pub propagation: String,
    /// Filesystem type.
    pub fstype: String,
    /// What was mounted.
    pub source: String,
    /// Options of the filesystem.
    pub super_options: String,
}

/// The mounts that this process sees. For diagnosis and tests: it costs as
/// much as there are mounts.
pub fn mount_list() -> Result<Vec<Mount>> {
    let text = std::fs::read("/proc/self/mountinfo").context("read", || "/proc/self/mountinfo")?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(parse_mount).collect())
}

/// Reads one line of mountinfo; none if it is not one.
pub fn parse_mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    fields.next()?; // device
    let root = unescape(fields.next()?);
    let target = unescape(fields.next()?);
    let options = text(fields.next()?);
    let propagation: Vec<String> =
        fields.by_ref().take_while(|field| *field != b"-").map(text).collect();
    Some(Mount {
        id,
        parent,
        root,
        target,
        options,
        propagation: propagation.join(" "),
        fstype: text(fields.next()?),
        source: text(fields.next()?),
        super_options: text(fields.next()?),
    })
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).into_owned()
}

/// Undoes `\040` and its like.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| first == b'\\').and_then(|digits| {
            digits.iter().try_fold(0u32, |value, digit| {
                matches!(digit, b'0'..=b'7').then(|| value * 8 + u32::from(digit - b'0'))
            })
        });
        match octal {
            Some(value) => {
                bytes.push(value as u8);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}
