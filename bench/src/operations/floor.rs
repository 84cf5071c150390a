//! The kernel's part of a pod's life, measured between those of the runtimes.

use std::path::Path;

use super::{Key, catalogue as keys};
use crate::floor::{Floor, Life, Pool};
use crate::report::{Failure, Operation, Report, Role, Runtime, Unit};

/// With what Corten makes ahead made ahead, and without.
const NAMES: [(&str, Pool); 2] = [("floor", Pool::Ahead), ("floor, no pools", Pool::Within)];

/// The floor, as long as it works.
pub struct Measured(Option<Floor>);

impl Measured {
    /// Prepares it; its files lie below this directory, as the runtimes' do.
    pub fn prepare(report: &mut Report, below: &Path) -> Self {
        match Floor::start(below) {
            Ok(floor) => {
                report.runtimes.extend(NAMES.map(|(name, _)| Runtime {
                    name: name.to_owned(),
                    role: Role::Floor,
                    network: "veth on a bridge".to_owned(),
                    versions: vec!["the kernel alone".to_owned()],
                }));
                Self(Some(floor))
            }
            Err(error) => {
                fail(report, &error);
                Self(None)
            }
        }
    }

    /// One pod of each kind. `counts` is false for warming up.
    pub fn live(&mut self, report: &mut Report, counts: bool) {
        for (name, pool) in NAMES {
            let Some(floor) = &mut self.0 else { return };
            let lived = tokio::task::block_in_place(|| floor.live(pool));
            match lived {
                Ok(life) if counts => note(report, name, pool, &life),
                Ok(_) => {}
                Err(error) => {
                    fail(report, &error);
                    self.0 = None;
                }
            }
        }
    }
}

fn note(report: &mut Report, name: &str, pool: Pool, life: &Life) {
    let Life { sandbox, create, start, exec, down } = *life;
    let all: [(Key, f64); 6] = [
        (keys::POD_START, sandbox + create + start),
        (keys::RUN_SANDBOX, sandbox),
        (keys::CREATE, create),
        (keys::START, start),
        (keys::EXEC, exec),
        (keys::POD_STOP, down),
    ];
    // Without pools nothing differs once the container is made.
    let told = if pool == Pool::Ahead { all.len() } else { 3 };
    for ((key, title), value) in all.into_iter().take(told) {
        report.add(name, &Operation::new(key, title), None, Unit::Milliseconds, [value]);
    }
}

fn fail(report: &mut Report, error: &anyhow::Error) {
    eprintln!("bench: floor: {error:#}");
    report.failures.push(Failure {
        runtime: NAMES[0].0.to_owned(),
        operation: keys::POD_START.1.to_owned(),
        pods: None,
        error: format!("{error:#}"),
    });
}
