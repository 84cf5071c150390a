//! Probes by the hundred: a thousand execs, of which five hundred are asked for
//! in each second, in ten pods. At best all of it takes two seconds.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::measure::clock::ms;
use crate::measure::process::CpuTime;
use crate::operations::{attempt, catalogue as keys, note};
use crate::report::{Report, Unit};
use crate::runtimes::{Running, Subject};

const PODS: usize = 10;
const EXECS: u32 = 1000;
/// Between two of them.
const INTERVAL: Duration = Duration::from_millis(2);
/// How many are waited for at once: where a runtime cannot follow, later ones
/// are asked for when earlier ones are done.
const AT_ONCE: usize = 50;
/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures it, one runtime after the other.
pub async fn measure(report: &mut Report, subjects: &mut [&mut Subject]) {
    for subject in subjects {
        attempt(report, subject, keys::STORM, None, PATIENCE, storm).await;
    }
}

async fn storm(report: &mut Report, subject: &mut Subject) -> Result<()> {
    let mut pods = Vec::new();
    for number in 0..PODS {
        pods.push(subject.start_pod(&format!("storm-{number}")).await?);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let daemon = subject.daemon().map(|pid| (pid, CpuTime::of(pid)));
    let charge = subject.charge()?;
    let begun = Instant::now();
    let latencies = ask(subject, &pods).await?;
    let took = begun.elapsed().as_secs_f64();
    note(report, subject, keys::STORM, None, Unit::Seconds, [took]);
    note(report, subject, keys::STORM_EXEC, None, Unit::Milliseconds, latencies);
    if let Some((pid, before)) = daemon {
        let used = CpuTime::of(pid).ms_since(&before) / f64::from(EXECS);
        note(report, subject, keys::STORM_DAEMON, None, Unit::Milliseconds, [used]);
    }
    if let (Some(before), Some(now)) = (charge, subject.charge()?) {
        let used = now.since(before).cpu_ms / f64::from(EXECS);
        note(report, subject, keys::STORM_ALL, None, Unit::Milliseconds, [used]);
    }
    for pod in &pods {
        subject.end_pod(pod).await?;
        subject.forget(&pod.name);
    }
    Ok(())
}

/// Latencies of the execs, each from its call on.
async fn ask(subject: &Subject, pods: &[Running]) -> Result<Vec<f64>> {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let client = subject.client();
    let mut calls = JoinSet::new();
    let begun = Instant::now();
    for (number, pod) in (0..EXECS).zip(pods.iter().cycle()) {
        sleep_until(begun + INTERVAL * number).await;
        let permit = permits.clone().acquire_owned().await?;
        let (mut client, container) = (client.clone(), pod.container().to_owned());
        calls.spawn(async move {
            let begun = Instant::now();
            let (code, ..) = client.exec(&container, &["true"], 30).await.context("ExecSync")?;
            drop(permit);
            ensure!(code == 0, "`true` ended with {code}");
            Ok(ms(begun.elapsed()))
        });
    }
    calls.join_all().await.into_iter().collect()
}
