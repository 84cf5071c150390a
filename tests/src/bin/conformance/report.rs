//! What critest found, held against what we expect of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// Specs that cannot run, as `tests/conformance.toml` lists them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    cannot: Vec<Group>,
}

/// Specs that cannot run for the same reason.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    /// Why, in words.
    reason: String,
    /// A file: where it is there, they can run.
    unless: Option<String>,
    specs: Vec<String>,
}

/// One suite of Ginkgo's JSON report.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    /// `null` where nothing ran.
    spec_reports: Option<Vec<Spec>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    #[serde(default)]
    container_hierarchy_texts: Option<Vec<String>>,
    #[serde(default)]
    leaf_node_type: String,
    #[serde(default)]
    leaf_node_text: String,
    state: String,
    #[serde(default)]
    run_time: u64,
    #[serde(default)]
    failure: Option<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    #[serde(default)]
    message: String,
    location: Location,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Location {
    #[serde(default)]
    file_name: String,
    #[serde(default)]
    line_number: u64,
}

/// What came of a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How many specs passed.
    pub passed: usize,
    /// How many failed.
    pub failed: usize,
    /// How many did not run, by reason.
    pub not_run: BTreeMap<String, usize>,
    /// What is not as it should be, a line each.
    pub complaints: Vec<String>,
    /// The specs that took longest: milliseconds and name.
    pub slow: Vec<(u64, String)>,
}

/// How many lines of a failure are told.
const LINES: usize = 6;
/// How many slow specs are told.
const SLOW: usize = 12;

impl Verdict {
    /// Judges a report. Of a run of `all` specs, each must have run or be
    /// listed.
    pub fn of(report: &str, listed: &str, all: bool) -> Result<Self> {
        let suites: Vec<Suite> =
            serde_json::from_str(report).context("critest wrote a report that is none")?;
        let listed: Listed =
            toml::from_str(listed).context("unable to read tests/conformance.toml")?;
        let mut reasons: BTreeMap<&str, &str> = BTreeMap::new();
        for group in &listed.cannot {
            if !group.unless.as_ref().is_some_and(|file| Path::new(file).exists()) {
                reasons
                    .extend(group.specs.iter().map(|spec| (spec.as_str(), group.reason.as_str())));
            }
        }
        let mut verdict = Self::default();
        let mut seen = BTreeSet::new();
        for spec in suites.iter().filter_map(|suite| suite.spec_reports.as_ref()).flatten() {
            let name = spec.name();
            verdict.judge(spec, &name, reasons.get(name.as_str()).copied(), all);
            seen.insert(name);
        }
        if all {
            let gone = reasons.keys().filter(|name| !seen.contains(**name));
            verdict
                .complaints
                .extend(gone.map(|name| format!("listed, but there is none: {name}")));
        }
        verdict.slow.sort_by(|a, b| b.cmp(a));
        verdict.slow.truncate(SLOW);
        Ok(verdict)
    }

    fn judge(&mut self, spec: &Spec, name: &str, reason: Option<&str>, all: bool) {
        let is_test = spec.leaf_node_type == "It";
        match (spec.state.as_str(), reason) {
            ("passed", _) if !is_test => {}
            ("passed", reason) => {
                self.passed += 1;
                self.slow.push((spec.run_time / 1_000_000, name.to_owned()));
                if reason.is_some() {
                    self.complaints
                        .push(format!("passed, but is listed as one that cannot: {name}"));
                }
            }
            ("skipped" | "pending", Some(reason)) => {
                *self.not_run.entry(reason.to_owned()).or_default() += 1;
            }
            ("skipped" | "pending", None) => {
                *self.not_run.entry("not asked for".to_owned()).or_default() += 1;
                // What a focus leaves out says nothing; a spec that gives up says why.
                if all || spec.failure.is_some() {
                    self.complaints.push(format!("did not run, and is not listed: {name}"));
                }
            }
            (_, Some(reason)) => *self.not_run.entry(reason.to_owned()).or_default() += 1,
            (state, None) => {
                self.failed += 1;
                let told = spec.failure.as_ref().map(Failure::to_string).unwrap_or_default();
                self.complaints.push(format!("{state}: {name}\n    {told}"));
            }
        }
    }
}

impl Spec {
    fn name(&self) -> String {
        let texts = self.container_hierarchy_texts.iter().flatten();
        let mut words: Vec<&str> = texts.map(String::as_str).collect();
        if self.leaf_node_text.is_empty() {
            words.push(&self.leaf_node_type);
        } else {
            words.push(&self.leaf_node_text);
        }
        words.join(" ")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.location.file_name.rsplit('/').next().unwrap_or_default();
        // From the first brace on these are the insides of Go's errors.
        let lines = self.message.lines().map(str::trim).take_while(|line| *line != "{");
        let lines: Vec<&str> = lines.filter(|line| !line.starts_with("<*")).take(LINES).collect();
        write!(f, "{} ({file}:{})", lines.join("; "), self.location.line_number)
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict;

    const LISTED: &str = r#"
        [[cannot]]
        reason = "no such kernel"
        specs = ["group cannot", "group gone"]
        [[cannot]]
        reason = "no root"
        unless = "/"
        specs = ["group can"]
    "#;

    fn spec(name: &str, state: &str) -> String {
        format!(
            r#"{{"ContainerHierarchyTexts":["group"],"LeafNodeType":"It","LeafNodeText":"{name}",
            "State":"{state}","RunTime":5000000,
            "Failure":{{"Message":"why","Location":{{"FileName":"/a/b.go","LineNumber":7}}}}}}"#
        )
    }

    fn verdict(specs: &[String], all: bool) -> Verdict {
        let report = format!(r#"[{{"SpecReports":[{}]}}]"#, specs.join(","));
        Verdict::of(&report, LISTED, all).unwrap()
    }

    #[test]
    fn all_as_listed() {
        let specs = [spec("can", "passed"), spec("cannot", "skipped"), spec("gone", "failed")];
        let verdict = verdict(&specs, true);
        assert_eq!((verdict.passed, verdict.failed), (1, 0));
        assert_eq!(verdict.not_run.get("no such kernel"), Some(&2));
        assert_eq!(verdict.complaints, Vec::<String>::new());
        assert_eq!(verdict.slow, [(5, "group can".to_owned())]);
    }

    #[test]
    fn whatever_differs_is_complained_of() {
        let specs = [spec("can", "skipped"), spec("cannot", "passed"), spec("new", "panicked")];
        let found = verdict(&specs, true);
        assert_eq!((found.passed, found.failed), (1, 1));
        assert_eq!(
            found.complaints,
            [
                "did not run, and is not listed: group can",
                "passed, but is listed as one that cannot: group cannot",
                "panicked: group new\n    why (b.go:7)",
                "listed, but there is none: group gone",
            ]
        );
        // Of a part of the specs, others are not expected to run; but one that
        // was, and gave up, says why.
        assert_eq!(verdict(&specs, false).complaints, found.complaints[..3]);
        let left_out =
            r#"{"ContainerHierarchyTexts":["group"],"LeafNodeText":"can","State":"skipped"}"#;
        assert!(verdict(&[left_out.to_owned()], false).complaints.is_empty());
    }
}
