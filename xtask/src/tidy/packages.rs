//! Licences of dependencies, and packages that are there in two versions, as
//! `deny.toml` allows them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use super::metadata::Metadata;
use crate::shell;

pub fn check(metadata: &Metadata) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(shell::root().join("deny.toml"))
        .context("unable to read deny.toml")?;
    let rules: toml::Table = text.parse().context("deny.toml is no TOML")?;
    let allowed: Vec<&str> =
        array(&rules, "licenses", "allow").filter_map(toml::Value::as_str).collect();
    let skipped: Vec<&str> = array(&rules, "bans", "skip").filter_map(skipped_name).collect();
    let mut findings = Vec::new();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in metadata.packages.iter().filter(|package| package.foreign) {
        versions.entry(&package.name).or_default().push(&package.version);
        let licence = package.licence.as_deref().unwrap_or("no licence");
        if !permits(licence, &allowed) {
            findings.push(format!(
                "{} {}: licence {licence:?}; use another crate, or allow it in deny.toml",
                package.name, package.version
            ));
        }
    }
    for (name, mut versions) in versions {
        versions.sort_unstable();
        if versions.len() > 1 && !skipped.contains(&name) {
            findings.push(format!(
                "{name}: {} versions ({}); choose versions that agree, or give the reason in \
                 deny.toml (cargo tree --invert {name}@{})",
                versions.len(),
                versions.join(", "),
                versions[0]
            ));
        }
    }
    Ok(findings)
}

fn array<'a>(
    rules: &'a toml::Table,
    section: &str,
    key: &str,
) -> impl Iterator<Item = &'a toml::Value> {
    let list = rules.get(section).and_then(|section| section.get(key));
    list.and_then(toml::Value::as_array).into_iter().flatten()
}

/// `{ crate = "name@1", reason = "…" }`
fn skipped_name(entry: &toml::Value) -> Option<&str> {
    let name = entry.get("crate").unwrap_or(entry).as_str()?;
    name.split('@').next()
}

/// Whether a licence expression can be met with allowed licences alone.
fn permits(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words, allowed };
    parser.either() && parser.words.is_empty()
}

/// `a OR b AND c`: AND binds tighter.
struct Parser<'a> {
    words: &'a [&'a str],
    allowed: &'a [&'a str],
}

impl<'a> Parser<'a> {
    fn take(&mut self, word: &str) -> bool {
        match self.words.split_first() {
            Some((first, rest)) if *first == word => {
                self.words = rest;
                true
            }
            _ => false,
        }
    }

    fn next(&mut self) -> &'a str {
        match self.words.split_first() {
            Some((first, rest)) => {
                self.words = rest;
                first
            }
            None => "",
        }
    }

    fn either(&mut self) -> bool {
        let mut met = self.both();
        while self.take("OR") {
            met |= self.both();
        }
        met
    }

    fn both(&mut self) -> bool {
        let mut met = self.one();
        while self.take("AND") {
            met &= self.one();
        }
        met
    }

    fn one(&mut self) -> bool {
        if self.take("(") {
            let met = self.either();
            return self.take(")") && met;
        }
        let mut name = self.next().to_owned();
        if self.take("WITH") {
            name = format!("{name} WITH {}", self.next());
        }
        self.allowed.contains(&name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::permits;

    #[test]
    fn expressions() {
        let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "Unicode-3.0"];
        for good in [
            "MIT",
            "MIT/GPL-3.0",
            "GPL-3.0 OR MIT AND Apache-2.0",
            "(MIT OR GPL-3.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(permits(good, &allowed), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT", "MIT WITH x", "no licence"] {
            assert!(!permits(bad, &allowed), "{bad}");
        }
    }
}
