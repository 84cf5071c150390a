//! `corten doctor`: what is wrong with this machine, and what to do about it.

use corten_api::corten::{Finding, InfoRequest, Severity};
use serde_json::Value;

use super::info::{finding_json, severity};
use crate::client::Place;
use crate::error::{Doing, Error, Result};
use crate::output::{self, Output, printable};

/// Exit code where containers cannot run.
const EXIT_ILL: u8 = 1;

/// Tell what is wrong with this machine, and what to do about it
///
/// The exit code is 1 where containers cannot run.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    output: Output,
}

impl Arguments {
    /// Prints the findings. A daemon that cannot be reached is one.
    pub async fn run(self, place: &Place) -> Result<u8> {
        let findings = match findings(place).await {
            Ok(findings) => findings,
            Err(Error::Unreachable { socket, why }) => vec![Finding {
                severity: Severity::Error.into(),
                subject: "daemon".to_owned(),
                text: format!("it cannot be reached at {}", socket.display()),
                advice: why,
            }],
            Err(error) => return Err(error),
        };
        if self.output.json() {
            output::print_json(&findings.iter().map(finding_json).collect::<Vec<Value>>())?;
        } else {
            output::print(&text(&findings))?;
        }
        let ill = findings.iter().any(|finding| finding.severity() == Severity::Error);
        Ok(if ill { EXIT_ILL } else { 0 })
    }
}

async fn findings(place: &Place) -> Result<Vec<Finding>> {
    let daemon = place.connect().await?;
    let answer = daemon.calls().info(InfoRequest {}).await;
    let mut findings = answer.doing("ask the daemon about this machine")?.into_inner().findings;
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(findings)
}

fn text(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing is wrong: containers can run here\n".to_owned();
    }
    let mut text = String::new();
    for finding in findings {
        let (subject, said) = (printable(&finding.subject), printable(&finding.text));
        text += &format!("{:7}  {subject}: {said}\n", severity(finding.severity()));
        if !finding.advice.is_empty() {
            text += &format!("{:7}  → {}\n", "", printable(&finding.advice));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_have_advice() {
        let finding = Finding {
            severity: Severity::Warning.into(),
            subject: "pod network".into(),
            text: "no configuration".into(),
            advice: "install one".into(),
        };
        assert_eq!(
            text(&[finding]),
            "warning  pod network: no configuration\n         → install one\n"
        );
        assert!(text(&[]).contains("nothing is wrong"));
    }
}
