//! The frames between daemon and shim.
//!
//! One frame is one datagram on a SEQPACKET socket. The daemon sends requests,
//! the shim answers each one once, and sends events when something happened.
//! A daemon that comes back after a restart connects again and asks with
//! [`Request::List`] for what it missed; the newest connection gets the events.

use corten_base::limits::FRAME_BYTES_MAX;
use corten_base::{ContainerId, ExecId};

pub(crate) mod bytes;
mod codec;
mod from_shim;
mod request;
#[cfg(test)]
mod tests;

/// The version of frames and plans that this crate writes.
///
/// It counts what changes the meaning of bytes. A kind of frame that is added
/// does not: a shim that does not know it refuses it as malformed, which the
/// daemon that asks takes for an older shim.
pub const VERSION: u16 = 1;

/// Bytes of a plan that fit into the frame of a [`Request::Run`].
pub const RUN_PLAN_BYTES_MAX: usize = FRAME_BYTES_MAX - HEADERS_BYTES_MAX;
/// Bytes of output that fit into a [`Reply::Ended`].
pub const OUTPUT_BYTES_MAX: usize = FRAME_BYTES_MAX - HEADERS_BYTES_MAX;
/// What the rest of these frames needs at most.
const HEADERS_BYTES_MAX: usize = 128;

/// What a request or event is about: a container's init, or an exec in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The container.
    pub container: ContainerId,
    /// The exec, or none for the container's init.
    pub exec: Option<ExecId>,
}

/// Where a process's standard streams go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stdio {
    /// A pseudo terminal instead of pipes.
    pub terminal: bool,
    /// Keep stdin open (a pipe); otherwise it is /dev/null.
    pub stdin: bool,
    /// Close stdin when the first writer that attached has gone.
    pub stdin_once: bool,
    /// Write stdout and stderr to the container's log. Inits do, execs do not.
    pub log: bool,
    /// Hand the daemon its ends of the streams with the reply, in the order
    /// stdin, stdout, stderr (of those that there are; a terminal has one).
    /// The shim keeps duplicates of the outputs until the process has ended.
    pub hand_over: bool,
}

/// What the daemon asks. Descriptors that go with a request are listed in its
/// text, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// First request on each connection: what the daemon speaks.
    Hello {
        /// [`VERSION`] of the daemon.
        version: u16,
    },
    /// Set the pod up, once, right after the shim was started.
    /// Descriptors: the pod's namespaces that there are, in the order of
    /// [`PodNamespaces`]. They are kept for the pod's life, returned by
    /// [`Request::Namespaces`].
    Sandbox {
        /// Which namespaces come with this frame.
        namespaces: PodNamespaces,
        /// Size of the pod's /dev/shm in bytes, or 0 for none (host IPC).
        shm_bytes: u64,
        /// Owner of /dev/shm: the user namespace's root as the host sees it.
        shm_uid: u32,
        /// Likewise the group.
        shm_gid: u32,
        /// SELinux label of /dev/shm; empty for none.
        shm_label: String,
    },
    /// Ask for the pod's namespaces again; the reply brings the descriptors.
    Namespaces,
    /// Hand over a container. The shim answers when it has it, and then
    /// launches it up to `AwaitStart`. Descriptors: the plan (sealed memfd),
    /// the log file if `stdio.log`, the cgroup's descriptors as counted in
    /// `cgroup`, then those that the plan's steps refer to.
    Create {
        /// The container.
        container: ContainerId,
        /// Its streams.
        stdio: Stdio,
        /// Which cgroup descriptors come with the frame.
        cgroup: CgroupFds,
    },
    /// Let a created container run. Answered when its command runs, or failed.
    Start {
        /// The container.
        container: ContainerId,
    },
    /// Launch a process in a running container. Answered when its command
    /// runs, or failed. Descriptors: the plan, then those it refers to.
    Exec {
        /// The container.
        container: ContainerId,
        /// A number that the daemon chose; see [`ExecId`].
        exec: ExecId,
        /// Its streams.
        stdio: Stdio,
        /// Kill it and its descendants after this time; 0 for never.
        timeout_ms: u64,
        /// The first cgroup descriptor is an own, disposable group for the
        /// exec in the v2 hierarchy, with which a timeout kills the tree.
        cgroup: CgroupFds,
    },
    /// As Exec, with output and nothing else, of a command that mostly ends at
    /// once: if it does, the answer is [`Reply::Ended`], which brings all that it
    /// has written, and the shim has forgotten it. If it takes longer, or has
    /// written more than a frame holds, it is an exec like others from then on:
    /// the answer is [`Reply::Running`]. Descriptors: the plan, if it is not in
    /// the frame, then the cgroup's.
    Run {
        /// The container.
        container: ContainerId,
        /// A number that the daemon chose; see [`ExecId`].
        exec: ExecId,
        /// Kill it and its descendants after this time; 0 for never.
        timeout_ms: u64,
        /// As for Exec.
        cgroup: CgroupFds,
        /// The plan, which refers to no descriptors, of at most
        /// [`RUN_PLAN_BYTES_MAX`] bytes; empty if it comes as a descriptor.
        plan: Vec<u8>,
    },
    /// Send a signal.
    Kill {
        /// To whom.
        target: Target,
        /// The signal's number.
        signal: i32,
        /// To every process of it, by its cgroup, instead of to the first.
        all: bool,
    },
    /// Change the size of a terminal. One that is still to be made gets it then.
    Resize {
        /// Whose.
        target: Target,
        /// Rows.
        rows: u16,
        /// Columns.
        columns: u16,
    },
    /// Close our side of a process's stdin.
    CloseStdin {
        /// Whose.
        target: Target,
    },
    /// Close our side of all streams that were handed over: whoever got them is
    /// gone for good. A terminal is hung up, a pipe has nobody at its other end.
    HangUp {
        /// Whose.
        target: Target,
    },
    /// Copy a container's output to a client beside the log, and its input to
    /// the container. Answered with [`Reply::Attached`]. A container that has not
    /// been started is attached to from its first byte on.
    Attach {
        /// The container.
        container: ContainerId,
        /// Which streams are wanted.
        streams: Attached,
    },
    /// Write the log to another file from the next line on.
    /// Descriptors: the new log file.
    ReopenLog {
        /// Whose.
        container: ContainerId,
    },
    /// Report every container and exec: the answer is a [`Reply::Listed`]
    /// after one [`Event::Present`] for each.
    List,
    /// Forget an ended container or exec.
    Delete {
        /// Which.
        target: Target,
    },
    /// End: kill what still runs, write the exits, go.
    Shutdown,
}

/// Which namespaces a [`Request::Sandbox`] or its like brings, one descriptor
/// each, in this order. An absent one is the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PodNamespaces {
    /// User namespace.
    pub user: bool,
    /// Network namespace.
    pub net: bool,
    /// IPC namespace.
    pub ipc: bool,
    /// UTS namespace.
    pub uts: bool,
}

/// Which streams a client is attached to; one pipe each, in this order. The
/// client's ends: to write to, to read from, to read from. One more follows, to
/// read from: on it comes a byte before the others end if they do so because
/// the client was too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attached {
    /// It says something to the container.
    pub stdin: bool,
    /// It gets stdout, or all output of a terminal.
    pub stdout: bool,
    /// It gets stderr.
    pub stderr: bool,
}

/// Which cgroup descriptors come with a frame, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CgroupFds {
    /// The group's directory in the v2 hierarchy, for `CLONE_INTO_CGROUP`.
    pub into: bool,
    /// `cgroup.kill` of that directory, open for writing.
    pub kill: bool,
    /// How many `tasks` files of v1 hierarchies, open for writing.
    pub tasks: u8,
    /// `memory.events` (v2) or `memory.oom_control` (v1), open for reading.
    pub oom: bool,
}

/// Where a container stands in its shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// On its way to `AwaitStart`.
    Creating,
    /// Waits for Start.
    Created,
    /// Its command runs.
    Running,
    /// It has ended.
    Ended,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; 128 + signal for a process that was killed.
    pub code: i32,
    /// The kernel killed something of its cgroup for want of memory.
    pub oom_killed: bool,
    /// It was killed because its time was up.
    pub timed_out: bool,
    /// Wall clock, nanoseconds since 1970.
    pub at_ns: i64,
}

/// Why a launch failed: at which step of the plan, with which errno. The
/// daemon has the plan, and makes the sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchFailure {
    /// Index of the step in the plan; [`LaunchFailure::CLONE`] if not even the
    /// child was made, [`LaunchFailure::HOOK`] if a runtime hook failed,
    /// [`LaunchFailure::RUNTIME`] if an OCI runtime did.
    pub step: u32,
    /// The errno, or a hook's exit status.
    pub errno: i32,
}

impl LaunchFailure {
    /// The clone, or the move into the cgroup, failed.
    pub const CLONE: u32 = u32::MAX;
    /// A hook in the runtime's namespaces failed.
    pub const HOOK: u32 = u32::MAX - 1;
    /// The OCI runtime that makes the process failed; the number is its exit
    /// status, or [`LaunchFailure::NO_PROCESS`].
    pub const RUNTIME: u32 = u32::MAX - 2;
    /// The OCI runtime ended well, and left no process.
    pub const NO_PROCESS: i32 = -1;
}

/// Why a request was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No such container or exec here.
    Unknown,
    /// Not in this phase (Start of an ended container, Exec in a created one).
    WrongPhase(Phase),
    /// The container or exec exists already.
    Exists,
    /// The frame or plan makes no sense to this shim.
    Malformed,
    /// A limit of `corten_base::limits` is reached.
    Full,
    /// A system call of the shim itself failed.
    System {
        /// The errno.
        errno: i32,
    },
    /// The launch failed.
    Launch(LaunchFailure),
}

/// The shim's answer to a request; each carries the request's number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Done. Descriptors: what the request's text says.
    Done,
    /// Answer to [`Request::Hello`].
    Hello {
        /// What the shim speaks: the smaller of both counts.
        version: u16,
    },
    /// Answer to Start and Exec. Descriptors: the streams, if asked for.
    Running {
        /// The process as the host sees it.
        pid: i32,
        /// Wall clock, nanoseconds since 1970.
        at_ns: i64,
    },
    /// Answer to Run: the command has ended.
    Ended {
        /// How.
        exit: Exit,
        /// What it wrote to stdout until then, and to stderr: together at most
        /// [`OUTPUT_BYTES_MAX`].
        output: [Vec<u8>; 2],
    },
    /// Answer to List: all has been sent.
    Listed,
    /// Answer to Namespaces. Descriptors: those.
    Namespaces(PodNamespaces),
    /// Answer to Attach: those streams that the container has. Descriptors: these.
    Attached(Attached),
    /// Not done.
    Refused(Refusal),
}

/// What the shim reports by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// One of the answers to List.
    Present {
        /// Who.
        target: Target,
        /// Where it stands.
        phase: Phase,
        /// Its pid while it has one, else 0.
        pid: i32,
        /// When its command began, nanoseconds since 1970, or 0.
        started_ns: i64,
        /// How it ended, in phase Ended.
        exit: Option<Exit>,
        /// Why it could not be launched, in phase Ended.
        failure: Option<LaunchFailure>,
    },
    /// A container reached `AwaitStart`.
    Created {
        /// Which.
        container: ContainerId,
        /// Its pid.
        pid: i32,
    },
    /// A process ended, and its output is in the log or in its pipes.
    Exited {
        /// Which.
        target: Target,
        /// How.
        exit: Exit,
    },
    /// A launch failed before `AwaitStart`.
    Failed {
        /// Which.
        target: Target,
        /// Why.
        failure: LaunchFailure,
    },
    /// The kernel killed a process of the container for want of memory.
    OutOfMemory {
        /// Whose.
        container: ContainerId,
    },
    /// A step could do only part of its work (a refused rlimit).
    Warning {
        /// Whose.
        target: Target,
        /// Index of the step.
        step: u32,
        /// The errno.
        errno: i32,
    },
    /// The log cannot be written; output is dropped until it can.
    LogBroken {
        /// Whose.
        container: ContainerId,
        /// The errno.
        errno: i32,
    },
}

/// Anything that the shim sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromShim {
    /// Answer to the request with this number.
    Reply(u32, Reply),
    /// An event.
    Event(Event),
}

/// Why bytes are not a frame that this version knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It does not begin as frames do.
    #[error("unable to read frame: it does not begin as a frame of Corten")]
    NoFrame,
    /// Written by another version.
    #[error("unable to read frame: its version is {0}, this is version {VERSION}")]
    Version(u16),
    /// An unknown kind.
    #[error("unable to read frame: kind {0} is not known here")]
    Kind(u16),
    /// It ends too early.
    #[error("unable to read frame: it ends too early")]
    TooShort,
    /// Something follows.
    #[error("unable to read frame: it is longer than its kind")]
    TooLong,
    /// A value that stands for nothing.
    #[error("unable to read frame: {0} has a value that is not known here")]
    Value(&'static str),
}
