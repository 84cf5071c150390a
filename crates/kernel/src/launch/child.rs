//! What the parent holds of a launched child: its pid, and the socket over
//! which the child tells how far it has come.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use super::sync;

/// What a child on its way to `execve` tells its parent.
#[derive(Debug)]
pub enum Message {
    /// The child is at `AwaitStart`, and goes on after [`Child::release`].
    Created,
    /// The child is at `AwaitHooks`, and goes on after [`Child::release`].
    HookPoint {
        /// As the step says.
        point: u8,
    },
    /// A step could do only part of its work; the child goes on.
    Warning {
        /// Index of the step.
        step: u32,
        /// Why.
        errno: i32,
    },
    /// A step failed, and the child has ended or is about to.
    Failed {
        /// Index of the step, or [`super::STEP_BEFORE`].
        step: u32,
        /// Why.
        errno: i32,
    },
    /// The master of the pty that a `Console` step made.
    ConsoleMaster(OwnedFd),
    /// Nothing more will come: the command runs (or the child was killed,
    /// which its pidfd tells).
    Closed,
}

/// A launched child. Dropping it kills nothing; but a child that has not been
/// let run ends when its socket closes.
#[derive(Debug)]
pub struct Child {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) sync: OwnedFd,
}

impl Child {
    /// Its pid in the caller's PID namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Readable (as epoll means it) when the child has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Readable when [`Child::read_message`] has something.
    pub fn sync(&self) -> BorrowedFd<'_> {
        self.sync.as_fd()
    }

    /// The next message, or none if there is none yet. Never blocks.
    pub fn read_message(&self) -> Result<Option<Message>, Errno> {
        sync::receive(self.sync.as_fd())
    }

    /// The next message; waits for it.
    pub fn wait_message(&self) -> Result<Message, Errno> {
        loop {
            if let Some(message) = self.read_message()? {
                return Ok(message);
            }
            let mut fds = [rustix::event::PollFd::new(&self.sync, rustix::event::PollFlags::IN)];
            match rustix::event::poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Lets a child go on that waits at `AwaitStart` or `AwaitHooks`.
    pub fn release(&self) -> Result<(), Errno> {
        sync::tell(self.sync.as_fd(), sync::GO)
    }

    /// The pidfd, when nothing more is expected on the socket.
    pub fn into_pidfd(self) -> OwnedFd {
        self.pidfd
    }
}
