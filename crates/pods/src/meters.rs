//! What the engine counts about itself.

use std::time::Instant;

use corten_base::meter::{Counter, Histogram, MetricKind, Page};

use crate::error::Result;

/// Counters of an engine.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    /// Networks that pods were attached to.
    pub attach: Outcomes,
    /// Networks that pods were detached from.
    pub detach: Outcomes,
    /// Sandboxes that were asked for.
    pub sandboxes: Outcomes,
    /// Containers that were asked for.
    pub containers: Outcomes,
    /// Commands that were to be started, of containers.
    pub starts: Outcomes,
    /// Processes run in containers.
    pub execs: Outcomes,
    /// Shims that died.
    pub shims_lost: Counter,
    /// Processes that the kernel killed for want of memory.
    pub out_of_memory: Counter,
}

/// How one kind of work went.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    durations: Histogram,
    failures: Counter,
}

impl Outcomes {
    /// Does it, and counts how it went.
    pub async fn of<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let begun = Instant::now();
        let outcome = work.await;
        self.durations.observe(begun.elapsed());
        if outcome.is_err() {
            self.failures.count();
        }
        outcome
    }
}

impl Meters {
    /// Writes what was counted.
    pub fn write(&self, page: &mut Page) {
        let kinds = [
            ("network_attach", &self.attach),
            ("network_detach", &self.detach),
            ("sandbox_run", &self.sandboxes),
            ("container_create", &self.containers),
            ("container_start", &self.starts),
            ("exec", &self.execs),
        ];
        let name = "corten_operation_duration_seconds";
        page.metric(
            name,
            MetricKind::Histogram,
            "Time that operations took, failed ones included.",
        );
        for (kind, outcomes) in kinds {
            page.histogram(name, &[("operation", kind)], &outcomes.durations);
        }
        let name = "corten_operation_failures_total";
        page.metric(name, MetricKind::Counter, "Operations that failed.");
        for (kind, outcomes) in kinds {
            page.sample(name, &[("operation", kind)], outcomes.failures.value());
        }
        let help = "Shims that died, and their pods with them.";
        let counter = MetricKind::Counter;
        page.single("corten_shims_lost_total", counter, help, self.shims_lost.value());
        let help = "Processes of containers killed for want of memory.";
        page.single("corten_oom_kills_total", counter, help, self.out_of_memory.value());
    }
}
