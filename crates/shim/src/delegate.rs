//! Processes that an OCI runtime makes: the shim runs the runtime, and adopts
//! what it leaves. (The shim is a subreaper, so that the runtime's child
//! becomes its own when the runtime ends.)
//!
//! The runtime's child may end before the runtime itself, and is then a child
//! that nobody knows yet: such ends are kept until the runtime has named it.

use std::collections::VecDeque;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use corten_base::limits::{PID_FILE_BYTES_MAX, SHIM_STRAYS_MAX};
use corten_kernel::fdpass;
use corten_kernel::launch::FdIndex;
use corten_kernel::process::{self, End};
use corten_kernel::rooted::Root;
use corten_protocol::frame::LaunchFailure;
use corten_protocol::plan::{Delegate, HookPoint};

use crate::log::Stream;
use crate::process::Serial;
use crate::shim::Shim;
use crate::table::State;

/// An OCI runtime at work.
pub struct Delegation {
    /// Where it leaves the number of the process that it makes.
    directory: Root,
    pid_file: CString,
    /// Where it sends the terminal's master.
    console: Option<OwnedFd>,
    timeout: Duration,
    /// Until when it may work (monotonic); none while it waits to be let go, and
    /// when it was killed for being late.
    pub deadline: Option<Duration>,
}

impl Delegation {
    /// Takes the descriptors that a plan names; EBADF if they are not there.
    pub fn new(
        delegate: &Delegate<'_>,
        mut take: impl FnMut(FdIndex) -> Option<OwnedFd>,
    ) -> Result<Self, i32> {
        const EBADF: i32 = 9;
        let timeout = Duration::from_millis(delegate.timeout_ms.into());
        let console = delegate.console.map(|fd| take(fd).ok_or(EBADF)).transpose()?;
        Ok(Self {
            directory: Root::from_fd(take(delegate.directory).ok_or(EBADF)?),
            pid_file: delegate.pid_file.to_owned(),
            console,
            timeout,
            deadline: None,
        })
    }

    /// Its time begins.
    pub fn begin(&mut self) {
        self.deadline = (!self.timeout.is_zero()).then(|| process::monotonic() + self.timeout);
    }

    /// The number that the runtime left.
    fn pid(&self) -> Option<i32> {
        let text = self.directory.read(self.pid_file.to_bytes(), PID_FILE_BYTES_MAX).ok()?;
        std::str::from_utf8(&text).ok()?.trim().parse().ok().filter(|pid| *pid > 0)
    }

    /// The master of the terminal. The runtime has ended, so that it was sent,
    /// or never will be.
    fn master(&self) -> Option<OwnedFd> {
        let listener = self.console.as_ref()?;
        let connection = fdpass::accept(listener.as_fd()).ok()?;
        let (mut name, mut fds) = ([0; 256], Vec::new());
        fdpass::recv(connection.as_fd(), &mut name, &mut fds, 1).ok()?;
        fds.pop()
    }
}

impl Shim {
    /// The first process of a container or exec has ended, or the runtime that
    /// was to make it.
    pub(crate) fn first_process_ended(&mut self, serial: Serial, end: End) {
        let Some(index) = self.position(serial) else { return };
        let process = &mut self.processes[index];
        let starting = process.hook.as_ref().is_some_and(|hook| hook.point == HookPoint::Start);
        if starting {
            // What started it says whether it ran.
            process.pidfd = None;
            process.early_end = Some(end);
            return;
        }
        match process.delegation.take() {
            None => self.process_ended(serial, end),
            Some(delegation) => self.runtime_ended(serial, &delegation, end),
        }
    }

    fn runtime_ended(&mut self, serial: Serial, delegation: &Delegation, end: End) {
        let Some(index) = self.position(serial) else { return };
        let process = &mut self.processes[index];
        (process.pid, process.pidfd) = (0, None);
        let failed = |errno| LaunchFailure { step: LaunchFailure::RUNTIME, errno };
        if process.failure.is_none() && end.code() != 0 {
            process.failure = Some(failed(end.code()));
        }
        if process.failure.is_some() {
            return self.process_ended(serial, end);
        }
        let adopted = delegation.pid().and_then(|pid| Some((pid, self.adopt(pid)?)));
        if !self.delegates() {
            // Nobody will name them any more, and numbers are used again.
            self.strays = VecDeque::new();
        }
        let Some((pid, adopted)) = adopted else {
            self.processes[index].failure = Some(failed(LaunchFailure::NO_PROCESS));
            return self.process_ended(serial, end);
        };
        let process = &mut self.processes[index];
        process.pid = pid;
        let ended = match adopted {
            Adopted::Alive(pidfd) => {
                process.pidfd = Some(pidfd);
                None
            }
            Adopted::Ended(end) => Some(end),
        };
        if let Some(master) = delegation.master() {
            self.add_output(serial, Stream::Out, master);
        }
        let process = &self.processes[index];
        // What was let go already before it was made runs when it is.
        if process.target.exec.is_some() || process.state == State::Starting {
            self.command_runs(index);
        } else if ended.is_none() {
            self.reached_start(index);
        }
        if let Some(end) = ended {
            self.process_ended(serial, end);
        }
    }

    /// Makes a process that a runtime has named one of ours; none if it is not.
    fn adopt(&mut self, pid: i32) -> Option<Adopted> {
        // Somebody else's child would never be reaped here.
        let alive = process::pidfd_open(pid).ok().filter(process::is_child);
        if let Some(pidfd) = alive {
            return Some(Adopted::Alive(pidfd));
        }
        // It has ended and was reaped before anybody knew it.
        let at = self.strays.iter().position(|(stray, _)| *stray == pid)?;
        self.strays.remove(at).map(|(_, end)| Adopted::Ended(end))
    }

    fn delegates(&self) -> bool {
        self.processes.iter().any(|process| process.delegation.is_some())
    }

    /// Keeps the end of an unknown child while a runtime may still name it.
    pub(crate) fn keep_stray(&mut self, pid: i32, end: End) {
        if !self.delegates() {
            return;
        }
        if self.strays.len() == SHIM_STRAYS_MAX {
            self.strays.pop_front();
        }
        self.strays.push_back((pid, end));
    }

    /// The runtime has started the container.
    pub(crate) fn started_by_runtime(&mut self, index: usize) {
        let serial = self.processes[index].serial;
        self.command_runs(index);
        self.end_early(serial);
    }

    /// The runtime could not start the container.
    pub(crate) fn start_refused(&mut self, index: usize, status: i32) {
        let process = &mut self.processes[index];
        let failure = LaunchFailure { step: LaunchFailure::RUNTIME, errno: status };
        process.failure.get_or_insert(failure);
        process.kill_all();
        let serial = process.serial;
        self.end_early(serial);
    }

    fn end_early(&mut self, serial: Serial) {
        let early = self.position(serial).and_then(|index| self.processes[index].early_end.take());
        if let Some(end) = early {
            self.process_ended(serial, end);
        }
    }
}

/// A process that a runtime has made.
enum Adopted {
    Alive(OwnedFd),
    Ended(End),
}
