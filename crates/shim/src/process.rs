//! One process that the shim launched: a container's init, or an exec.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use corten_kernel::launch::Child;
use corten_kernel::process::End;
use corten_kernel::{Errno, process, stream};
use corten_protocol::frame::{CgroupFds, Event, Exit, LaunchFailure, Stdio, Target};
use corten_protocol::plan::HookPoint;

use crate::daemon::Asker;
use crate::delegate::Delegation;
use crate::launching::Plan;
use crate::log::{LogId, Stream};
use crate::table::State;

/// A process's number in this shim; never used twice.
pub type Serial = LogId;

/// One process.
pub struct Process {
    /// Its number.
    pub serial: Serial,
    /// Who it is to the daemon.
    pub target: Target,
    /// Where it stands.
    pub state: State,
    /// What the daemon wants of its streams.
    pub stdio: Stdio,
    /// Its streams.
    pub streams: Streams,
    /// Its cgroup.
    pub cgroup: Cgroup,
    /// Its pid, or 0 before the launch.
    pub pid: i32,
    /// The child on its way, as long as it has something to say.
    pub child: Option<Child>,
    /// The process afterwards, until it was reaped.
    pub pidfd: Option<OwnedFd>,
    /// Its plan stops at `AwaitStart`.
    pub awaits_start: bool,
    /// When its command began, nanoseconds since 1970, or 0.
    pub started_ns: i64,
    /// Why its launch failed.
    pub failure: Option<LaunchFailure>,
    /// How it ended.
    pub exit: Option<Exit>,
    /// Who waits for it to run.
    pub starter: Option<Asker>,
    /// When to kill it (monotonic), and whether that was done.
    pub deadline: Option<Duration>,
    /// It is an exec of Run of which nobody has been told, and which is not
    /// looked at before it ends, or until then.
    pub brief: Option<Brief>,
    /// It was killed because its time was up.
    pub timed_out: bool,
    /// How its last output gets into the log.
    pub ending: Option<Ending>,
    /// The plan, as long as it has hooks that the shim runs.
    pub hooks: Option<HookSource>,
    /// The hook that runs.
    pub hook: Option<RunningHook>,
    /// An OCI runtime makes it, or has made it.
    pub delegated: bool,
    /// The OCI runtime that is making it: `pid` is the runtime's.
    pub delegation: Option<Delegation>,
    /// It has ended while an OCI runtime was still starting it.
    pub early_end: Option<End>,
}

/// How long an exec of Run is left alone.
#[derive(Clone, Copy)]
pub struct Brief {
    /// When it is looked at next (monotonic).
    pub until: Duration,
    /// How long it was left alone for that.
    pub pause: Duration,
}

/// Waiting for the last output.
pub struct Ending {
    /// What was in stdout and stderr at the end has gone to the log thread.
    pub drained: [bool; 2],
    /// The log thread was asked to say when it is written.
    pub marked: bool,
    /// Until when (monotonic).
    pub deadline: Duration,
}

/// What hooks are run from.
pub struct HookSource {
    /// The plan.
    pub plan: Plan,
    /// The mount namespace in which they run.
    pub mounts: Option<OwnedFd>,
}

/// A hook that runs.
pub struct RunningHook {
    /// Its process; none while the next is to be started.
    pub child: Child,
    /// Which.
    pub point: HookPoint,
    /// Its index among those of its point.
    pub index: usize,
    /// When to kill it (monotonic).
    pub deadline: Option<Duration>,
    /// Who asked for a Delete that waits for it.
    pub deleter: Option<Asker>,
}

/// Our ends of a process's streams.
#[derive(Default)]
pub struct Streams {
    /// The writing end of stdin; a terminal's is a duplicate of its master.
    pub stdin: Option<OwnedFd>,
    /// It is in the set of what the control thread waits for.
    pub stdin_watched: bool,
    /// It was closed, and nothing can be said any more.
    pub stdin_closed: bool,
    /// The reading ends of stdout and stderr; a terminal's master is stdout.
    pub outputs: [Option<Output>; 2],
    /// These outputs have ended.
    pub ended: [bool; 2],
    /// Rows and columns for a terminal that is still to be made.
    pub size: Option<[u16; 2]>,
}

/// Our end of one output stream.
pub struct Output {
    /// The descriptor.
    pub fd: OwnedFd,
    /// It goes to the log.
    pub logged: bool,
    /// It is in the set of what the control thread waits for.
    pub watched: bool,
}

impl Streams {
    /// Our end of one output stream.
    pub fn output(&mut self, stream: Stream) -> Option<&mut Output> {
        self.outputs[stream as usize].as_mut()
    }

    /// What the daemon gets, in the order of [`Stdio::hand_over`]: stdin itself,
    /// so that its end is the end of it, and duplicates of the outputs, so that
    /// a daemon that dies kills no writer.
    pub fn hand_over(&mut self, terminal: bool) -> Result<Vec<OwnedFd>, Errno> {
        let outputs = self.outputs.iter().flatten().filter(|output| !output.logged);
        let outputs = outputs.map(|output| output.fd.try_clone().map_err(|error| errno_of(&error)));
        let stdin = self.stdin.take().filter(|_| !terminal);
        stdin.map(Ok).into_iter().chain(outputs).collect()
    }

    /// What is in the pipes of a command that has ended: all of it, or none if
    /// that is more than `bytes_max`.
    pub fn what_was_said(&self, bytes_max: usize) -> Option<[Vec<u8>; 2]> {
        let waiting = self.waiting()?;
        if waiting.iter().sum::<usize>() > bytes_max {
            return None;
        }
        let mut said = waiting.map(|bytes| vec![0; bytes]);
        for (output, said) in self.outputs.iter().zip(&mut said) {
            let Some(output) = output else { continue };
            let mut length = 0;
            // Nobody else reads, so that as much can be read without waiting.
            while length < said.len() {
                match stream::read_some(&output.fd, &mut said[length..]) {
                    Ok(count) if count > 0 => length += count,
                    Ok(_) | Err(_) => break,
                }
            }
            said.truncate(length);
        }
        Some(said)
    }

    /// How many bytes are in each pipe, if that can be known.
    pub fn waiting(&self) -> Option<[usize; 2]> {
        let mut waiting = [0; 2];
        for (output, waiting) in self.outputs.iter().zip(&mut waiting) {
            let Some(output) = output else { continue };
            *waiting = stream::waiting(&output.fd).ok()?;
        }
        Some(waiting)
    }

    /// There is output that goes to the log and has not ended.
    pub fn is_logging(&self) -> bool {
        self.outputs.iter().flatten().any(|output| output.logged)
    }
}

/// The descriptors of a process's cgroup.
#[derive(Default)]
pub struct Cgroup {
    /// Directory in the v2 hierarchy.
    pub into: Option<OwnedFd>,
    /// `cgroup.kill`.
    pub kill: Option<File>,
    /// `tasks` of v1 groups.
    pub tasks: Vec<OwnedFd>,
    /// The counter of out-of-memory kills.
    pub oom: Option<File>,
    /// What that counter was when last looked at.
    pub oom_kills: u64,
    /// It was raised since the beginning.
    pub oom_killed: bool,
}

impl Cgroup {
    /// Takes the counted descriptors; none if they are not all there.
    pub fn take(counted: CgroupFds, fds: &mut impl Iterator<Item = OwnedFd>) -> Option<Self> {
        let mut next = |there: bool| if there { fds.next().map(Some) } else { Some(None) };
        let into = next(counted.into)?;
        let kill = next(counted.kill)?.map(File::from);
        let mut tasks = Vec::with_capacity(counted.tasks.into());
        for _ in 0..counted.tasks {
            tasks.push(next(true)??);
        }
        let oom = next(counted.oom)?.map(File::from);
        let mut cgroup = Self { into, kill, tasks, oom, oom_kills: 0, oom_killed: false };
        cgroup.oom_kills = cgroup.read_oom_kills();
        Some(cgroup)
    }

    /// Looks whether the kernel has killed for want of memory since the last look.
    pub fn look_for_oom(&mut self) -> bool {
        let kills = self.read_oom_kills();
        let raised = kills > self.oom_kills;
        self.oom_kills = kills;
        self.oom_killed |= raised;
        raised
    }

    /// `oom_kill <n>` is a line of `memory.events` and of `memory.oom_control`.
    fn read_oom_kills(&self) -> u64 {
        let Some(file) = &self.oom else { return 0 };
        let mut text = [0u8; 512];
        let length = file.read_at(&mut text, 0).unwrap_or(0);
        let value = |line: &[u8]| {
            let digits = line.strip_prefix(b"oom_kill ")?;
            digits.iter().try_fold(0u64, |sum, digit| match digit {
                b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
                _ => None,
            })
        };
        text[..length].split(|byte| *byte == b'\n').find_map(value).unwrap_or(0)
    }

    /// Kills everything in the group, if that can be done at once.
    pub fn kill_all(&self) -> bool {
        self.kill.as_ref().is_some_and(|kill| kill.write_at(b"1", 0).is_ok())
    }
}

impl Process {
    /// A process before its launch.
    pub fn new(serial: Serial, target: Target, state: State, stdio: Stdio) -> Self {
        Self {
            serial,
            target,
            state,
            stdio,
            streams: Streams::default(),
            cgroup: Cgroup::default(),
            pid: 0,
            child: None,
            pidfd: None,
            awaits_start: false,
            started_ns: 0,
            failure: None,
            exit: None,
            starter: None,
            deadline: None,
            brief: None,
            timed_out: false,
            ending: None,
            hooks: None,
            hook: None,
            delegated: false,
            delegation: None,
            early_end: None,
        }
    }

    /// Sends a signal to its first process.
    pub fn signal(&self, signal: i32) -> Result<(), Errno> {
        process::pidfd_send_signal(self.pidfd().ok_or(Errno::SRCH)?, signal)
    }

    /// Kills all of it as well as this shim can: by its cgroup, and its first
    /// process in any case.
    pub fn kill_all(&self) {
        self.cgroup.kill_all();
        // It may have ended meanwhile: then there is nothing to do.
        let _ = self.signal(SIGKILL);
    }

    /// What a list says about it.
    pub fn present(&self) -> Event {
        Event::Present {
            target: self.target.clone(),
            phase: self.state.phase(),
            pid: if self.pidfd().is_some() { self.pid } else { 0 },
            started_ns: self.started_ns,
            exit: self.exit.filter(|_| self.state == State::Ended),
            failure: self.failure.filter(|_| self.state == State::Ended),
        }
    }

    /// A descriptor of its first process, for others to join.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.child.as_ref().map(Child::pidfd).or(self.pidfd.as_ref().map(AsFd::as_fd))
    }

    /// The earliest moment at which something is to be done about it.
    pub fn next_deadline(&self) -> Option<Duration> {
        let own = self.deadline.filter(|_| !self.timed_out && self.state.is_alive());
        let brief = self.brief.map(|brief| brief.until);
        let ending = self.ending.as_ref().map(|ending| ending.deadline);
        let hook = self.hook.as_ref().and_then(|hook| hook.deadline);
        let runtime = self.delegation.as_ref().and_then(|delegation| delegation.deadline);
        [own, brief, ending, hook, runtime].into_iter().flatten().min()
    }
}

/// The signal that cannot be refused.
pub const SIGKILL: i32 = 9;

/// The errno of an error that came from the kernel.
pub fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Borrows many descriptors.
pub fn borrow(fds: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    fds.iter().map(AsFd::as_fd).collect()
}
