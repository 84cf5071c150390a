//! `cargo xtask tidy`: the rules of the house that no compiler checks.
//!
//! Each finding says where, what, and what to do instead.

mod edges;
mod metadata;
mod packages;
mod sources;
mod text;

use anyhow::{Result, bail};

/// The command.
pub fn main(arguments: &[String]) -> Result<()> {
    if !arguments.is_empty() {
        bail!("usage: cargo xtask tidy");
    }
    let findings = check()?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        count => bail!("{count} findings"),
    }
}

/// All findings, as lines for people.
pub fn check() -> Result<Vec<String>> {
    let metadata = metadata::Metadata::read()?;
    let mut findings = edges::check(&metadata)?;
    findings.extend(sources::check()?);
    findings.extend(packages::check(&metadata)?);
    Ok(findings)
}
