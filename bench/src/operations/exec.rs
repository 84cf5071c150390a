//! Fifty execs in one container, eight at once: the probes of a busy node.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{attempt, catalogue as keys, note};
use crate::measure::clock::Clock;
use crate::report::{Report, Unit};
use crate::runtimes::{Running, Subject};

const EXECS: usize = 50;
const CONCURRENCY: usize = 8;
/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(300);
/// How long one round may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures `rounds` of them for each runtime, in turns.
pub async fn measure(report: &mut Report, subjects: &mut [Subject], rounds: usize) {
    let mut pods: Vec<Option<Running>> = Vec::new();
    for subject in &mut *subjects {
        let mut pod = None;
        let work = async |_: &mut Report, subject: &mut Subject| {
            pod = Some(subject.start_pod("execs").await?);
            Ok(())
        };
        attempt(report, subject, keys::EXECS, None, PATIENCE, work).await;
        pods.push(pod);
    }
    for _ in 0..rounds {
        for (subject, pod) in subjects.iter_mut().zip(&mut pods) {
            let Some(running) = pod.clone() else { continue };
            let work = async |report: &mut Report, subject: &mut Subject| {
                tokio::time::sleep(PAUSE).await;
                let took = round(subject, &running).await?;
                note(report, subject, keys::EXECS, None, Unit::Milliseconds, [took]);
                Ok(())
            };
            if !attempt(report, subject, keys::EXECS, None, PATIENCE, work).await {
                *pod = None;
            }
        }
    }
    for (subject, pod) in subjects.iter_mut().zip(pods) {
        let Some(running) = pod else { continue };
        let work = async |_: &mut Report, subject: &mut Subject| {
            subject.end_pod(&running).await?;
            subject.forget(&running.name);
            Ok(())
        };
        attempt(report, subject, keys::EXECS, None, PATIENCE, work).await;
    }
}

async fn round(subject: &Subject, running: &Running) -> Result<f64> {
    let client = subject.client();
    let mut clock = Clock::start();
    let execs = stream::iter(0..EXECS).map(|_| {
        let mut client = client.clone();
        async move {
            let exec = client.exec(running.container(), &["true"], 10);
            let (code, ..) = exec.await.context("ExecSync")?;
            ensure!(code == 0, "`true` ended with {code}");
            Ok(())
        }
    });
    execs.buffer_unordered(CONCURRENCY).try_collect::<Vec<()>>().await?;
    Ok(clock.lap())
}
