//! What figures are to become: SPECIFICATION.md's promises.

use crate::operations::{Key, catalogue as keys};

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

const fn aim((key, _): Key, pods: Option<u32>, value: f64) -> Aim {
    Aim { key, pods, value }
}

/// All of them, in the order in which they are shown.
pub const AIMS: &[Aim] = &[
    aim(keys::POD_START, None, 15.0),
    aim(keys::POD_STOP, None, 20.0),
    aim(keys::EXEC, None, 3.0),
    aim(keys::EXECS, None, 60.0),
    aim(keys::UP, Some(50), 0.5),
    aim(keys::DOWN, Some(50), 0.5),
    aim(keys::MONITORS, Some(50), 60.0),
    aim(keys::AVAILABLE, Some(50), 850.0),
    aim(keys::DAEMON, Some(0), 10_240.0),
    aim(keys::DAEMON, Some(50), 15_360.0),
    aim(keys::IDLE_DAEMON, Some(50), 5.0),
    aim(keys::CONTAINER_STATS, Some(50), 10.0),
    aim(keys::ANSWERS, None, 10.0),
    aim(keys::UP, Some(300), 5.0),
    aim(keys::DOWN, Some(300), 3.0),
    aim(keys::DAEMON, Some(300), 25_600.0),
    aim(keys::CONTAINER_STATS, Some(300), 50.0),
];
