//! Many pods: made and taken away by several clients at once, and what they
//! cost while they do nothing.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use corten_tests::client::Pod;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{attempt, catalogue as keys, lists, note};
use crate::measure::charge::Charge;
use crate::measure::clock::ms;
use crate::measure::process::{self, CpuTime};
use crate::report::{Report, Unit};
use crate::runtimes::{Running, Subject};

const CONCURRENCY: usize = 8;
/// Until what was begun in the background is done.
const SETTLE: Duration = Duration::from_secs(1);
/// How long the use of the processor is watched.
const IDLE: Duration = Duration::from_secs(30);
/// With how many pods it is.
const IDLE_PODS: u32 = 50;
/// How long each pod, and everything else together, may take.
const PATIENCE_FOR_POD: Duration = Duration::from_millis(1500);
const PATIENCE: Duration = Duration::from_secs(180);
/// How often a daemon is killed and started with pods.
const RESTARTS: usize = 5;
/// Between two of these.
const PAUSE: Duration = Duration::from_millis(300);
/// How long its first whole list may take.
const PATIENCE_FOR_LIST: Duration = Duration::from_secs(60);

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// How many pods.
    pub pods: u32,
    /// How often they are made.
    pub rounds: usize,
    /// How often each list is asked for.
    pub lists: usize,
}

/// Measures crowds of each runtime for which `has` says so, whole rounds in
/// turns.
pub async fn measure(
    report: &mut Report,
    subjects: &mut [Subject],
    extent: Extent,
    has: impl Fn(&Subject) -> bool,
) {
    let patience = PATIENCE + PATIENCE_FOR_POD * extent.pods;
    for round in 0..extent.rounds {
        for subject in subjects.iter_mut().filter(|subject| has(subject)) {
            let work = async |report: &mut Report, subject: &mut Subject| {
                crowd(report, subject, extent, round).await
            };
            attempt(report, subject, keys::UP, Some(extent.pods), patience, work).await;
        }
    }
}

async fn crowd(
    report: &mut Report,
    subject: &mut Subject,
    extent: Extent,
    round: usize,
) -> Result<()> {
    let pods = extent.pods;
    let names = (0..pods).map(|number| format!("crowd-{round}-{number}"));
    let prepared: Vec<Pod> = names.map(|name| subject.pod(&name)).collect::<Result<_>>()?;
    tokio::time::sleep(SETTLE).await;

    let before = Before::of(subject)?;
    let begun = Instant::now();
    let running = make(subject, &prepared).await?;
    let took = begun.elapsed().as_secs_f64();
    note(report, subject, keys::UP, Some(pods), Unit::Seconds, [took]);
    before.processor(report, subject, pods, keys::UP_CPU)?;
    tokio::time::sleep(SETTLE).await;
    before.memory(report, subject, pods)?;
    if round == 0 {
        standing(report, subject, extent).await?;
    }

    let before = Before::of(subject)?;
    let begun = Instant::now();
    take_away(subject, &running).await?;
    let took = begun.elapsed().as_secs_f64();
    note(report, subject, keys::DOWN, Some(pods), Unit::Seconds, [took]);
    before.processor(report, subject, pods, keys::DOWN_CPU)?;
    for pod in &running {
        subject.forget(&pod.name);
    }
    tokio::time::sleep(SETTLE).await;
    Ok(())
}

/// What pods cost that only stand there.
async fn standing(report: &mut Report, subject: &mut Subject, extent: Extent) -> Result<()> {
    let pods = extent.pods;
    if pods == IDLE_PODS {
        idle(report, subject, pods).await?;
    }
    lists::measure(report, subject, pods, extent.lists).await;
    if !subject.is_at_home() {
        return Ok(());
    }
    for _ in 0..RESTARTS {
        subject.kill()?;
        let begun = Instant::now();
        subject.start_again().await?;
        let mut client = subject.client();
        while !lists::is_whole(&mut client, pods).await {
            let waited = begun.elapsed();
            ensure!(waited < PATIENCE_FOR_LIST, "no whole list after a restart");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let took = ms(begun.elapsed());
        note(report, subject, keys::RESTART, Some(pods), Unit::Milliseconds, [took]);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

async fn idle(report: &mut Report, subject: &Subject, pods: u32) -> Result<()> {
    let before = subject.daemon().map(CpuTime::of);
    let charge = subject.charge()?;
    tokio::time::sleep(IDLE).await;
    if let (Some(daemon), Some(before)) = (subject.daemon(), before) {
        let used = CpuTime::of(daemon).ms_since(&before);
        note(report, subject, keys::IDLE_DAEMON, Some(pods), Unit::Milliseconds, [used]);
    }
    if let (Some(before), Some(now)) = (charge, subject.charge()?) {
        let used = now.since(before).cpu_ms;
        note(report, subject, keys::IDLE_ALL, Some(pods), Unit::Milliseconds, [used]);
    }
    Ok(())
}

/// The machine before a crowd came or went.
struct Before {
    available: f64,
    charge: Option<Charge>,
}

impl Before {
    fn of(subject: &Subject) -> Result<Self> {
        Ok(Self { available: process::available_kb(), charge: subject.charge()? })
    }

    fn processor(
        &self,
        report: &mut Report,
        subject: &Subject,
        pods: u32,
        key: super::Key,
    ) -> Result<()> {
        if let (Some(before), Some(now)) = (self.charge, subject.charge()?) {
            let used = now.since(before).cpu_ms / f64::from(pods);
            note(report, subject, key, Some(pods), Unit::Milliseconds, [used]);
        }
        Ok(())
    }

    fn memory(&self, report: &mut Report, subject: &Subject, pods: u32) -> Result<()> {
        let each = f64::from(pods);
        let mut add = |key, value| {
            note(report, subject, key, Some(pods), Unit::Kilobytes, [value]);
        };
        if subject.knows_monitors() {
            let monitors = subject.monitors()?.into_iter().filter_map(process::pss_kb);
            add(keys::MONITORS, monitors.sum::<f64>() / each);
        }
        add(keys::AVAILABLE, (self.available - process::available_kb()) / each);
        if let (Some(before), Some(now)) = (self.charge, subject.charge()?) {
            let added = now.since(before);
            add(keys::CHARGE, added.memory_kb / each);
            add(keys::KERNEL, added.kernel_kb / each);
        }
        if let Some(daemon) = subject.daemon() {
            add(keys::DAEMON, process::pss_kb(daemon).context("the daemon's memory")?);
        }
        Ok(())
    }
}

/// Makes pods, several at once.
///
/// # Errors
/// If the runtime does not make one of them.
pub async fn make(subject: &Subject, prepared: &[Pod]) -> Result<Vec<Running>> {
    let subject = &subject;
    let work = stream::iter(prepared)
        .map(|pod| async move { subject.start_prepared(pod, &[subject.container("main")]).await });
    work.buffer_unordered(CONCURRENCY).try_collect().await
}

/// Takes pods away, several at once.
///
/// # Errors
/// If the runtime does not remove one of them.
pub async fn take_away(subject: &Subject, running: &[Running]) -> Result<()> {
    let work = stream::iter(running).map(|pod| subject.end_pod(pod));
    work.buffer_unordered(CONCURRENCY).try_collect::<Vec<()>>().await.map(drop)
}
