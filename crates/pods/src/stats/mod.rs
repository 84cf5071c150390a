//! What pods and containers use, as clients see it.

mod process;
mod rate;

use corten_kernel::cgroup;
use corten_kernel::netlink::LinkCounters;
use corten_store::Measured;

use crate::view::{ContainerView, SandboxView};

pub use process::Processes;
pub(crate) use process::look;
pub(crate) use rate::CpuRate;

/// What a group used, at one instant.
#[derive(Debug, Clone)]
pub struct Figures {
    /// Nanoseconds since 1970.
    pub at_ns: i64,
    /// What the kernel counts.
    pub counted: cgroup::Stats,
    /// Processor time per second of late, in nanoseconds of one core.
    pub nano_cores: Option<u64>,
}

/// What a container uses.
#[derive(Debug, Clone)]
pub struct ContainerStats {
    /// Whose figures they are.
    pub container: ContainerView,
    /// Its group.
    pub cgroup: String,
    /// Absent where it does not run.
    pub figures: Option<Figures>,
    /// What it has written to its root file system, as last measured.
    pub layer: Option<Measured>,
    /// Its processes; only in [`Detail::All`].
    pub processes: Option<Processes>,
}

/// What a pod uses.
#[derive(Debug, Clone)]
pub struct SandboxStats {
    /// Whose figures they are.
    pub sandbox: SandboxView,
    /// The group of all its containers.
    pub cgroup: String,
    /// Of all its containers together; absent where it is stopped.
    pub figures: Option<Figures>,
    /// The links of its network namespace, without the loopback; absent with
    /// the host's network.
    pub links: Option<Vec<LinkCounters>>,
    /// How many processes it has.
    pub processes: Option<u64>,
    /// Its running containers, oldest first.
    pub containers: Vec<ContainerStats>,
}

/// How much is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Processor, memory, pressure, network: what kubelets ask for often.
    Usage,
    /// Everything that the kernel counts.
    Counted,
    /// Descriptors of processes, too.
    All,
}
