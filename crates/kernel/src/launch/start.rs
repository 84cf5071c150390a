//! The child's first moves, before its first step: quiet, alone with the
//! descriptors that it needs, and in the namespaces it is to be born into.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use corten_base::limits::FRAME_FDS_MAX;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::spawn::{Join, Launch, Memory, STEP_BEFORE};
use super::step::Step;
use super::sync::{self, Word};
use super::walk::{Walk, clone_flag};
use super::{raise_limit, write_oom_score_adj};
use crate::sys;

const TASKS_MAX: usize = Launch::<()>::TASKS_MAX;

/// Descriptors that a child keeps on its way.
pub(super) struct Kept {
    sync: RawFd,
    fds: [RawFd; FRAME_FDS_MAX],
    count: usize,
    tasks: [RawFd; TASKS_MAX],
    tasks_count: usize,
    first_own: u32,
}

/// The life of the child that executes the command. `ignored` are the signals
/// that its parent ignores.
pub(super) fn child<'a, S>(launch: &Launch<'a, S>, theirs: &OwnedFd, ignored: u64) -> !
where
    S: Iterator<Item = Step<'a>> + Clone,
{
    let quiet = match launch.memory {
        Memory::Copied => quiet(ignored),
        Memory::Lent => bare(ignored),
    };
    let kept = match quiet.and_then(|()| keep(launch, theirs.as_raw_fd())) {
        Ok(kept) => kept,
        Err(errno) => fail(theirs.as_raw_fd(), errno),
    };
    let proc = open_proc().ok();
    if let Join::Process { pidfd, user } = launch.join
        && let Err(errno) = enter(launch, proc.as_ref(), pidfd, user)
    {
        fail(kept.sync, errno);
    }
    walk(launch, &kept, proc)
}

/// Enters the namespaces of a running process, all but that of PIDs, into
/// which this child was born.
fn enter<'a, S>(
    launch: &Launch<'a, S>,
    proc: Option<&OwnedFd>,
    pidfd: BorrowedFd<'_>,
    user: bool,
) -> Result<(), Errno>
where
    S: Iterator<Item = Step<'a>> + Clone,
{
    let all = libc::CLONE_NEWNS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    if !user {
        return sys::setns(pidfd, all);
    }
    before_user_namespace(launch, proc);
    sys::setns(pidfd, all | libc::CLONE_NEWUSER)?;
    // Both are lost with the change of credentials.
    hidden()
}

/// The life of the child that only enters namespaces and makes the real one.
pub(super) fn intermediate<'a, S>(launch: &Launch<'a, S>, theirs: &OwnedFd, ignored: u64) -> !
where
    S: Iterator<Item = Step<'a>> + Clone,
{
    let kept = match quiet(ignored).and_then(|()| keep(launch, theirs.as_raw_fd())) {
        Ok(kept) => kept,
        Err(errno) => fail(theirs.as_raw_fd(), errno),
    };
    let proc = open_proc().ok();
    match second(launch, proc.as_ref()) {
        Ok(Made::Child) => {
            // SAFETY: the descriptor was just kept, and is open.
            let sync = unsafe { BorrowedFd::borrow_raw(kept.sync) };
            match sync::say(sync, Word::Born).and_then(|()| quiet(0)) {
                Ok(()) => walk(launch, &kept, proc),
                Err(errno) => fail(kept.sync, errno),
            }
        }
        Ok(Made::Parent) => sys::exit(0),
        Err(errno) => fail(kept.sync, errno),
    }
}

fn fail(sync: RawFd, errno: Errno) -> ! {
    // SAFETY: the descriptor is this process's own end of the socket.
    let sync = unsafe { BorrowedFd::borrow_raw(sync) };
    let failed = Word::Failed { step: STEP_BEFORE, errno: errno.raw_os_error() };
    // If nobody listens any more, nobody wants to know.
    let _ = sync::say(sync, failed);
    sys::exit(255)
}

fn walk<'a, S>(launch: &Launch<'a, S>, kept: &Kept, proc: Option<OwnedFd>) -> !
where
    S: Iterator<Item = Step<'a>> + Clone,
{
    Walk {
        // SAFETY: the descriptor was just kept, and stays open until execve.
        sync: unsafe { BorrowedFd::borrow_raw(kept.sync) },
        fds: kept.fds.get(..kept.count).unwrap_or(&[]),
        tasks: kept.tasks.get(..kept.tasks_count).unwrap_or(&[]),
        first_own: kept.first_own,
        proc,
        root: None,
        empty: None,
        prepared: None,
        umask_set: false,
        bounding: None,
    }
    .run(launch.steps.clone())
}

fn open_proc() -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(c"/proc", flags, Mode::empty())
}

/// Not to be looked into, dead with its parent, every signal at its default.
fn quiet(ignored: u64) -> Result<(), Errno> {
    sys::prctl(libc::PR_SET_DUMPABLE, 0, 0)?;
    bare(ignored)
}

/// The same but for the first, which is a thing of the memory: the parent's.
fn bare(ignored: u64) -> Result<(), Errno> {
    dies_with_parent()?;
    rustix::process::umask(Mode::empty());
    sys::default_signals(ignored)
}

fn hidden() -> Result<(), Errno> {
    sys::prctl(libc::PR_SET_DUMPABLE, 0, 0)?;
    dies_with_parent()
}

fn dies_with_parent() -> Result<(), Errno> {
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as usize, 0).map(drop)
}

/// In a user namespace limits can no longer be raised, nor oom_score_adj be
/// written by a process that cannot be looked into. Both are inherited; the
/// steps themselves report what was refused.
fn before_user_namespace<'a, S>(launch: &Launch<'a, S>, proc: Option<&OwnedFd>)
where
    S: Iterator<Item = Step<'a>> + Clone,
{
    for step in launch.steps.clone() {
        match (step, proc) {
            (Step::Rlimit { resource, hard, .. }, _) => raise_limit(resource, hard),
            (Step::OomScoreAdj { value }, Some(proc)) => {
                let _ = write_oom_score_adj(proc.as_fd(), value);
            }
            _ => {}
        }
    }
}

/// Puts stdio and what is inherited in their places, and closes everything
/// else that is not needed on the way.
fn keep<S>(launch: &Launch<'_, S>, sync: RawFd) -> Result<Kept, Errno> {
    let first_own = 3 + launch.inherit.len() as RawFd;
    // What lies where stdio and inherited descriptors go has to move first.
    let mut kept = Kept {
        sync: lift(sync, first_own)?,
        fds: [-1; FRAME_FDS_MAX],
        count: launch.fds.len(),
        tasks: [-1; TASKS_MAX],
        tasks_count: launch.tasks.len(),
        first_own: first_own as u32,
    };
    for (slot, fd) in kept.fds.iter_mut().zip(launch.fds) {
        *slot = lift(fd.as_raw_fd(), first_own)?;
    }
    for (slot, fd) in kept.tasks.iter_mut().zip(launch.tasks) {
        *slot = lift(fd.as_raw_fd(), first_own)?;
    }
    let mut placed = [-1; 3 + Launch::<()>::INHERIT_MAX];
    for (slot, fd) in placed.iter_mut().zip(launch.stdio.iter().chain(launch.inherit)) {
        *slot = lift(fd.as_raw_fd(), first_own)?;
    }
    for (place, fd) in (0..first_own).zip(placed) {
        sys::dup_onto(fd, place)?;
    }
    close_others(&kept, launch)?;
    Ok(kept)
}

/// A descriptor that is not below `first`: the same, or a copy.
fn lift(fd: RawFd, first: RawFd) -> Result<RawFd, Errno> {
    if fd >= first { Ok(fd) } else { sys::dup_above(fd, first) }
}

/// Closes the gaps between the kept descriptors, from one to the next.
fn close_others<S>(kept: &Kept, launch: &Launch<'_, S>) -> Result<(), Errno> {
    let joined = match launch.join {
        Join::Parents => [None, None],
        Join::Before { user, pid } => [user, pid].map(|fd| fd.map(|fd| fd.as_raw_fd())),
        Join::Process { pidfd, .. } => [Some(pidfd.as_raw_fd()), None],
    };
    let mut from = kept.first_own;
    loop {
        let next = kept
            .fds
            .iter()
            .chain(&kept.tasks)
            .copied()
            .chain([kept.sync])
            .chain(joined.into_iter().flatten())
            .filter_map(|fd| u32::try_from(fd).ok())
            .filter(|fd| *fd >= from)
            .min();
        match next {
            Some(next) if next > from => sys::close_range(from, next - 1)?,
            Some(_) => {}
            None => return sys::close_range(from, u32::MAX),
        }
        from = next.unwrap_or(from) + 1;
    }
}

/// Where the second clone returns.
enum Made {
    Child,
    /// In the intermediate, which made it.
    Parent,
}

/// Enters the namespaces and makes the real child, which is the parent's.
fn second<'a, S>(launch: &Launch<'a, S>, proc: Option<&OwnedFd>) -> Result<Made, Errno>
where
    S: Iterator<Item = Step<'a>> + Clone,
{
    before_user_namespace(launch, proc);
    if let Join::Before { user, pid } = launch.join {
        // First the PID namespace: it may be given by the pidfd of a process
        // that cannot be looked into from within the user namespace.
        if let Some(pid) = pid {
            sys::setns(pid, libc::CLONE_NEWPID)?;
        }
        if let Some(user) = user {
            sys::setns(user, libc::CLONE_NEWUSER)?;
        }
    }
    let flags = launch
        .new_namespaces
        .iter()
        .fold(libc::CLONE_PARENT, |flags, kind| flags | clone_flag(*kind));
    // SAFETY: the child walks its steps, which is made for this.
    let forked = unsafe { sys::fork(flags as u64, 0, None)? };
    Ok(if forked.is_some() { Made::Parent } else { Made::Child })
}
