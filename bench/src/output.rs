//! The files of a report.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::plot;
use crate::report::{Report, markdown};

/// The figures, for programs.
pub const FIGURES: &str = "bench.json";
/// The tables, for people.
pub const TABLES: &str = "README.md";

/// Writes a report into a directory.
///
/// # Errors
/// If it cannot be written.
pub fn write(report: &Report, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("unable to make {}", directory.display()))?;
    report.write(&directory.join(FIGURES))?;
    write_views(report, directory)
}

/// Writes what people look at: tables and plots.
///
/// # Errors
/// If it cannot be written.
pub fn write_views(report: &Report, directory: &Path) -> Result<()> {
    let mut text = markdown(report);
    for name in plot::write(report, directory)? {
        text += &format!("\n![{name}]({name})\n");
    }
    let tables = directory.join(TABLES);
    fs::write(&tables, text).with_context(|| format!("unable to write {}", tables.display()))
}
