//! Waiting for many things at once: epoll, and signals as a descriptor.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll;
use rustix::event::{EventfdFlags, Timespec};
use rustix::io::Errno;

use crate::process::last_errno;
use crate::{Context, Error, Result};

/// Events taken from the kernel with one call.
const BATCH: usize = 16;

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interest {
    /// There is something to read, or the other side has closed.
    pub read: bool,
    /// There is room to write.
    pub write: bool,
    /// A change that the kernel announces (cgroup event files).
    pub urgent: bool,
}

impl Interest {
    /// To read.
    pub const READ: Self = Self { read: true, write: false, urgent: false };
    /// To read and to write.
    pub const READ_WRITE: Self = Self { read: true, write: true, urgent: false };
    /// For announced changes.
    pub const URGENT: Self = Self { read: false, write: false, urgent: true };
    /// Nothing but errors and the other side's end.
    pub const NONE: Self = Self { read: false, write: false, urgent: false };

    fn flags(self) -> epoll::EventFlags {
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, self.read);
        flags.set(epoll::EventFlags::OUT, self.write);
        flags.set(epoll::EventFlags::PRI, self.urgent);
        flags
    }
}

/// One thing that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Happened {
    /// The number given when the descriptor was added.
    pub token: u64,
    /// It can be read, or the other side has gone (a read tells).
    pub readable: bool,
    /// It can be written, or the other side has gone.
    pub writable: bool,
    /// An announced change.
    pub urgent: bool,
    /// The other side has gone. May come with data still to be read.
    pub hung_up: bool,
}

/// A set of descriptors to wait for, level-triggered.
#[derive(Debug)]
pub struct Poll {
    fd: OwnedFd,
}

impl Poll {
    /// An empty set.
    pub fn new() -> Result<Self> {
        let fd = epoll::create(epoll::CreateFlags::CLOEXEC).context("make", || "an epoll set")?;
        Ok(Self { fd })
    }

    /// Adds a descriptor under a number. It leaves the set when removed, or
    /// when its last duplicate is closed.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> Result<()> {
        epoll::add(&self.fd, fd, epoll::EventData::new_u64(token), interest.flags())
            .context("watch", || "a descriptor")
    }

    /// Changes what is waited for.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> Result<()> {
        epoll::modify(&self.fd, fd, epoll::EventData::new_u64(token), interest.flags())
            .context("watch", || "a descriptor")
    }

    /// Takes a descriptor out of the set.
    pub fn remove(&self, fd: impl AsFd) -> Result<()> {
        epoll::delete(&self.fd, fd).context("stop watching", || "a descriptor")
    }

    /// Waits for at most `timeout` (none: for ever), and gives what happened
    /// to `take`, in no particular order. Signals do not end the wait early
    /// with an error; they just end it.
    pub fn wait(&self, timeout: Option<Duration>, mut take: impl FnMut(Happened)) -> Result<()> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); BATCH];
        let events = match epoll::wait(&self.fd, &mut events, timeout.as_ref()) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => return Ok(()),
            Err(errno) => return Err(Error::new("wait for", "events", errno)),
        };
        for event in events {
            let flags = event.flags;
            let gone = flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR);
            take(Happened {
                token: event.data.u64(),
                readable: gone || flags.contains(epoll::EventFlags::IN),
                writable: gone || flags.contains(epoll::EventFlags::OUT),
                urgent: flags.contains(epoll::EventFlags::PRI),
                hung_up: gone,
            });
        }
        Ok(())
    }
}

/// A counter that one thread raises to wake another.
#[derive(Debug)]
pub struct Waker {
    fd: OwnedFd,
}

impl Waker {
    /// A new one, not raised.
    pub fn new() -> Result<Self> {
        let fd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .context("make", || "an eventfd")?;
        Ok(Self { fd })
    }

    /// Makes the descriptor readable.
    pub fn wake(&self) {
        // Fails only when the counter is full: then it is readable anyway.
        let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
    }

    /// Makes it not readable again.
    pub fn reset(&self) {
        let _ = rustix::io::read(&self.fd, &mut [0u8; 8]);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Signals of this process, blocked and read from a descriptor instead.
///
/// The mask is inherited by children across `clone` and `execve`: who launches
/// a program must empty it first.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Blocks `delivered` and `ignored` in this thread (and those it starts
    /// later); `delivered` are read from the descriptor, `ignored` stay pending
    /// without effect.
    pub fn new(delivered: &[i32], ignored: &[i32]) -> Result<Self> {
        let all = signal_set(delivered.iter().chain(ignored));
        let set = signal_set(delivered.iter());
        // SAFETY: `all` is a valid set; no old set is asked for.
        let code = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &all, std::ptr::null_mut()) };
        if code != 0 {
            return Err(Error::new("block", "signals", Errno::from_raw_os_error(code)));
        }
        // SAFETY: `set` is a valid set; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(Error::new("make", "a signalfd", last_errno()));
        }
        // SAFETY: a new descriptor, owned by nobody else.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Takes all that are pending, so that the descriptor is not readable any
    /// more. Which they were is not told: equal signals merge, so that a
    /// reader must look at the world anyway.
    pub fn drain(&self) {
        let mut buffer = [0u8; 4 * size_of::<libc::signalfd_siginfo>()];
        while rustix::io::read(&self.fd, &mut buffer).is_ok_and(|count| count == buffer.len()) {}
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}

fn signal_set<'a>(signals: impl Iterator<Item = &'a i32>) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset makes the set valid; sigaddset only gets valid sets
    // (a number that is no signal is refused with EINVAL and changes nothing).
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(poll: &Poll, timeout: Duration) -> Vec<Happened> {
        let mut all = Vec::new();
        poll.wait(Some(timeout), |happened| all.push(happened)).unwrap();
        all
    }

    #[test]
    fn a_pipe_is_told_by_its_number() {
        let poll = Poll::new().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        poll.add(&read, 7, Interest::READ).unwrap();
        assert!(wait(&poll, Duration::ZERO).is_empty());
        rustix::io::write(&write, b"x").unwrap();
        let all = wait(&poll, Duration::from_secs(120));
        assert_eq!((all.len(), all[0].token, all[0].readable, all[0].hung_up), (1, 7, true, false));
        poll.modify(&read, 7, Interest::NONE).unwrap();
        assert!(wait(&poll, Duration::ZERO).is_empty());
        drop(write);
        assert!(wait(&poll, Duration::from_secs(120))[0].hung_up);
        poll.remove(&read).unwrap();
        assert!(wait(&poll, Duration::ZERO).is_empty());
    }

    #[test]
    fn a_waker_wakes_once() {
        let (poll, waker) = (Poll::new().unwrap(), Waker::new().unwrap());
        poll.add(&waker, 1, Interest::READ).unwrap();
        waker.wake();
        waker.wake();
        assert_eq!(wait(&poll, Duration::from_secs(120)).len(), 1);
        waker.reset();
        assert!(wait(&poll, Duration::ZERO).is_empty());
    }

    #[test]
    fn a_signal_becomes_readable() {
        // In a thread of its own, whose mask ends with it.
        std::thread::spawn(|| {
            let poll = Poll::new().unwrap();
            let signals = Signals::new(&[libc::SIGUSR2], &[libc::SIGUSR1]).unwrap();
            poll.add(&signals, 1, Interest::READ).unwrap();
            // SAFETY: signals our own thread, with a signal that it blocks.
            unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR1) };
            assert!(wait(&poll, Duration::ZERO).is_empty());
            // SAFETY: as above.
            unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR2) };
            assert_eq!(wait(&poll, Duration::from_secs(120)).len(), 1);
            signals.drain();
            assert!(wait(&poll, Duration::ZERO).is_empty());
        })
        .join()
        .unwrap();
    }
}
