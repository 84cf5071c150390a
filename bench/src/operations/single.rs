//! One pod after another on a quiet node: each call of its life.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::floor::Measured;
use super::{Key, attempt, catalogue as keys, note};
use crate::measure::clock::Clock;
use crate::measure::process;
use crate::report::{Report, Unit};
use crate::runtimes::Subject;

/// Pods before the first that counts.
const WARM_UP: usize = 3;
/// Between two pods: what the daemon does in the background is done by then,
/// and the kernel has gone quiet. Pods seldom come in a row.
const PAUSE: Duration = Duration::from_millis(150);
/// How long a pod's life may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures `runs` pods of each runtime, and of the kernel alone, in turns.
pub async fn measure(
    report: &mut Report,
    subjects: &mut [Subject],
    floor: &mut Measured,
    runs: usize,
) {
    for run in 0..WARM_UP + runs {
        for subject in &mut *subjects {
            let work = async |report: &mut Report, subject: &mut Subject| {
                let values = live(subject, &format!("single-{run}")).await?;
                if run >= WARM_UP {
                    for (key, value) in values {
                        note(report, subject, key, None, Unit::Milliseconds, [value]);
                    }
                }
                Ok(())
            };
            attempt(report, subject, keys::POD_START, None, PATIENCE, work).await;
        }
        floor.live(report, run >= WARM_UP);
    }
    for subject in &mut *subjects {
        let work = async |report: &mut Report, subject: &mut Subject| memory(report, subject).await;
        attempt(report, subject, keys::DAEMON, Some(0), PATIENCE, work).await;
    }
}

async fn live(subject: &Subject, name: &str) -> Result<Vec<(Key, f64)>> {
    let mut client = subject.client();
    let (config, main) = (subject.pod(name)?, subject.container("main"));
    tokio::time::sleep(PAUSE).await;
    let mut clock = Clock::start();
    let id = client.run_pod(&config).await.context("RunPodSandbox")?;
    let run_sandbox = clock.lap();
    let container = client.create(&id, &config, &main).await.context("CreateContainer")?;
    let create = clock.lap();
    client.start(&container).await.context("StartContainer")?;
    let start = clock.lap();
    let up = clock.total();

    tokio::time::sleep(PAUSE).await;
    let mut clock = Clock::start();
    let (code, ..) = client.exec(&container, &["true"], 10).await.context("ExecSync")?;
    let exec = clock.lap();
    ensure!(code == 0, "`true` ended with {code}");

    tokio::time::sleep(PAUSE).await;
    let mut clock = Clock::start();
    client.stop(&container, 0).await.context("StopContainer")?;
    let stop = clock.lap();
    client.remove(&container).await.context("RemoveContainer")?;
    let remove = clock.lap();
    client.stop_pod(&id).await.context("StopPodSandbox")?;
    let stop_sandbox = clock.lap();
    client.remove_pod(&id).await.context("RemovePodSandbox")?;
    let remove_sandbox = clock.lap();
    subject.forget(name);
    Ok(vec![
        (keys::POD_START, up),
        (keys::RUN_SANDBOX, run_sandbox),
        (keys::CREATE, create),
        (keys::START, start),
        (keys::EXEC, exec),
        (keys::POD_STOP, clock.total()),
        (keys::STOP, stop),
        (keys::REMOVE, remove),
        (keys::STOP_SANDBOX, stop_sandbox),
        (keys::REMOVE_SANDBOX, remove_sandbox),
    ])
}

/// What the daemon holds after pods have come and gone.
async fn memory(report: &mut Report, subject: &Subject) -> Result<()> {
    tokio::time::sleep(Duration::from_secs(1)).await;
    if let Some(daemon) = subject.daemon() {
        let pss = process::pss_kb(daemon).context("the daemon's memory cannot be read")?;
        note(report, subject, keys::DAEMON, Some(0), Unit::Kilobytes, [pss]);
    }
    Ok(())
}
