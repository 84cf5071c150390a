//! What was measured: as data that programs read back, and as tables for
//! people.

pub mod history;
mod series;
mod table;

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

pub use series::{Series, Unit};
pub(crate) use table::number;
pub use table::{markdown, text};

/// Everything that was measured in one run of the bench.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The machine and the circumstances, in the order in which they are shown.
    pub facts: Vec<Fact>,
    /// What was measured, in the order of the table's columns.
    pub runtimes: Vec<Runtime>,
    /// The figures, in the order of the table's rows.
    pub series: Vec<Series>,
    /// What could not be measured.
    pub failures: Vec<Failure>,
}

/// Something that figures say nothing without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// `kernel`
    pub name: String,
    /// `6.18.5`
    pub value: String,
}

/// A runtime under test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    /// What series call it: `containerd+runc`.
    pub name: String,
    /// Whose it is.
    pub role: Role,
    /// How its pods get a network: `CNI bridge`.
    pub network: String,
    /// Its programs, each with its version: `containerd v2.4.2`.
    pub versions: Vec<String>,
}

/// Whose figures these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Ours.
    Corten,
    /// Somebody else's, measured in the same run.
    Peer,
    /// No runtime: the kernel's part of the work alone, measured in the same
    /// run.
    Floor,
    /// Somebody else's, measured earlier on another machine.
    History,
}

/// What is measured: the same in every runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Never changes, for programs: `pod-start`.
    pub key: String,
    /// For people: `pod start`. A part of what stands above it begins with
    /// two spaces.
    pub title: String,
}

impl Operation {
    /// An operation of this key and title.
    pub fn new(key: &str, title: &str) -> Self {
        Self { key: key.to_owned(), title: title.to_owned() }
    }
}

/// Something that a runtime did not do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Name of the runtime.
    pub runtime: String,
    /// What was tried, for people.
    pub operation: String,
    /// With how many pods, if that matters.
    pub pods: Option<u32>,
    /// Why it did not work.
    pub error: String,
}

impl Report {
    /// Notes something about the machine.
    pub fn fact(&mut self, name: &str, value: impl Into<String>) {
        self.facts.push(Fact { name: name.to_owned(), value: value.into() });
    }

    /// Adds values to those of the same runtime, operation and number of pods.
    /// A series without values is not kept.
    pub fn add(
        &mut self,
        runtime: &str,
        operation: &Operation,
        pods: Option<u32>,
        unit: Unit,
        values: impl IntoIterator<Item = f64>,
    ) {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return;
        }
        let known = self.series.iter_mut().find(|series| {
            series.runtime == runtime
                && series.operation.key == operation.key
                && series.pods == pods
        });
        match known {
            Some(series) => series.values.extend(values),
            None => self.series.push(Series {
                runtime: runtime.to_owned(),
                operation: operation.clone(),
                pods,
                unit,
                values: values.collect(),
            }),
        }
    }

    /// The series of a runtime, if it has one.
    pub fn find(&self, runtime: &str, key: &str, pods: Option<u32>) -> Option<&Series> {
        self.series.iter().find(|series| {
            series.runtime == runtime && series.operation.key == key && series.pods == pods
        })
    }

    /// The peer of this run with the smallest median.
    pub fn best_peer(&self, key: &str, pods: Option<u32>) -> Option<&Series> {
        let peers = self.runtimes.iter().filter(|runtime| runtime.role == Role::Peer);
        let theirs = peers.filter_map(|peer| self.find(&peer.name, key, pods));
        theirs.min_by(|a, b| a.median().total_cmp(&b.median()))
    }

    /// How many times the best peer's median is ours: above 1 we are ahead.
    /// Nothing if there is no peer, or no figure of ours above zero.
    pub fn ahead(&self, series: &Series) -> Option<f64> {
        let best = self.best_peer(&series.operation.key, series.pods)?;
        let ours = series.median();
        (ours > 0.0).then(|| best.median() / ours)
    }

    /// Rows of the table: each operation and number of pods once, in the order
    /// in which they were first measured.
    pub fn rows(&self) -> Vec<(&Operation, Option<u32>)> {
        let mut rows: Vec<(&Operation, Option<u32>)> = Vec::new();
        for series in &self.series {
            let row = (&series.operation, series.pods);
            if !rows.iter().any(|known| known.0.key == row.0.key && known.1 == row.1) {
                rows.push(row);
            }
        }
        rows
    }

    /// Reads what [`Report::write`] wrote.
    ///
    /// # Errors
    /// If there is no such file, or it is no report.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("unable to read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no report", path.display()))
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("unable to make JSON")?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("unable to write {}", path.display()))
    }
}

#[cfg(test)]
mod tests;
