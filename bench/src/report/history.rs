//! What peers needed in earlier measurements, on another quiet machine:
//! anchors, where a peer is not to be had.

use super::{Operation, Report, Role, Runtime, Unit};
use crate::operations::{Key, catalogue as keys};

/// As the report calls them, with what they are made of.
const RUNTIMES: [(&str, &str); 3] = [
    ("containerd 2.3.4+runc 1.5", "containerd 2.3.4, runc 1.5"),
    ("containerd 2.3.4+crun 1.21", "containerd 2.3.4, crun 1.21"),
    ("CRI-O 1.36+crun", "CRI-O 1.36, conmon, crun"),
];

/// Medians; of each runtime one, in their order.
type Row = (Key, Option<u32>, Unit, [Option<f64>; 3]);

const MB: f64 = 1024.0;

const ROWS: &[Row] = &[
    (keys::POD_START, None, Unit::Milliseconds, [Some(191.0), Some(144.0), Some(117.0)]),
    (keys::RUN_SANDBOX, None, Unit::Milliseconds, [Some(122.0), Some(105.0), Some(65.0)]),
    (keys::CREATE, None, Unit::Milliseconds, [Some(7.0), Some(8.0), Some(42.0)]),
    (keys::START, None, Unit::Milliseconds, [Some(64.0), Some(34.0), Some(10.0)]),
    (keys::EXEC, None, Unit::Milliseconds, [Some(38.0), Some(14.0), Some(13.0)]),
    (keys::POD_STOP, None, Unit::Milliseconds, [Some(187.0), Some(183.0), Some(174.0)]),
    (keys::EXECS, None, Unit::Milliseconds, [Some(1070.0), Some(420.0), Some(362.0)]),
    (keys::ANSWERS, None, Unit::Milliseconds, [Some(73.0), None, Some(140.0)]),
    (keys::UP, Some(50), Unit::Seconds, [Some(6.1), Some(4.1), Some(3.3)]),
    (keys::DOWN, Some(50), Unit::Seconds, [Some(6.2), Some(4.9), Some(3.2)]),
    (keys::MONITORS, Some(50), Unit::Kilobytes, [Some(5220.0), Some(5210.0), Some(242.0)]),
    (keys::AVAILABLE, Some(50), Unit::Kilobytes, [Some(5916.0), Some(6385.0), Some(1007.0)]),
    (keys::DAEMON, Some(0), Unit::Kilobytes, [Some(51.0 * MB), Some(51.0 * MB), Some(62.0 * MB)]),
    (keys::DAEMON, Some(50), Unit::Kilobytes, [Some(80.0 * MB), Some(78.0 * MB), Some(69.0 * MB)]),
    (keys::IDLE_DAEMON, Some(50), Unit::Milliseconds, [Some(350.0), Some(440.0), Some(0.0)]),
    (keys::CONTAINER_STATS, Some(50), Unit::Milliseconds, [Some(128.0), Some(122.0), Some(229.0)]),
    (keys::UP, Some(300), Unit::Seconds, [Some(53.0), None, Some(26.2)]),
    (keys::DOWN, Some(300), Unit::Seconds, [Some(51.5), None, Some(14.8)]),
    (keys::DAEMON, Some(300), Unit::Kilobytes, [Some(238.0 * MB), None, Some(109.0 * MB)]),
    // 1.55 GB and 61 MB of monitors in all.
    (
        keys::MONITORS,
        Some(300),
        Unit::Kilobytes,
        [Some(1550.0 * MB / 300.0), None, Some(61.0 * MB / 300.0)],
    ),
    (keys::CONTAINER_STATS, Some(300), Unit::Milliseconds, [Some(946.0), None, Some(1343.0)]),
];

/// Adds what was measured then to the rows that were measured now.
pub fn add(report: &mut Report) {
    for (key, pods, unit, medians) in ROWS {
        let measured =
            report.rows().iter().any(|(operation, there)| operation.key == key.0 && there == pods);
        for ((name, _), median) in RUNTIMES.iter().zip(medians) {
            if measured {
                report.add(name, &Operation::new(key.0, key.1), *pods, *unit, *median);
            }
        }
    }
    for (name, versions) in RUNTIMES {
        if report.series.iter().any(|series| series.runtime == name) {
            report.runtimes.push(Runtime {
                name: name.to_owned(),
                role: Role::History,
                network: "CNI plugins".to_owned(),
                versions: vec![versions.to_owned()],
            });
        }
    }
}
