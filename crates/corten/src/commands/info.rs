//! `corten info`: what the daemon found on this machine.

use std::collections::BTreeMap;

use corten_api::corten::{Fact, Finding, InfoRequest, Severity};
use serde_json::{Value, json};

use crate::client::Place;
use crate::error::{Doing, Result};
use crate::output::{self, Output, printable};

/// Tell what the daemon found on this machine
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    output: Output,
}

impl Arguments {
    /// Prints it.
    pub async fn run(self, place: &Place) -> Result<u8> {
        let daemon = place.connect().await?;
        let answer = daemon.calls().info(InfoRequest {}).await;
        let info = answer.doing("ask the daemon about this machine")?.into_inner();
        if self.output.json() {
            let findings: Vec<_> = info.findings.iter().map(finding_json).collect();
            output::print_json(&json!({ "facts": facts_json(&info.facts), "findings": findings }))?;
        } else {
            output::print(&facts_text(&info.facts))?;
            if !info.findings.is_empty() {
                let not_so = match info.findings.len() {
                    1 => "1 thing is not as it should be".to_owned(),
                    number => format!("{number} things are not as they should be"),
                };
                output::print(&format!("\n{not_so}: see 'corten doctor'\n"))?;
            }
        }
        Ok(0)
    }
}

/// By group: a heading, then its facts, aligned.
fn facts_text(facts: &[Fact]) -> String {
    let width = facts.iter().map(|fact| fact.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    let mut group = "";
    for fact in facts {
        if fact.group != group {
            group = &fact.group;
            text += &format!("{}\n", printable(group));
        }
        text += &format!("  {:width$}   {}\n", printable(&fact.name), printable(&fact.value));
    }
    text
}

fn facts_json(facts: &[Fact]) -> Value {
    let mut groups: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    for fact in facts {
        groups.entry(&fact.group).or_default().insert(&fact.name, &fact.value);
    }
    json!(groups)
}

/// A finding, for programs.
pub fn finding_json(finding: &Finding) -> Value {
    json!({
        "severity": severity(finding.severity()),
        "subject": finding.subject,
        "text": finding.text,
        "advice": finding.advice,
    })
}

/// How bad a finding is, in a word.
pub fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Unspecified | Severity::Hint => "hint",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(group: &str, name: &str, value: &str) -> Fact {
        Fact { group: group.into(), name: name.into(), value: value.into() }
    }

    #[test]
    fn facts_are_grouped() {
        let facts = [
            fact("daemon", "version", "0.1.0"),
            fact("daemon", "state directory", "/run/corten"),
            fact("kernel", "release", "6.18"),
        ];
        assert_eq!(
            facts_text(&facts),
            "daemon\n  version           0.1.0\n  state directory   /run/corten\n\
             kernel\n  release           6.18\n"
        );
        assert_eq!(facts_json(&facts)["kernel"]["release"], "6.18");
    }
}
