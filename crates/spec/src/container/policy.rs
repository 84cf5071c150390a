//! What the node says about every container: its abilities and its defaults.

use std::collections::BTreeMap;

use super::HostDevice;
use crate::capabilities;
use crate::oci::Rlimit;

/// How the node's cgroups are mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CgroupLayout {
    /// One unified hierarchy.
    V2,
    /// v1 hierarchies, by their names below /sys/fs/cgroup (`cpu,cpuacct`,
    /// `name=systemd`).
    V1 {
        /// Those names.
        hierarchies: Vec<String>,
    },
}

/// Abilities and defaults of the node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodePolicy {
    /// Capabilities of a container that asks for nothing.
    pub default_capabilities: Vec<String>,
    /// Capabilities that the daemon itself can give (its bounding set).
    pub machine_capabilities: u64,
    /// Resource limits of every container.
    pub rlimits: Vec<Rlimit>,
    /// Sysctls of every pod that has the namespace.
    pub default_sysctls: BTreeMap<String, String>,
    /// Paths that are hidden where the request does not say.
    pub masked_paths: Vec<String>,
    /// Paths that are read-only where the request does not say.
    pub readonly_paths: Vec<String>,
    /// Cgroups.
    pub cgroups: CgroupLayout,
    /// The default AppArmor profile, where AppArmor is on and it is loaded.
    pub apparmor_default: Option<String>,
    /// AppArmor is on.
    pub apparmor: bool,
    /// The kernel's version, for the default seccomp profile.
    pub kernel: (u32, u32),
    /// The kernel can make a mount read-only with all below (5.12).
    pub recursive_readonly: bool,
    /// A privileged container may use every device.
    pub privileged_devices: bool,
    /// What a privileged container sees in /dev, if it may use it.
    pub host_devices: Vec<HostDevice>,
}

/// Open files: the soft limit that `select` can live with, the hard limit that
/// systemd gives (an infinite one makes programs loop over a billion).
pub const NOFILE: (u64, u64) = (1024, 524_288);

impl NodePolicy {
    /// Defaults for a node whose daemon has these capabilities and may raise
    /// the limit of open files to `nofile_hard` (its own hard limit).
    pub fn new(machine_capabilities: u64, nofile_hard: u64, cgroups: CgroupLayout) -> Self {
        let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let hard = NOFILE.1.min(nofile_hard);
        let sysctls = [
            ("net.ipv4.ip_unprivileged_port_start", "0"),
            ("net.ipv4.ping_group_range", "0 2147483647"),
        ];
        Self {
            default_capabilities: strings(&capabilities::DEFAULT),
            machine_capabilities,
            rlimits: vec![Rlimit { kind: "RLIMIT_NOFILE".into(), hard, soft: NOFILE.0.min(hard) }],
            default_sysctls: sysctls.map(|(key, value)| (key.into(), value.into())).into(),
            masked_paths: strings(&MASKED_PATHS),
            readonly_paths: strings(&READONLY_PATHS),
            cgroups,
            apparmor_default: None,
            apparmor: false,
            kernel: (5, 15),
            recursive_readonly: true,
            privileged_devices: true,
            host_devices: Vec::new(),
        }
    }
}

/// What tells about the host's hardware, keys and timers.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What changes the host.
pub const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
