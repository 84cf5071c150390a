//! Figures of one kind, and what can be said of them.

use serde::{Deserialize, Serialize};

use super::Operation;

/// What a figure counts. Less is better, of each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Milliseconds.
    #[serde(rename = "ms")]
    Milliseconds,
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
    /// 1024 bytes.
    #[serde(rename = "kB")]
    Kilobytes,
}

impl Unit {
    /// As it stands behind a figure.
    pub fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Seconds => "s",
            Self::Kilobytes => "kB",
        }
    }
}

/// Figures of one runtime for one operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Name of the runtime.
    pub runtime: String,
    /// What was measured.
    pub operation: Operation,
    /// With how many pods, where that matters.
    pub pods: Option<u32>,
    /// What values count.
    pub unit: Unit,
    /// One for each run, in the order in which they were taken.
    pub values: Vec<f64>,
}

impl Series {
    /// Half of the values are below it, half above; with an even number of
    /// values the mean of the middle two. NaN if there is no value.
    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            odd if odd % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        }
    }

    /// Nine of ten values are not above it. NaN if there is no value.
    pub fn p90(&self) -> f64 {
        self.quantile(0.9)
    }

    /// Of a hundred values, ninety-nine are not above it: the largest, where
    /// there are fewer. NaN if there is no value.
    pub fn p99(&self) -> f64 {
        self.quantile(0.99)
    }

    /// The smallest value. NaN if there is none.
    pub fn min(&self) -> f64 {
        self.sorted().first().copied().unwrap_or(f64::NAN)
    }

    /// The smallest value that at least this share of all values does not
    /// exceed (nearest rank). NaN if there is no value.
    pub fn quantile(&self, share: f64) -> f64 {
        let sorted = self.sorted();
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    /// Ascending.
    pub fn sorted(&self) -> Vec<f64> {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        values
    }
}
