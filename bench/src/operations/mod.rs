//! What is measured. Each operation is one file, and knows no runtime by name.

pub mod catalogue;
pub mod crowd;
pub mod exec;
pub mod floor;
pub mod lists;
pub mod single;
pub mod special;
pub mod start;

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::report::{Failure, Operation, Report, Unit};
use crate::runtimes::Subject;

/// How long a runtime may take to become well again after something failed.
const RECOVERY: Duration = Duration::from_secs(180);

/// A stable key, and what people read: `("pod-start", "pod start")`.
pub type Key = (&'static str, &'static str);

/// Adds what was measured of a runtime.
pub fn note(
    report: &mut Report,
    subject: &Subject,
    (key, title): Key,
    pods: Option<u32>,
    unit: Unit,
    values: impl IntoIterator<Item = f64>,
) {
    report.add(subject.name(), &Operation::new(key, title), pods, unit, values);
}

/// Tries something with a runtime. What fails, or takes longer than this, is
/// reported; the runtime is cleared, and the next operation finds it as if
/// nothing had been: one that cannot be cleared is left out from then on.
/// Returns whether it worked.
pub async fn attempt(
    report: &mut Report,
    subject: &mut Subject,
    (_, title): Key,
    pods: Option<u32>,
    patience: Duration,
    work: impl AsyncFnOnce(&mut Report, &mut Subject) -> Result<()>,
) -> bool {
    if subject.is_lost() {
        return false;
    }
    let outcome = within(patience, work(report, subject)).await;
    let Err(error) = outcome else { return true };
    fail(report, subject, title, pods, &error);
    if let Err(error) = within(RECOVERY, subject.recover()).await {
        fail(report, subject, "everything after it", None, &error);
        subject.lose();
    }
    false
}

/// Notes that something did not work, once.
pub fn fail(
    report: &mut Report,
    subject: &Subject,
    operation: &str,
    pods: Option<u32>,
    error: &anyhow::Error,
) {
    let runtime = subject.name().to_owned();
    eprintln!("bench: {runtime}: {operation}: {error:#}");
    let known = report.failures.iter().any(|known| {
        known.runtime == runtime && known.operation == operation && known.pods == pods
    });
    if !known {
        let (operation, error) = (operation.to_owned(), format!("{error:#}"));
        report.failures.push(Failure { runtime, operation, pods, error });
    }
}

async fn within(patience: Duration, work: impl Future<Output = Result<()>>) -> Result<()> {
    let ended = tokio::time::timeout(patience, work).await;
    ended.with_context(|| format!("it took longer than {patience:?}"))?
}
