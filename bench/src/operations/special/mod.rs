//! What nodes do besides plain pods: pods of several containers, user
//! namespaces, probes by the hundred, long quiet, many mounts, much that was
//! written, much that was said. Few runs of each: it is looked for orders of
//! magnitude.

mod dirty;
mod logs;
mod mounts;
mod quiet;
mod shapes;
mod storm;

use std::time::Duration;

use anyhow::Result;
use corten_tests::client::{Container, Pod};

use super::{Key, attempt, note};
use crate::measure::clock::Clock;
use crate::report::{Report, Role, Unit};
use crate::runtimes::{Running, Subject};

/// Before each part of a pod's life.
const PAUSE: Duration = Duration::from_millis(150);
/// How long a pod may take, and what is done with it.
const PATIENCE: Duration = Duration::from_secs(45);

/// Measures all of it.
pub async fn measure(report: &mut Report, subjects: &mut [Subject]) {
    // The second Corten differs by its network, which is no matter here.
    let mut ours = 0;
    let mut subjects: Vec<&mut Subject> = subjects
        .iter_mut()
        .filter(|subject| {
            ours += usize::from(subject.role() == Role::Corten);
            subject.role() != Role::Corten || ours == 1
        })
        .collect();
    shapes::measure(report, &mut subjects).await;
    mounts::measure(report, &mut subjects).await;
    dirty::measure(report, &mut subjects).await;
    logs::measure(report, &mut subjects).await;
    storm::measure(report, &mut subjects).await;
    quiet::measure(report, &mut subjects).await;
}

/// A pod of this name, and its containers.
type Shape = dyn Fn(&Subject, &str) -> Result<(Pod, Vec<Container>)>;

/// Pods of one kind, and how their figures are called.
struct Kind<'a> {
    /// Of the start: sandbox and containers.
    start: Option<Key>,
    /// Of stop and remove.
    stop: Key,
    shape: &'a Shape,
}

impl Kind<'_> {
    /// Pods of each runtime, in turns, until one fails; `work` is done with each
    /// while it runs.
    async fn measure(
        &self,
        report: &mut Report,
        subjects: &mut [&mut Subject],
        runs: usize,
        work: impl AsyncFn(&Subject, &Running) -> Result<()>,
    ) {
        let mut well = vec![true; subjects.len()];
        for run in 0..runs {
            for (subject, well) in subjects.iter_mut().zip(&mut well).filter(|(_, well)| **well) {
                *well = self.live(report, subject, run, &work).await;
            }
        }
    }

    /// One pod's life: whether it went well.
    async fn live(
        &self,
        report: &mut Report,
        subject: &mut Subject,
        run: usize,
        work: impl AsyncFn(&Subject, &Running) -> Result<()>,
    ) -> bool {
        let lived = async |report: &mut Report, subject: &mut Subject| {
            let name = format!("{}-{run}", self.stop.0);
            let (pod, containers) = (self.shape)(subject, &name)?;
            tokio::time::sleep(PAUSE).await;
            let mut clock = Clock::start();
            let running = subject.start_prepared(&pod, &containers).await?;
            let start = clock.lap();
            work(subject, &running).await?;
            tokio::time::sleep(PAUSE).await;
            let mut clock = Clock::start();
            subject.end_pod(&running).await?;
            let stop = clock.lap();
            subject.forget(&name);
            let figures = [(self.start, start), (Some(self.stop), stop)];
            // The first is to warm up.
            for (key, value) in figures.into_iter().filter(|_| run > 0) {
                if let Some(key) = key {
                    note(report, subject, key, None, Unit::Milliseconds, [value]);
                }
            }
            Ok(())
        };
        attempt(report, subject, self.start.unwrap_or(self.stop), None, PATIENCE, lived).await
    }
}

/// Nothing is done with a pod.
async fn nothing(_: &Subject, _: &Running) -> Result<()> {
    Ok(())
}

/// The usual pod.
fn usual(subject: &Subject, name: &str) -> Result<(Pod, Vec<Container>)> {
    Ok((subject.pod(name)?, vec![subject.container("main")]))
}
