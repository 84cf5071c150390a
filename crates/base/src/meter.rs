//! What the daemon counts about itself, and the text that Prometheus reads.

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts up from 0.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one more.
    pub fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The upper bounds of a histogram's buckets, milliseconds.
const BOUNDS_MS: [u64; 15] =
    [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 120_000];

/// Counts durations by how long they were.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One for each bound; what is longer than all is only in `count`.
    buckets: [AtomicU64; BOUNDS_MS.len()],
    count: AtomicU64,
    sum_us: AtomicU64,
}

impl Histogram {
    /// Counts one more.
    pub fn observe(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MS.iter().position(|bound| us <= bound * 1000);
        if let Some(bucket) = bucket {
            self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// How the values of a metric behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts of durations.
    Histogram,
}

/// Labels of a sample: name and value.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// A page of metrics in Prometheus' text format.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

impl Page {
    /// Begins a metric; its samples follow.
    pub fn metric(&mut self, name: &str, kind: MetricKind, help: &str) {
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    /// A sample of the metric that was begun.
    pub fn sample(&mut self, name: &str, labels: Labels<'_>, value: impl Display) {
        let labels = braced(labels, None);
        self.line(format_args!("{name}{labels} {value}"));
    }

    /// A metric with one sample.
    pub fn single(&mut self, name: &str, kind: MetricKind, help: &str, value: impl Display) {
        self.metric(name, kind, help);
        self.sample(name, &[], value);
    }

    /// The samples of a histogram.
    pub fn histogram(&mut self, name: &str, labels: Labels<'_>, histogram: &Histogram) {
        // Read first, so that no bucket holds more than all.
        let mut sum = 0;
        let buckets: Vec<u64> = histogram
            .buckets
            .iter()
            .map(|bucket| {
                sum += bucket.load(Ordering::Relaxed);
                sum
            })
            .collect();
        for (bound, value) in BOUNDS_MS.iter().zip(&buckets) {
            let bound = (*bound as f64 / 1000.0).to_string();
            let labels = braced(labels, Some(&bound));
            self.line(format_args!("{name}_bucket{labels} {value}"));
        }
        let all = histogram.count().max(sum);
        let infinite = braced(labels, Some("+Inf"));
        self.line(format_args!("{name}_bucket{infinite} {all}"));
        let labels = braced(labels, None);
        let seconds = histogram.sum_us.load(Ordering::Relaxed) as f64 / 1e6;
        self.line(format_args!("{name}_sum{labels} {seconds}"));
        self.line(format_args!("{name}_count{labels} {all}"));
    }

    /// The whole page.
    pub fn into_text(self) -> String {
        self.text
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{line}");
    }
}

fn braced(labels: Labels<'_>, bound: Option<&str>) -> String {
    let bound = bound.map(|bound| ("le", bound));
    let mut text = String::new();
    for (name, value) in labels.iter().copied().chain(bound) {
        text.push(if text.is_empty() { '{' } else { ',' });
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        // Writing to a string cannot fail.
        let _ = write!(text, "{name}=\"{value}\"");
    }
    if !text.is_empty() {
        text.push('}');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_as_prometheus_reads_it() {
        let counter = Counter::default();
        counter.count();
        let mut page = Page::default();
        page.single("a_total", MetricKind::Counter, "All.", counter.value());
        page.metric("b", MetricKind::Gauge, "Some.");
        page.sample("b", &[("x", "1"), ("y", "\"\\\n")], 2.5);
        let text = page.into_text();
        assert_eq!(
            text,
            "# HELP a_total All.\n# TYPE a_total counter\na_total 1\n\
             # HELP b Some.\n# TYPE b gauge\nb{x=\"1\",y=\"\\\"\\\\\\n\"} 2.5\n"
        );
    }

    #[test]
    fn buckets_hold_what_is_shorter() {
        let histogram = Histogram::default();
        for ms in [1, 3, 4, 1_000_000] {
            histogram.observe(Duration::from_millis(ms));
        }
        let mut page = Page::default();
        page.histogram("h", &[("m", "x")], &histogram);
        let text = page.into_text();
        let value = |sample: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {sample} in {text}")).to_owned()
        };
        assert_eq!(value("h_bucket{m=\"x\",le=\"0.001\"}"), "1");
        assert_eq!(value("h_bucket{m=\"x\",le=\"0.005\"}"), "3");
        assert_eq!(value("h_bucket{m=\"x\",le=\"120\"}"), "3");
        assert_eq!(value("h_bucket{m=\"x\",le=\"+Inf\"}"), "4");
        assert_eq!(value("h_sum{m=\"x\"}"), "1000.008");
        assert_eq!(value("h_count{m=\"x\"}"), "4");
    }
}
