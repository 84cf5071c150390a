//! Namespaces, held by descriptors.
//!
//! A namespace belongs to a thread, and what a thread has changed about itself
//! cannot always be undone: so everything here happens on a thread, or in a
//! process, that ends afterwards.

mod template;
mod user;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MoveMountFlags;

use crate::launch::NamespaceKind;
use crate::launch::clone_flag;
use crate::{Context, Error, Result, sys};

pub use template::small_mount_namespace;
pub use user::{IdMap, create_user};

/// Namespaces that were made together; absent are those not asked for.
#[derive(Debug, Default)]
pub struct NamespaceSet {
    /// The user namespace that owns the others.
    pub user: Option<OwnedFd>,
    /// Network.
    pub net: Option<OwnedFd>,
    /// IPC.
    pub ipc: Option<OwnedFd>,
    /// Host name.
    pub uts: Option<OwnedFd>,
    /// Mounts.
    pub mount: Option<OwnedFd>,
    /// View of the cgroups.
    pub cgroup: Option<OwnedFd>,
}

impl NamespaceSet {
    /// New namespaces of these kinds (net, ipc, uts, mount, cgroup), with
    /// nothing set up in them.
    pub fn create(kinds: &[NamespaceKind]) -> Result<Self> {
        let flags = flags(kinds)?;
        on_thread(|| {
            sys::unshare(flags).context("make", || "namespaces")?;
            Self::collect(kinds, own)
        })
    }

    fn collect(
        kinds: &[NamespaceKind],
        open: impl Fn(NamespaceKind) -> Result<OwnedFd>,
    ) -> Result<Self> {
        let mut set = Self::default();
        for kind in kinds {
            let slot = match kind {
                NamespaceKind::User => &mut set.user,
                NamespaceKind::Net => &mut set.net,
                NamespaceKind::Ipc => &mut set.ipc,
                NamespaceKind::Uts => &mut set.uts,
                NamespaceKind::Mount => &mut set.mount,
                NamespaceKind::Cgroup => &mut set.cgroup,
                // These are entered by children, and cannot be held like this.
                NamespaceKind::Pid | NamespaceKind::Time => continue,
            };
            *slot = Some(open(*kind)?);
        }
        Ok(set)
    }
}

fn flags(kinds: &[NamespaceKind]) -> Result<libc::c_int> {
    if kinds.iter().any(|kind| matches!(kind, NamespaceKind::Pid | NamespaceKind::Time)) {
        return Err(Error::new("make", "a PID or time namespace without a process", Errno::INVAL));
    }
    Ok(kinds.iter().fold(0, |flags, kind| flags | clone_flag(*kind)))
}

/// Sets the host name of the calling thread's UTS namespace (see [`run_in`]).
pub fn set_hostname(name: &str) -> Result<()> {
    rustix::system::sethostname(name.as_bytes()).context("set the host name to", || name.to_owned())
}

/// Runs on a thread of its own, which ends with it.
fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("namespace".into())
            .spawn_scoped(scope, work)
            .context("start", || "a thread")?;
        match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The name of a kind below `/proc/<pid>/ns`.
pub fn file_name(kind: NamespaceKind) -> &'static str {
    match kind {
        NamespaceKind::Mount => "mnt",
        NamespaceKind::Net => "net",
        NamespaceKind::Ipc => "ipc",
        NamespaceKind::Uts => "uts",
        NamespaceKind::Pid => "pid",
        NamespaceKind::User => "user",
        NamespaceKind::Cgroup => "cgroup",
        NamespaceKind::Time => "time",
    }
}

/// The namespace of the calling thread.
pub fn own(kind: NamespaceKind) -> Result<OwnedFd> {
    open(Path::new(&format!("/proc/thread-self/ns/{}", file_name(kind))))
}

/// A namespace of a process.
pub fn of_process(pid: i32, kind: NamespaceKind) -> Result<OwnedFd> {
    open(Path::new(&format!("/proc/{pid}/ns/{}", file_name(kind))))
}

/// Opens a namespace at a path (`/run/netns/…`, `/proc/<pid>/ns/net`).
pub fn open(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .context("open the namespace", || path.display().to_string())
}

/// Runs `work` on a thread that has joined these namespaces (of any kind but
/// PID; a user namespace comes first and cannot be joined together with what
/// needs another's privileges).
///
/// A thread of a process with threads cannot enter a user namespace (EINVAL):
/// there, launch a process instead.
pub fn run_in<T: Send>(
    namespaces: &[BorrowedFd<'_>],
    work: impl FnOnce() -> T + Send,
) -> Result<T> {
    on_thread(|| {
        // Entering a mount namespace asks for a root and a working directory
        // of one's own.
        sys::unshare(libc::CLONE_FS).context("leave", || "the directories of the process")?;
        for namespace in namespaces {
            sys::setns(*namespace, 0).context("join", || "a namespace")?;
        }
        Ok(work())
    })
}

/// Pins a namespace at a path, which is made as an empty file. It stays until
/// [`unbind`].
pub fn bind(namespace: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDONLY | OFlags::CLOEXEC;
    let made = rustix::fs::open(path, flags, Mode::from_raw_mode(0o444));
    made.context("make", || path.display().to_string())?;
    let attached = crate::mount::clone_fd(namespace, false).and_then(|mount| {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(mount.as_fd(), c"", rustix::fs::CWD, path, flags)
    });
    if attached.is_err() {
        // The empty file would look like a namespace; the mount's error counts.
        let _ = std::fs::remove_file(path);
    }
    attached.context("pin a namespace at", || path.display().to_string())
}

/// Removes a pin; the namespace lives on while it is used. What is gone
/// already is fine.
pub fn unbind(path: &Path) -> Result<()> {
    loop {
        match crate::mount::unmount_detach(path) {
            Ok(()) => {}
            Err(Error { errno: Errno::INVAL, .. }) => break,
            Err(Error { errno: Errno::NOENT, .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.context("remove", || path.display().to_string()),
    }
}

#[cfg(test)]
mod tests;
