//! The launch plan: everything that a shim needs to launch one process, as
//! flat bytes in a sealed memfd.
//!
//! The daemon writes a plan with [`PlanBuilder`]; the shim reads it with
//! [`PlanView`], which checks all of it once, borrows from the mapped bytes,
//! and never panics. Numbers are little-endian; texts have a length before
//! them and a NUL after them, so that a child passes them to the kernel as
//! they lie there.

mod describe;
mod strings;
mod view;
mod wire;
mod write;

#[cfg(test)]
mod tests;

use std::ffi::CStr;

use corten_kernel::launch::{CStrList, FdIndex, NamespaceKind};

pub use strings::CStrings;
pub use view::{Hooks, PlanView, Steps};
pub use write::PlanBuilder;

/// The first bytes of each plan.
pub const MAGIC: [u8; 8] = *b"CortenPl";

/// Why bytes are no plan, or a plan cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanError {
    /// Longer than `limits::PLAN_BYTES_MAX`.
    TooLong,
    /// It does not begin with [`MAGIC`].
    NoPlan,
    /// Written in a version that this program does not know.
    Version(u16),
    /// The bytes at this offset make no sense.
    Malformed(usize),
    /// A text has a NUL within, and cannot be passed to the kernel.
    Nul,
    /// It does not end with exactly one `Exec` or `Init`.
    NoEnd,
}

impl std::fmt::Display for PlanError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PlanError::TooLong => write!(f, "the launch plan is too long"),
            PlanError::NoPlan => write!(f, "these bytes are no launch plan"),
            PlanError::Version(version) => {
                write!(f, "the launch plan has version {version}, which is not known here")
            }
            PlanError::Malformed(offset) => {
                write!(f, "the launch plan makes no sense at byte {offset}")
            }
            PlanError::Nul => write!(f, "a text of the launch plan has a NUL character in it"),
            PlanError::NoEnd => write!(f, "the launch plan does not end by executing something"),
        }
    }
}

impl std::error::Error for PlanError {}

/// Whose PID namespace (and what else) the process is born into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JoinTarget<'a> {
    /// Its own where [`Header::new_namespaces`] has one, else the host's.
    #[default]
    Own,
    /// The PID namespace of this container of the pod: the pod's init where
    /// it is shared, or the target of an ephemeral container.
    PidOf(&'a str),
    /// All namespaces of the container that the request names: an exec.
    Container,
}

/// What the shim, not the child, has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header<'a> {
    /// Namespaces made by clone itself, as bits of [`namespace_bit`].
    pub new_namespaces: u8,
    /// Whose namespaces are joined.
    pub join: JoinTarget<'a>,
    /// Enter the pod's user namespace first (with an exec: the container's).
    pub user_namespace: bool,
    /// The plan has a `Console` step, whose master the shim keeps.
    pub console: bool,
    /// How many descriptors the steps refer to.
    pub fd_count: u16,
    /// The mount namespace in which runtime hooks run (the host's), if there
    /// are any: the shim's own has next to nothing in it.
    pub hook_mounts: Option<FdIndex>,
    /// The plan runs an OCI runtime, and the real process is that one's child.
    pub delegate: Option<Delegate<'a>>,
}

/// What is known of a process that an OCI runtime makes. The plan's command is
/// the runtime; when it has ended well, the number of the real process is in a
/// file, and the process has become the shim's child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delegate<'a> {
    /// The directory that the file lies in.
    pub directory: FdIndex,
    /// Name of the file.
    pub pid_file: &'a CStr,
    /// The listening socket to which the runtime sends a terminal's master.
    pub console: Option<FdIndex>,
    /// A descriptor that the runtime gets as its number 3.
    pub inherit: Option<FdIndex>,
    /// How long the runtime may take, in milliseconds; from Start on, where the
    /// plan waits for it. 0 for any time.
    pub timeout_ms: u32,
}

/// The bit of a namespace kind in [`Header::new_namespaces`].
pub const fn namespace_bit(kind: NamespaceKind) -> u8 {
    match kind {
        NamespaceKind::Mount => 1,
        NamespaceKind::Net => 2,
        NamespaceKind::Ipc => 4,
        NamespaceKind::Uts => 8,
        NamespaceKind::Pid => 16,
        NamespaceKind::User => 32,
        NamespaceKind::Cgroup => 64,
        NamespaceKind::Time => 128,
    }
}

/// When a hook of the runtime runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookPoint {
    /// `prestart` and `createRuntime`, at `Step::AwaitHooks { point: 0 }`.
    CreateRuntime,
    /// After the command has begun.
    PostStart,
    /// After the container was deleted.
    PostStop,
    /// Instead of letting a child go on: the OCI runtime is asked to start the
    /// container that it made.
    Start,
}

/// A hook that the shim runs in the host's namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook<'a> {
    /// When.
    pub point: HookPoint,
    /// argv; the first string is the path of the program.
    pub args: CStrList<'a>,
    /// Environment.
    pub env: CStrList<'a>,
    /// The state document up to the pid.
    pub state_before_pid: &'a [u8],
    /// The state document after the pid.
    pub state_after_pid: &'a [u8],
    /// Deadline in milliseconds; 0 for none.
    pub timeout_ms: u32,
}
