//! Figures as a table for people and as JSON for programs.

use std::fmt;

use crate::facts::{self, Facts};

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Milliseconds,
    /// 1024 bytes.
    Kilobytes,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Kilobytes => "kB",
        }
    }

    fn decimals(self) -> usize {
        match self {
            Self::Milliseconds => 2,
            Self::Kilobytes => 0,
        }
    }
}

/// Everything that was measured.
pub struct Report {
    facts: Facts,
    sections: Vec<Section>,
}

struct Section {
    network: String,
    rows: Vec<Row>,
}

struct Row {
    name: String,
    unit: Unit,
    /// Ascending.
    values: Vec<f64>,
}

impl Report {
    /// A report without figures.
    pub fn new(facts: Facts) -> Self {
        Self { facts, sections: Vec::new() }
    }

    /// The rows that follow were measured with this network.
    pub fn section(&mut self, network: &str) {
        self.sections.push(Section { network: network.to_owned(), rows: Vec::new() });
    }

    /// Adds what was measured, one value for each run.
    pub fn row(&mut self, name: &str, unit: Unit, mut values: Vec<f64>) {
        values.sort_by(f64::total_cmp);
        let section = self.sections.last_mut().expect("a section was begun");
        section.rows.push(Row { name: name.to_owned(), unit, values });
    }

    /// Says how busy the machine was.
    pub fn finish(&mut self) {
        self.facts.push(("load after", facts::load()));
    }

    /// The figures for programs.
    pub fn json(&self) -> String {
        let facts: serde_json::Map<_, _> =
            self.facts.iter().map(|(name, value)| ((*name).into(), value.clone().into())).collect();
        let rows = self.sections.iter().flat_map(|section| {
            section.rows.iter().map(|row| {
                serde_json::json!({
                    "network": section.network,
                    "name": row.name.trim(),
                    "unit": row.unit.name(),
                    "runs": row.values.len(),
                    "median": row.quantile(0.5),
                    "p90": row.quantile(0.9),
                    "min": row.quantile(0.0),
                })
            })
        });
        let all = serde_json::json!({ "machine": facts, "figures": rows.collect::<Vec<_>>() });
        format!("{all:#}\n")
    }
}

impl Row {
    /// The value below which this share of the values is.
    fn quantile(&self, share: f64) -> f64 {
        let last = self.values.len().saturating_sub(1);
        let at = (share * last as f64).round() as usize;
        self.values.get(at).copied().unwrap_or(f64::NAN)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.facts {
            writeln!(f, "{name:<14} {value}")?;
        }
        for section in &self.sections {
            let title = &section.network;
            writeln!(f, "\n{title:<34} {:>9} {:>9} {:>9} {:>5}", "median", "p90", "min", "runs")?;
            for row in &section.rows {
                let digits = row.unit.decimals();
                let [median, p90, min] = [0.5, 0.9, 0.0].map(|share| row.quantile(share));
                writeln!(
                    f,
                    "{:<34} {median:>9.digits$} {p90:>9.digits$} {min:>9.digits$} {:>5} {}",
                    row.name,
                    row.values.len(),
                    row.unit.name(),
                )?;
            }
        }
        Ok(())
    }
}
