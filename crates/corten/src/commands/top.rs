//! `corten top`: the processes of a container.

use corten_api::corten::{Process, ProcessesRequest};
use serde_json::{Value, json};

use crate::client::Place;
use crate::error::{Doing, Result};
use crate::output::{self, Output, Table, size};

/// List the processes of a running container
///
/// Ids of processes and users are those of the host.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    output: Output,
    /// The container's name or id
    container: String,
}

impl Arguments {
    /// Lists them.
    pub async fn run(self, place: &Place) -> Result<u8> {
        let daemon = place.connect().await?;
        let request =
            ProcessesRequest { namespace: daemon.space(), container: self.container.clone() };
        let answer = daemon.calls().processes(request).await;
        let doing = format_args!("list the processes of {}", self.container);
        let all = answer.doing(doing)?.into_inner().processes;
        if self.output.json() {
            output::print_json(&all.iter().map(row).collect::<Vec<_>>())?;
        } else {
            output::print(&table(&all))?;
        }
        Ok(0)
    }
}

fn table(all: &[Process]) -> String {
    let mut table = Table::new(["PID", "PARENT", "USER", "STATE", "MEMORY", "CPU TIME", "COMMAND"]);
    for one in all {
        let seconds = one.cpu_ns / 1_000_000_000;
        let hundredths = one.cpu_ns / 10_000_000 % 100;
        table.row([
            one.pid.to_string(),
            one.parent.to_string(),
            one.uid.to_string(),
            one.state.clone(),
            size(one.memory_bytes),
            format!("{}:{:02}.{hundredths:02}", seconds / 60, seconds % 60),
            one.command.clone(),
        ]);
    }
    table.render()
}

fn row(one: &Process) -> Value {
    json!({
        "pid": one.pid,
        "parent": one.parent,
        "uid": one.uid,
        "state": one.state,
        "threads": one.threads,
        "cpuNanoseconds": one.cpu_ns,
        "memoryBytes": one.memory_bytes,
        "command": one.command,
    })
}
