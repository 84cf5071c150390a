//! What figures are to become: SPECIFICATION.md's promises.

/// An aim.
#[derive(Debug, Clone, Copy)]
pub struct Aim {
    /// Key of the operation.
    pub key: &'static str,
    /// With how many pods, where that matters.
    pub pods: Option<u32>,
    /// Not more than this, in the operation's unit.
    pub value: f64,
}

const fn aim(key: &'static str, pods: Option<u32>, value: f64) -> Aim {
    Aim { key, pods, value }
}

/// All of them, in the order in which they are shown.
pub const AIMS: &[Aim] = &[
    aim("pod-start", None, 15.0),
    aim("pod-stop", None, 20.0),
    aim("exec", None, 3.0),
    aim("exec-50", None, 60.0),
    aim("crowd-up", Some(50), 0.5),
    aim("crowd-down", Some(50), 0.5),
    aim("monitor-pss", Some(50), 60.0),
    aim("mem-available", Some(50), 850.0),
    aim("daemon-pss", Some(0), 10_240.0),
    aim("daemon-pss", Some(50), 15_360.0),
    aim("idle-cpu", Some(50), 5.0),
    aim("container-stats", Some(50), 10.0),
    aim("socket-answers", None, 10.0),
    aim("crowd-up", Some(300), 5.0),
    aim("crowd-down", Some(300), 3.0),
    aim("daemon-pss", Some(300), 25_600.0),
    aim("container-stats", Some(300), 50.0),
];
