//! From the parent's side: clone the child.

use std::cell::Cell;
use std::ffi::c_void;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use corten_base::limits::FRAME_FDS_MAX;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};

use super::child::Child;
use super::step::{NamespaceKind, Step};
use super::sync::{self, Heard, Word};
use super::walk::clone_flag;
use super::{lent, start};
use crate::sys;

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
        /// The PID namespace, or a pidfd of a process in it.
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

/// The memory of a child on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// A copy of the caller's, hidden from whoever may look into the child.
    Copied,
    /// The caller's own, so that nothing is copied; the calling thread waits
    /// until the child has executed. For a trusted command in namespaces of the
    /// host, with [`Join::Parents`] and no new namespaces: in a container the
    /// child would show the caller's memory.
    Lent,
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
    /// Whether the child is on its way in a copy of the caller's memory.
    pub memory: Memory,
    /// Directory of a v2 cgroup to be born into.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// `tasks` of v1 groups, open for writing; at most
    /// [`Launch::TASKS_MAX`]. The child enters them at `EnterCgroups`.
    pub tasks: &'a [BorrowedFd<'a>],
}

impl<S> Launch<'_, S> {
    /// How many descriptors a command can inherit beyond stdio.
    pub const INHERIT_MAX: usize = 16;
    /// How many v1 hierarchies there can be: Linux has 14 controllers, and
    /// there are hierarchies without any.
    pub const TASKS_MAX: usize = 32;
}

/// Starts a child on its way. Errors are of the clone; everything later comes
/// as a [`super::Message`]. The caller reaps the child ([`Child::pid`]) when its pidfd says that it has ended.
pub fn spawn<'a, S>(launch: &Launch<'a, S>) -> Result<Child, Errno>
where
    S: Iterator<Item = Step<'a>> + Clone,
{
    if launch.fds.len() > FRAME_FDS_MAX
        || launch.inherit.len() > Launch::<S>::INHERIT_MAX
        || launch.tasks.len() > Launch::<S>::TASKS_MAX
    {
        return Err(Errno::TOOBIG);
    }
    come_home()?;
    let (ours, theirs) = sync::pair()?;
    // A handler of this process must not run in the child.
    let mask = sys::block_signals()?;
    let made = match (launch.memory, launch.join) {
        (Memory::Lent, Join::Parents) if launch.new_namespaces.is_empty() => lent(launch, &theirs),
        (Memory::Lent, _) => Err(Errno::INVAL),
        (Memory::Copied, Join::Parents | Join::Before { user: None, pid: None }) => {
            direct(launch, &theirs)
        }
        (Memory::Copied, Join::Before { user: None, pid: Some(pid) }) => {
            in_pid_namespace(launch, &theirs, pid)
        }
        (Memory::Copied, Join::Process { pidfd, .. }) => in_pid_namespace(launch, &theirs, pidfd),
        (Memory::Copied, Join::Before { user: Some(_), .. }) => {
            by_intermediate(launch, &ours, theirs)
        }
    };
    sys::restore_signals(mask);
    let (pid, pidfd) = made?;
    Ok(Child { pid, pidfd, sync: ours })
}

fn direct<'a, S>(launch: &Launch<'a, S>, theirs: &OwnedFd) -> Result<(i32, OwnedFd), Errno>
where
    S: Iterator<Item = Step<'a>> + Clone,
{
    let flags = launch.new_namespaces.iter().fold(0, |flags, kind| flags | clone_flag(*kind));
    let ignored = ignored_signals();
    // SAFETY: `child` allocates nothing, takes no lock and does not unwind.
    match unsafe { sys::fork(flags as u64, libc::SIGCHLD, launch.cgroup)? } {
        Some(made) => Ok(made),
        None => start::child(launch, theirs, ignored),
    }
}

/// What a child begins with in lent memory.
struct Beginning<'l, 'a, S> {
    launch: &'l Launch<'a, S>,
    theirs: &'l OwnedFd,
    ignored: u64,
}

fn lent<'a, S>(launch: &Launch<'a, S>, theirs: &OwnedFd) -> Result<(i32, OwnedFd), Errno>
where
    S: Iterator<Item = Step<'a>> + Clone,
{
    /// # Safety
    /// The argument is a `Beginning<S>`.
    unsafe extern "C" fn begin<'a, S>(argument: *const c_void) -> !
    where
        S: Iterator<Item = Step<'a>> + Clone,
    {
        // SAFETY: the caller waits with it until the child is done.
        let beginning = unsafe { &*argument.cast::<Beginning<'_, 'a, S>>() };
        start::child(beginning.launch, beginning.theirs, beginning.ignored)
    }
    let beginning = Beginning { launch, theirs, ignored: ignored_signals() };
    let argument = (&raw const beginning).cast();
    // SAFETY: `child` allocates nothing, takes no lock, does not unwind, and
    // writes to its own stack alone.
    unsafe { lent::run(begin::<S>, argument, launch.cgroup) }
}

thread_local! {
    /// The children of this thread would be born into another's PID namespace.
    static AWAY: Cell<bool> = const { Cell::new(false) };
}

/// As [`direct`], with the child in the PID namespace of `pid` from the first.
/// For that this thread says where its children are to live, and takes it back:
/// a process in between, whose child this would be otherwise, costs as much as
/// the child itself.
fn in_pid_namespace<'a, S>(
    launch: &Launch<'a, S>,
    theirs: &OwnedFd,
    pid: BorrowedFd<'_>,
) -> Result<(i32, OwnedFd), Errno>
where
    S: Iterator<Item = Step<'a>> + Clone,
{
    sys::setns(pid, libc::CLONE_NEWPID)?;
    AWAY.set(true);
    let made = direct(launch, theirs);
    // If this fails, the next launch begins with it, and fails if it must.
    let _ = come_home();
    match made {
        // So says the kernel of a namespace whose init has just ended.
        Err(Errno::NOMEM) if has_ended(pid) => Err(Errno::SRCH),
        made => made,
    }
}

/// The children of this thread live where it lives itself.
fn come_home() -> Result<(), Errno> {
    if AWAY.get() {
        let home = sys::pidfd_open(std::process::id().cast_signed())?;
        sys::setns(home.as_fd(), libc::CLONE_NEWPID)?;
        AWAY.set(false);
    }
    Ok(())
}

fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

/// The signals that this process ignores, bit 0 for signal 1: a child is to
/// begin with none. They are settled when a process starts. All, if that
/// cannot be read.
fn ignored_signals() -> u64 {
    static IGNORED: OnceLock<u64> = OnceLock::new();
    *IGNORED.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(u64::MAX)
    })
}

fn by_intermediate<'a, S>(
    launch: &Launch<'a, S>,
    ours: &OwnedFd,
    theirs: OwnedFd,
) -> Result<(i32, OwnedFd), Errno>
where
    S: Iterator<Item = Step<'a>> + Clone,
{
    // The intermediate is born into the cgroup, and its child with it: once in
    // the namespaces, the way there may be barred (a cgroup2 that is mounted
    // with `nsdelegate`, a user namespace without rights).
    sync::name_senders(ours.as_fd())?;
    let ignored = ignored_signals();
    // SAFETY: `intermediate` allocates nothing, takes no lock and does not unwind.
    let Some((_, pidfd)) = (unsafe { sys::fork(0, libc::SIGCHLD, launch.cgroup)? }) else {
        start::intermediate(launch, &theirs, ignored)
    };
    drop(theirs);
    let heard = hear_pid(ours);
    if heard.is_err() {
        // It may sit in a frozen cgroup; SIGKILL reaches it there as well.
        let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
    }
    reap(&pidfd)?;
    let pid = heard?;
    // Nobody but us can reap the child, so the number is still its own.
    Ok((pid, sys::pidfd_open(pid)?))
}

/// The intermediate has nothing to wait for, so this is a matter of the time
/// that two system calls take, unless its cgroup is frozen.
const INTERMEDIATE_SECONDS_MAX: i64 = 5;

/// The pid of the child that the intermediate made, by the child's own first
/// word: were it the intermediate's to say, the child's next ones could overtake.
fn hear_pid(ours: &OwnedFd) -> Result<i32, Errno> {
    let timeout = Timespec { tv_sec: INTERMEDIATE_SECONDS_MAX, tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::new(ours, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(Errno::TIMEDOUT),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        match sync::listen(ours.as_fd()) {
            Ok(Some(Heard { word: Word::Born, pid: Some(pid), .. })) => {
                return Ok(pid.as_raw_nonzero().get());
            }
            Ok(Some(Heard { word: Word::Failed { errno, .. }, .. })) => {
                return Err(Errno::from_raw_os_error(errno));
            }
            Ok(Some(_)) => return Err(Errno::PROTO),
            Ok(None) => return Err(Errno::CHILD),
            Err(Errno::AGAIN) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn reap(pidfd: &OwnedFd) -> Result<(), Errno> {
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            other => return other.map(drop),
        }
    }
}
