//! Metrics of pods and containers over CRI, by the names that cAdvisor gave
//! them: dashboards and alerts know them so.

mod table;
mod values;

use corten_api::cri;

pub use table::descriptors;
pub use values::{Disks, FileSystem, sandbox};

/// The labels that every metric has, in the order of their values: as the
/// kubelet names them, so that a pod that is no container has an empty one.
const LABELS: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

/// One metric: what it is called, and what is told of it.
#[derive(Debug)]
struct Metric {
    name: &'static str,
    help: &'static str,
    kind: cri::MetricType,
    /// Labels beside those that all have.
    labels: &'static [&'static str],
}

/// Metrics of one pod or container, as they are put together.
struct Sink {
    /// The values of [`LABELS`].
    labels: [String; LABELS.len()],
    found: Vec<cri::Metric>,
}

impl Sink {
    fn new(labels: [String; LABELS.len()]) -> Self {
        Self { labels, found: Vec::with_capacity(table::ALL.len()) }
    }

    /// Adds a value; `labels` are those of the metric's own.
    fn put(&mut self, metric: &Metric, labels: &[&str], value: u64) {
        debug_assert_eq!(metric.labels.len(), labels.len(), "{}", metric.name);
        let own = labels.iter().map(|&label| label.to_owned());
        self.found.push(cri::Metric {
            name: metric.name.to_owned(),
            // Read just now, and not kept from before.
            timestamp: 0,
            metric_type: metric.kind.into(),
            label_values: self.labels.iter().cloned().chain(own).collect(),
            value: Some(cri::UInt64Value { value }),
        });
    }

    /// Adds a value without labels of its own.
    fn plain(&mut self, metric: &Metric, value: u64) {
        self.put(metric, &[], value);
    }
}

#[cfg(test)]
mod tests;
