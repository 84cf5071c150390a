//! From the start of a daemon without pods to its first answer.

use std::time::Duration;

use super::{attempt, catalogue as keys, note};
use crate::measure::clock::ms;
use crate::report::{Report, Unit};
use crate::runtimes::Subject;

/// Between two starts.
const PAUSE: Duration = Duration::from_millis(300);
/// How long one start may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures `rounds` starts of each runtime that is ours to start, in turns.
pub async fn measure(report: &mut Report, subjects: &mut [Subject], rounds: usize) {
    for _ in 0..rounds {
        for subject in subjects.iter_mut().filter(|subject| subject.is_at_home()) {
            let work = async |report: &mut Report, subject: &mut Subject| {
                subject.kill()?;
                tokio::time::sleep(PAUSE).await;
                let took = subject.start_again().await?;
                note(report, subject, keys::ANSWERS, None, Unit::Milliseconds, [ms(took)]);
                tokio::time::sleep(PAUSE).await;
                Ok(())
            };
            attempt(report, subject, keys::ANSWERS, None, PATIENCE, work).await;
        }
    }
}
