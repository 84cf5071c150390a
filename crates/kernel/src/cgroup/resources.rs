//! The limits of a group, as the OCI runtime specification names them.

use super::devices::DeviceRule;

/// Limits to set. `None`, and an empty list or text, leaves a thing as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    /// Shares as v1 counts them: 2 to 262144, 1024 is usual.
    pub cpu_shares: Option<u64>,
    /// Microseconds of processor time in each period; negative for no limit.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Microseconds of unused quota that may be saved up.
    pub cpu_burst: Option<u64>,
    /// `SCHED_IDLE` for the group: 0 or 1.
    pub cpu_idle: Option<i64>,
    /// CPU list: `0-3,7`.
    pub cpus: Option<String>,
    /// List of memory nodes.
    pub mems: Option<String>,
    /// Bytes; negative for no limit.
    pub memory_limit: Option<i64>,
    /// Bytes of memory and swap together; negative for no limit.
    pub memory_swap: Option<i64>,
    /// Bytes that are spared while others have more to give; negative for none.
    pub memory_reservation: Option<i64>,
    /// 0 to 100; v1 only.
    pub memory_swappiness: Option<u64>,
    /// Processes wait instead of being killed; v1 only.
    pub disable_oom_killer: Option<bool>,
    /// Refuse a memory limit below what is in use and cannot be reclaimed,
    /// instead of killing for it. (v1 never kills for a new limit.)
    pub check_before_update: bool,
    /// Processes and threads; zero and less for no limit.
    pub pids_limit: Option<i64>,
    /// Huge pages.
    pub hugepage_limits: Vec<HugepageLimit>,
    /// Weight of disk access, 10 to 1000.
    pub io_weight: Option<u16>,
    /// Limits of disks.
    pub io_limits: Vec<IoLimit>,
    /// RDMA device to its limits: `mlx5_1`, `hca_handle=2 hca_object=2000`.
    pub rdma: Vec<(String, String)>,
    /// Device rules; the last that fits wins. Replaces all earlier rules.
    pub devices: Option<Vec<DeviceRule>>,
    /// Files of the v2 hierarchy and their values, written last.
    pub unified: Vec<(String, String)>,
}

/// How much of one size of huge pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HugepageLimit {
    /// As the kernel's files name it: `2MB`.
    pub page_size: String,
    /// Bytes.
    pub limit: u64,
}

/// What of a disk is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoLimitKind {
    /// Bytes read each second.
    ReadBytes,
    /// Bytes written each second.
    WriteBytes,
    /// Reads each second.
    ReadOperations,
    /// Writes each second.
    WriteOperations,
}

/// A limit of one disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoLimit {
    /// What is limited.
    pub kind: IoLimitKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// How much each second; 0 for no limit.
    pub rate: u64,
}
