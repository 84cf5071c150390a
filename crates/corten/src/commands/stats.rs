//! `corten stats`: what containers use.

use std::io::IsTerminal;
use std::time::Duration;

use corten_api::corten::{ContainerUsage, StatsRequest};
use serde_json::{Value, json};

use crate::client::{Daemon, Place};
use crate::error::{Doing, Result};
use crate::output::{self, Output, Table, short_id, size};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Goes to the first line and clears what was below.
const FROM_THE_TOP: &str = "\x1b[H\x1b[J";

/// Show what running containers use
///
/// At a terminal it is shown anew every second, until Ctrl-C.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Show it once
    #[arg(long)]
    no_stream: bool,
    #[command(flatten)]
    output: Output,
    /// Their names or ids [default: all that run]
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Arguments {
    /// Shows it.
    pub async fn run(self, place: &Place) -> Result<u8> {
        let daemon = place.connect().await?;
        if self.output.json() {
            let usage = self.look(&daemon).await?;
            output::print_json(&usage.iter().map(row).collect::<Vec<_>>())?;
            return Ok(0);
        }
        if self.no_stream || !std::io::stdout().is_terminal() {
            output::print(&table(&self.look(&daemon).await?))?;
            return Ok(0);
        }
        loop {
            output::print(&format!("{FROM_THE_TOP}{}", table(&self.look(&daemon).await?)))?;
            tokio::time::sleep(INTERVAL).await;
        }
    }

    async fn look(&self, daemon: &Daemon) -> Result<Vec<ContainerUsage>> {
        let request =
            StatsRequest { namespace: daemon.space(), containers: self.containers.clone() };
        let answer = daemon.calls().stats(request).await;
        Ok(answer.doing("ask what containers use")?.into_inner().containers)
    }
}

fn table(usage: &[ContainerUsage]) -> String {
    let headings =
        ["CONTAINER ID", "NAME", "CPU", "MEMORY", "LIMIT", "NETWORK IN/OUT", "DISK IN/OUT", "PIDS"];
    let mut table = Table::new(headings);
    let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), size);
    let both = |one, other| format!("{} / {}", bytes(one), bytes(other));
    for one in usage {
        table.row([
            short_id(&one.id).to_owned(),
            one.name.clone(),
            one.nano_cpus
                .map_or_else(|| "-".to_owned(), |nano| format!("{:.1}%", nano as f64 / 1e7)),
            bytes(one.memory_bytes),
            bytes(one.memory_limit_bytes),
            both(one.received_bytes, one.sent_bytes),
            both(one.read_bytes, one.written_bytes),
            one.pids.map_or_else(|| "-".to_owned(), |pids| pids.to_string()),
        ]);
    }
    table.render()
}

fn row(one: &ContainerUsage) -> Value {
    json!({
        "id": one.id,
        "name": one.name,
        "podId": one.pod_id,
        "podName": one.pod_name,
        "at": output::rfc3339(one.at_ns),
        "cpuNanoseconds": one.cpu_ns,
        "nanoCpus": one.nano_cpus,
        "memoryBytes": one.memory_bytes,
        "memoryLimitBytes": one.memory_limit_bytes,
        "receivedBytes": one.received_bytes,
        "sentBytes": one.sent_bytes,
        "readBytes": one.read_bytes,
        "writtenBytes": one.written_bytes,
        "layerBytes": one.layer_bytes,
        "pids": one.pids,
        "pidsLimit": one.pids_limit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_counted_is_a_dash() {
        let one = ContainerUsage {
            id: "0123456789abcdef".into(),
            name: "web".into(),
            nano_cpus: Some(1_255_000_000),
            memory_bytes: Some(7_470_000),
            pids: Some(3),
            ..ContainerUsage::default()
        };
        let text = table(&[one]);
        let line = text.lines().nth(1).unwrap();
        assert!(line.starts_with("0123456789abc   web    125.5%   7.47 MB"), "{line}");
        assert!(line.ends_with("- / -            - / -         3"), "{line:?}");
    }
}
