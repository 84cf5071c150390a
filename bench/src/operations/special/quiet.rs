//! A lone exec and a lone pod after ten seconds in which nothing happened on
//! the node: kernel and processor have gone to sleep, and some locks are dear
//! the first time.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::measure::clock::Clock;
use crate::operations::{attempt, catalogue as keys, note};
use crate::report::{Report, Unit};
use crate::runtimes::Subject;

const RUNS: usize = 2;
const QUIET: Duration = Duration::from_secs(10);
/// How long one run may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures it, runtimes in turns: each is quiet for itself.
pub async fn measure(report: &mut Report, subjects: &mut [&mut Subject]) {
    for run in 0..RUNS {
        for subject in &mut *subjects {
            let work =
                async |report: &mut Report, subject: &mut Subject| lone(report, subject, run).await;
            attempt(report, subject, keys::LONE_POD, None, PATIENCE, work).await;
        }
    }
}

async fn lone(report: &mut Report, subject: &mut Subject, run: usize) -> Result<()> {
    let first = subject.start_pod(&format!("lone-{run}-a")).await?;
    let name = format!("lone-{run}-b");
    let (pod, container) = (subject.pod(&name)?, subject.container("main"));
    tokio::time::sleep(QUIET).await;
    let mut clock = Clock::start();
    let exec = subject.client().exec(first.container(), &["true"], 30).await;
    let took = clock.lap();
    let (code, ..) = exec.context("ExecSync")?;
    ensure!(code == 0, "`true` ended with {code}");
    note(report, subject, keys::LONE_EXEC, None, Unit::Milliseconds, [took]);

    tokio::time::sleep(QUIET).await;
    let mut clock = Clock::start();
    let second = subject.start_prepared(&pod, &[container]).await?;
    let took = clock.lap();
    note(report, subject, keys::LONE_POD, None, Unit::Milliseconds, [took]);
    for pod in [first, second] {
        subject.end_pod(&pod).await?;
        subject.forget(&pod.name);
    }
    Ok(())
}
