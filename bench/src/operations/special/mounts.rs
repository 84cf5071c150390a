//! A pod on a node with five thousand mounts, which each new mount namespace
//! copies unless a runtime sees to it.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Kind, nothing, usual};
use crate::operations::{attempt, catalogue as keys};
use crate::report::Report;
use crate::runtimes::Subject;

const RUNS: usize = 6;
/// Mounts of one tree, and how many trees there are.
const TREE: usize = 50;
const TREES: usize = 100;
/// How long they may take to be made, or to go.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures it, one runtime after the other: mounts of one are in the way of
/// none but itself, but copying them all costs memory.
pub async fn measure(report: &mut Report, subjects: &mut [&mut Subject]) {
    let kind = Kind { start: Some(keys::MOUNTS_START), stop: keys::MOUNTS_STOP, shape: &usual };
    for subject in subjects.iter_mut().filter(|subject| subject.is_at_home()) {
        let make = async |_: &mut Report, subject: &mut Subject| make(subject);
        let made = attempt(report, subject, keys::MOUNTS_START, None, PATIENCE, make).await;
        if made {
            kind.measure(report, &mut [&mut **subject], RUNS, nothing).await;
        }
        let remove = async |_: &mut Report, subject: &mut Subject| remove(subject);
        attempt(report, subject, keys::MOUNTS_STOP, None, PATIENCE, remove).await;
    }
}

/// A tree of mounts, cloned many times: quicker than one by one.
fn make(subject: &mut Subject) -> Result<()> {
    let script = format!(
        "set -e; mkdir -p \"$0\"; mount -t tmpfs -o size=4m many \"$0\"; cd \"$0\"; \
         mkdir tree; mount --bind tree tree; mount --make-private tree; \
         for at in $(seq {last}); do mkdir tree/$at; mount --bind tree/$at tree/$at; done; \
         for at in $(seq {trees}); do mkdir $at; mount --rbind tree $at; done",
        last = TREE - 1,
        trees = TREES - 1,
    );
    run(subject, &script)
}

fn remove(subject: &mut Subject) -> Result<()> {
    // Lazily, the first takes all that lies below it.
    let script = "mountpoint -q \"$0\" && umount --lazy \"$0\"; [ ! -d \"$0\" ] || rmdir \"$0\"";
    run(subject, script)
}

fn run(subject: &mut Subject, script: &str) -> Result<()> {
    let home = subject.home().context("it is not at home")?;
    let place = home.path("mounts").display().to_string();
    home.run(&["sh", "-c", script, &place]).map(drop)
}
