//! Steps that mount. Everything is made detached, changed, then attached, so
//! that nobody ever sees a mount with attributes that it should not have.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use super::copy_up;
use super::path::{Make, Text, ensure, open_in};
use super::step::{CStrList, MountAttributes, Propagation, TargetKind};
use super::walk::Walk;
use crate::mount::{clone_fd, propagation_flag};
use crate::sys::{self, MOUNT_ATTR_RDONLY};

/// Puts a detached mount on what `at` is.
fn put(mount: BorrowedFd<'_>, at: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", at, c"", flags)
}

fn set(mount: BorrowedFd<'_>, attributes: MountAttributes) -> Result<(), Errno> {
    let MountAttributes { set, clear, recursive } = attributes;
    if set == 0 && clear == 0 {
        return Ok(());
    }
    sys::mount_setattr(mount, recursive, set, clear, 0, None)
}

fn is_directory(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) == FileType::Directory)
}

/// Makes a filesystem whose context was already given its options.
fn finish(context: BorrowedFd<'_>, attributes: u64) -> Result<OwnedFd, Errno> {
    rustix::mount::fsconfig_create(context)?;
    let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
    rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// One option, `key` or `key=value`.
fn option(context: BorrowedFd<'_>, option: &CStr) -> Result<(), Errno> {
    let bytes = option.to_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        None => rustix::mount::fsconfig_set_flag(context, option),
        Some(equals) => {
            let key = Text::from(bytes.get(..equals).unwrap_or(&[]))?;
            let value = option.to_bytes_with_nul().get(equals + 1..).ok_or(Errno::INVAL)?;
            let value = CStr::from_bytes_with_nul(value).map_err(|_| Errno::INVAL)?;
            rustix::mount::fsconfig_set_string(context, key.as_c_str()?, value)
        }
    }
}

fn tmpfs(mode: &CStr, attributes: u64) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), c"source", c"tmpfs")?;
    rustix::mount::fsconfig_set_string(context.as_fd(), c"mode", mode)?;
    finish(context.as_fd(), attributes)
}

/// A `MountNew` step, as one argument.
pub(super) struct NewMount<'a> {
    pub fstype: &'a CStr,
    pub source: &'a CStr,
    pub options: CStrList<'a>,
    pub target: &'a CStr,
    pub attributes: MountAttributes,
    pub copy_up: bool,
}

impl Walk<'_> {
    pub(super) fn root_propagation(&self, propagation: Propagation) -> Result<(), Errno> {
        let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        sys::mount_setattr(root.as_fd(), true, 0, 0, propagation_flag(propagation), None)
    }

    /// The new root lies on top of the old one, where only its descriptor
    /// finds it until the switch.
    pub(super) fn attach_root(&mut self, mount: BorrowedFd<'_>) -> Result<(), Errno> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(mount, c"", rustix::fs::CWD, c"/", flags)?;
        // A clone of a shared mount is shared as well, and then no root.
        let private = propagation_flag(Propagation::Private);
        sys::mount_setattr(mount, true, 0, 0, private, None)?;
        self.root = Some(rustix::io::fcntl_dupfd_cloexec(mount, 3)?);
        Ok(())
    }

    pub(super) fn switch_root(&mut self) -> Result<(), Errno> {
        let root = self.root.take().ok_or(Errno::INVAL)?;
        rustix::process::fchdir(&root)?;
        rustix::process::pivot_root(c".", c".")?;
        // The old root now lies on top of the new one.
        rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
        rustix::process::chdir(c"/")
    }

    pub(super) fn mount_fd(
        &self,
        mount: BorrowedFd<'_>,
        target: &CStr,
        kind: TargetKind,
        attributes: MountAttributes,
        propagation: Option<Propagation>,
    ) -> Result<(), Errno> {
        let directory = match kind {
            TargetKind::Directory => true,
            TargetKind::File => false,
            TargetKind::LikeSource => is_directory(mount)?,
        };
        set(mount, attributes)?;
        let make = if directory { Make::Directory } else { Make::File };
        let at = ensure(self.root()?.as_fd(), target, make)?;
        put(mount, at.as_fd())?;
        match propagation {
            None => Ok(()),
            Some(propagation) => {
                let flag = propagation_flag(propagation);
                sys::mount_setattr(mount, true, 0, 0, flag, None)
            }
        }
    }

    pub(super) fn mount_own(
        &self,
        source: &CStr,
        target: &CStr,
        attributes: MountAttributes,
    ) -> Result<(), Errno> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE;
        let mount = rustix::mount::open_tree(rustix::fs::CWD, source, flags)?;
        self.mount_fd(mount.as_fd(), target, TargetKind::LikeSource, attributes, None)
    }

    pub(super) fn mount_new(&self, new: &NewMount<'_>) -> Result<(), Errno> {
        let context = rustix::mount::fsopen(new.fstype, FsOpenFlags::FSOPEN_CLOEXEC)?;
        let context = context.as_fd();
        if !new.source.is_empty() {
            rustix::mount::fsconfig_set_string(context, c"source", new.source)?;
        }
        for text in new.options.iter() {
            option(context, text)?;
        }
        let at_first = if new.copy_up { 0 } else { new.attributes.set };
        let mount = finish(context, at_first)?;
        let root = self.root()?;
        if new.copy_up {
            match open_in(root.as_fd(), new.target, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(from) => {
                    // The mount's own descriptor is good for paths alone.
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                    let to = rustix::fs::openat(&mount, c".", flags, Mode::empty())?;
                    copy_up::directory(from.as_fd(), to.as_fd(), copy_up::DEPTH_MAX)?;
                }
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
            set(mount.as_fd(), new.attributes)?;
        }
        let at = ensure(root.as_fd(), new.target, Make::Directory)?;
        put(mount.as_fd(), at.as_fd())
    }

    pub(super) fn remount(&self, target: &CStr, attributes: MountAttributes) -> Result<(), Errno> {
        set(open_in(self.root()?.as_fd(), target, OFlags::PATH)?.as_fd(), attributes)
    }

    pub(super) fn readonly_root(&self) -> Result<(), Errno> {
        sys::mount_setattr(self.root()?.as_fd(), false, MOUNT_ATTR_RDONLY, 0, 0, None)
    }

    pub(super) fn mask(&mut self, path: &CStr) -> Result<(), Errno> {
        let root = self.root()?;
        let at = match open_in(root.as_fd(), path, OFlags::PATH) {
            Ok(at) => at,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        if !is_directory(at.as_fd())? {
            let null = open_in(root.as_fd(), c"/dev/null", OFlags::PATH | OFlags::NOFOLLOW)?;
            let stat = rustix::fs::fstat(&null)?;
            let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
                && stat.st_rdev == rustix::fs::makedev(1, 3);
            if !is_null {
                return Err(Errno::NODEV);
            }
            return put(clone_fd(null.as_fd(), false)?.as_fd(), at.as_fd());
        }
        // One empty tmpfs serves all; only an attached mount can be cloned.
        match &self.empty {
            Some(empty) => put(clone_fd(empty.as_fd(), false)?.as_fd(), at.as_fd()),
            None => {
                let empty = tmpfs(c"755", MOUNT_ATTR_RDONLY)?;
                put(empty.as_fd(), at.as_fd())?;
                self.empty = Some(empty);
                Ok(())
            }
        }
    }

    pub(super) fn readonly_path(&self, path: &CStr) -> Result<(), Errno> {
        let at = match open_in(self.root()?.as_fd(), path, OFlags::PATH) {
            Ok(at) => at,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        let mount = clone_fd(at.as_fd(), true)?;
        sys::mount_setattr(mount.as_fd(), true, MOUNT_ATTR_RDONLY, 0, 0, None)?;
        put(mount.as_fd(), at.as_fd())
    }
}
