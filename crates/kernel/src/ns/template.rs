//! The mount namespace in which shims live: next to nothing in it, so that
//! copying it costs next to nothing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::process::{chdir, pivot_root};

use super::{on_thread, own};
use crate::launch::{MountAttributes, NamespaceKind};
use crate::mount::{
    MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, attach,
    new_filesystem, open_tree, open_tree_at, set_attributes,
};
use crate::{Context, Result, sys};

/// A private mount namespace with a tiny read-only root: a fully visible
/// `/proc` and the host's `/sys` alone, without what is mounted there (without
/// both, a container in a user namespace may not mount its own), the shim's
/// program as a read-only bind at `/corten-shim`, and the empty directories
/// `/root` and `/shm`.
pub fn small_mount_namespace(shim_program: BorrowedFd<'_>) -> Result<OwnedFd> {
    on_thread(|| {
        // The clone has to be made where the program was opened.
        let program = open_tree_at(shim_program, false)?;
        sys::unshare(libc::CLONE_FS | libc::CLONE_NEWNS)
            .context("make", || "a mount namespace for shims")?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change(c"/", private).context("make private", || "/")?;
        let binary = only(MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
        set_attributes(program.as_fd(), binary, None, None)?;
        let sys = open_tree(Path::new("/sys"), false)?;
        let all = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
        let proc = new_filesystem("proc", &[("source", "proc")], only(all))?;
        let root = new_filesystem(
            "tmpfs",
            &[("source", "corten"), ("mode", "755"), ("size", "64k")],
            only(0),
        )?;
        for name in ["proc", "sys", "root", "shm"] {
            rustix::fs::mkdirat(&root, name, Mode::from_raw_mode(0o755))
                .context("make", || name)?;
        }
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat(&root, c"corten-shim", flags, Mode::from_raw_mode(0o755))
            .context("make", || "/corten-shim")?;
        become_root(&root)?;
        attach(proc.as_fd(), Path::new("/proc"))?;
        attach(sys.as_fd(), Path::new("/sys"))?;
        attach(program.as_fd(), Path::new("/corten-shim"))?;
        let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .context("open", || "/")?;
        let readonly = only(MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
        set_attributes(root.as_fd(), readonly, None, None)?;
        own(NamespaceKind::Mount)
    })
}

fn only(set: u64) -> MountAttributes {
    MountAttributes { set, clear: 0, recursive: false }
}

fn become_root(root: &OwnedFd) -> Result<()> {
    attach(root.as_fd(), Path::new("/"))?;
    rustix::process::fchdir(root).context("enter", || "the new root")?;
    pivot_root(c".", c".").context("change", || "the root")?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH).context("unmount", || "the old root")?;
    chdir(c"/").context("enter", || "/")?;
    Ok(())
}
