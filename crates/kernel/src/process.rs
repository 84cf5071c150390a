//! Processes: descriptors of them, signals to them, their ends; and clocks.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, WaitOptions, WaitStatus, getrlimit, setrlimit,
};
use rustix::time::{ClockId, clock_gettime};

use crate::{Context, Error, Result};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It exited with this code.
    Exited(i32),
    /// This signal killed it.
    Killed(i32),
}

impl End {
    /// As shells count: the exit code, or 128 and the signal's number.
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => 128 + signal,
        }
    }
}

/// Lets this process have as many descriptors as it may: each pod takes one,
/// and where nobody says otherwise the soft limit is 1024.
pub fn raise_descriptors_limit() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return Ok(());
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        .context("raise", || "the limit of open descriptors")
}

/// A descriptor of a running process, or of an ended one not yet waited for.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    let open = || {
        let pid = Pid::from_raw(pid).ok_or(Errno::SRCH)?;
        rustix::process::pidfd_open(pid, PidfdFlags::empty())
    };
    open().context("open", || format!("process {pid}"))
}

/// Sends a signal to exactly this process. `ESRCH` when it has ended; signal 0
/// only asks.
pub fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> std::result::Result<(), Errno> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: the call takes a descriptor that is open, plain numbers, and no
    // memory (a null siginfo means the kernel makes one, as kill does).
    let code = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<u8>(), 0)
    };
    if code < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Sends a signal to a process by its number. Only for children that are not
/// yet waited for, whose number cannot have passed to another.
pub fn kill(pid: i32, signal: i32) -> std::result::Result<(), Errno> {
    if pid <= 0 {
        return Err(Errno::SRCH);
    }
    // SAFETY: plain numbers.
    if unsafe { libc::kill(pid, signal) } < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Waits, without blocking, for any child that has ended, and takes it from
/// the table of processes. None: no child has ended (or there is none).
pub fn reap_any() -> Result<Option<(i32, End)>> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(None) | Err(Errno::CHILD) => return Ok(None),
            Ok(Some((pid, status))) => {
                if let Some(end) = end_of(status) {
                    return Ok(Some((pid.as_raw_nonzero().get(), end)));
                }
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::new("wait for", "children", errno)),
        }
    }
}

/// Whether a process is a child of ours, alive or not yet reaped.
pub fn is_child(pidfd: &OwnedFd) -> bool {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(WaitId::PidFd(pidfd.as_fd()), look).is_ok()
}

/// Waits for one child; blocks unless it has ended.
pub fn reap(pid: i32) -> Result<End> {
    let object = || format!("process {pid}");
    let raw = Pid::from_raw(pid).ok_or(Errno::SRCH).context("wait for", object)?;
    loop {
        match rustix::process::waitpid(Some(raw), WaitOptions::empty()) {
            Ok(Some((_, status))) => {
                if let Some(end) = end_of(status) {
                    return Ok(end);
                }
            }
            Ok(None) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::new("wait for", object(), errno)),
        }
    }
}

fn end_of(status: WaitStatus) -> Option<End> {
    let exited = status.exit_status().map(End::Exited);
    exited.or_else(|| status.terminating_signal().map(End::Killed))
}

/// Wall clock, nanoseconds since 1970.
pub fn realtime_ns() -> i64 {
    nanoseconds(ClockId::Realtime)
}

/// Time since some moment in the past; never goes back.
pub fn monotonic() -> Duration {
    Duration::from_nanos(nanoseconds(ClockId::Monotonic).unsigned_abs())
}

fn nanoseconds(clock: ClockId) -> i64 {
    let now = clock_gettime(clock);
    now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
}

/// A descriptor (below 64) that this process was started with, to be owned
/// from now on; close-on-exec. Each is given once, the second time it is
/// `EBADF`. Only for the very start, before anything else opens descriptors.
pub fn inherited(number: i32) -> Result<OwnedFd> {
    static GIVEN: AtomicU64 = AtomicU64::new(0);
    let bit = u32::try_from(number).ok().and_then(|number| 1u64.checked_shl(number)).unwrap_or(0);
    if bit == 0 || GIVEN.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
        return Err(Error::new("use", format!("descriptor {number}"), Errno::BADF));
    }
    // SAFETY: fcntl only looks at the number; what is not open is EBADF.
    let code = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    if code < 0 {
        return Err(Error::new("use", format!("descriptor {number}"), last_errno()));
    }
    // SAFETY: it is open, and by the contract above nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Orphaned descendants become our children, instead of the host's init's.
pub fn become_subreaper() -> Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context("adopt", || "orphans")
}

/// Nobody but root of the first user namespace may trace us or look into our
/// `/proc` entries.
pub fn set_undumpable() -> Result<()> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .context("make", || "this process non-dumpable")
}

pub(crate) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    #[expect(clippy::zombie_processes, reason = "they are waited for by number")]
    fn ends_are_told_apart() {
        for (script, end) in
            [("exit 3", End::Exited(3)), ("kill -9 $$", End::Killed(9)), ("true", End::Exited(0))]
        {
            let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
            assert_eq!(reap(child.id() as i32).unwrap(), end, "{script}");
        }
        assert_eq!(End::Killed(9).code(), 137);
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "it is waited for by number")]
    fn a_pidfd_reaches_its_process() {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id() as i32;
        let pidfd = pidfd_open(pid).unwrap();
        pidfd_send_signal(&pidfd, 0).unwrap();
        pidfd_send_signal(&pidfd, libc::SIGTERM).unwrap();
        assert_eq!(reap(pid).unwrap(), End::Killed(libc::SIGTERM));
        assert_eq!(pidfd_send_signal(&pidfd, 0), Err(Errno::SRCH));
        assert_eq!(reap(pid).unwrap_err().errno, Errno::CHILD);
    }

    #[test]
    fn the_limit_of_descriptors_is_raised() {
        let limit = getrlimit(Resource::Nofile);
        let one_less = limit.maximum.map(|maximum| maximum - 1);
        setrlimit(Resource::Nofile, Rlimit { current: one_less, ..limit }).unwrap();
        raise_descriptors_limit().unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current, limit.maximum);
    }

    #[test]
    fn clocks_go_on() {
        assert!(realtime_ns() > 1_600_000_000_000_000_000);
        assert!(monotonic() <= monotonic());
    }
}
