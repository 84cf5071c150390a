//! `corten ps`: the containers.

use std::collections::BTreeMap;

use corten_api::corten::{ContainerState, ContainerSummary, ListContainersRequest};
use serde::Serialize;

use crate::client::Place;
use crate::error::{Doing, Result};
use crate::limits::COMMAND_CHARS_MAX;
use crate::output::{self, Output, Table, ago, rfc3339, short_id, shortened, span};
use crate::parse;

/// List containers
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Those too that do not run
    #[arg(short, long)]
    all: bool,
    /// Print ids only
    #[arg(short, long, conflicts_with = "output")]
    quiet: bool,
    /// Only those with this label; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::label)]
    label: Vec<(String, String)>,
    /// Cut nothing short
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    output: Output,
}

/// A container, for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    id: &'a str,
    name: &'a str,
    namespace: &'a str,
    image: &'a str,
    image_id: &'a str,
    command: &'a [String],
    state: &'static str,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    addresses: &'a [String],
    ports: Vec<Port<'a>>,
    labels: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    sandbox_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pod: &'a str,
}

/// A published port, for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Port<'a> {
    protocol: &'static str,
    host_ip: &'a str,
    host_port: u32,
    container_port: u32,
}

impl Arguments {
    /// Prints them.
    pub async fn run(self, place: &Place) -> Result<u8> {
        let daemon = place.connect().await?;
        let request = ListContainersRequest {
            namespace: daemon.space(),
            all: self.all,
            labels: self.label.iter().cloned().collect(),
        };
        let answer = daemon.calls().list_containers(request).await.doing("list containers")?;
        let containers = answer.into_inner().containers;
        if self.quiet {
            let id = |container: &ContainerSummary| {
                let id = if self.no_trunc { &container.id } else { short_id(&container.id) };
                format!("{id}\n")
            };
            output::print(&containers.iter().map(id).collect::<String>())?;
        } else if self.output.json() {
            output::print_json(&containers.iter().map(row).collect::<Vec<_>>())?;
        } else {
            output::print(&table(&containers, self.no_trunc, output::now_ns()))?;
        }
        Ok(0)
    }
}

fn table(containers: &[ContainerSummary], whole: bool, now_ns: i64) -> String {
    // Only what a kubelet runs has pods, and only what people run has ports.
    let pods = containers.iter().any(|container| !container.pod.is_empty());
    let headings = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAME"];
    let mut table = Table::new(headings.into_iter().chain(pods.then_some("POD")));
    for container in containers {
        let command = container.command.join(" ");
        let (id, command) = if whole {
            (container.id.clone(), command)
        } else {
            (short_id(&container.id).to_owned(), shortened(&command, COMMAND_CHARS_MAX))
        };
        // One that has ended holds no port.
        let running = container.state() == ContainerState::Running;
        let ports = container.ports.iter().filter(|_| running).map(output::port);
        let ports = ports.collect::<Vec<_>>().join(", ");
        let created = ago(container.created_at_ns, now_ns);
        let status = status(container, now_ns);
        let image = image(&container.image, whole);
        let cells = [id, image, command, created, status, ports, container.name.clone()];
        table.row(cells.into_iter().chain(pods.then(|| container.pod.clone())));
    }
    table.render()
}

/// An image that is named by its id is cut as ids are.
fn image(name: &str, whole: bool) -> String {
    if !whole && name.starts_with("sha256:") { short_id(name).to_owned() } else { name.to_owned() }
}

fn status(container: &ContainerSummary, now_ns: i64) -> String {
    match container.state() {
        ContainerState::Unspecified => "Unknown".to_owned(),
        ContainerState::Created => "Created".to_owned(),
        ContainerState::Running => format!("Up {}", span(container.started_at_ns, now_ns)),
        ContainerState::Exited => {
            let code = container.exit_code;
            let code = match container.reason.as_str() {
                // They say no more than the code does.
                "" | "Completed" | "Error" => code.to_string(),
                reason => format!("{code}, {reason}"),
            };
            format!("Exited ({code}) {}", ago(container.finished_at_ns, now_ns)).trim_end().into()
        }
    }
}

fn row(container: &ContainerSummary) -> Row<'_> {
    let state = container.state();
    let exited = state == ContainerState::Exited;
    let time = |time_ns: i64| (time_ns != 0).then(|| rfc3339(time_ns));
    Row {
        id: &container.id,
        name: &container.name,
        namespace: &container.namespace,
        image: &container.image,
        image_id: &container.image_id,
        command: &container.command,
        state: match state {
            ContainerState::Unspecified => "unknown",
            ContainerState::Created => "created",
            ContainerState::Running => "running",
            ContainerState::Exited => "exited",
        },
        created_at: rfc3339(container.created_at_ns),
        started_at: time(container.started_at_ns),
        finished_at: time(container.finished_at_ns),
        exit_code: exited.then_some(container.exit_code),
        reason: &container.reason,
        addresses: &container.addresses,
        ports: container
            .ports
            .iter()
            .map(|port| Port {
                protocol: output::protocol(port.protocol()),
                host_ip: &port.host_ip,
                host_port: port.host_port,
                container_port: port.container_port,
            })
            .collect(),
        labels: container.labels.iter().map(|(key, value)| (&**key, &**value)).collect(),
        pid: (container.pid != 0).then_some(container.pid),
        sandbox_id: &container.sandbox_id,
        pod: &container.pod,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_api::corten::PortMapping;

    const SECOND: i64 = 1_000_000_000;

    fn running() -> ContainerSummary {
        ContainerSummary {
            id: "0123456789abcdef0123456789abcdef".into(),
            name: "web".into(),
            image: "docker.io/library/nginx:latest".into(),
            command: vec!["sh".into(), "-c".into(), "echo a; sleep 1000; echo b; sleep 2".into()],
            state: ContainerState::Running.into(),
            created_at_ns: SECOND,
            started_at_ns: 10 * SECOND,
            ports: vec![PortMapping { container_port: 80, host_port: 8080, ..Default::default() }],
            pid: 77,
            ..Default::default()
        }
    }

    fn ended(reason: &str) -> ContainerSummary {
        ContainerSummary {
            state: ContainerState::Exited.into(),
            finished_at_ns: 70 * SECOND,
            exit_code: 137,
            reason: reason.into(),
            pid: 0,
            pod: "kube-system/dns".into(),
            ..running()
        }
    }

    #[test]
    fn people_see_what_they_need() {
        let text = table(&[running()], false, 130 * SECOND);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].ends_with("NAME"), "{text}");
        for part in
            ["0123456789abc  ", "sh -c echo a; sleep 1000; echo…", "2 minutes ago", "Up 2 minutes"]
        {
            assert!(lines[1].contains(part), "{part}: {text}");
        }
        assert!(lines[1].ends_with("8080->80/tcp   web"), "{text}");
        let text = table(&[running(), ended("Error")], true, 130 * SECOND);
        assert!(text.contains("0123456789abcdef0123456789abcdef"), "{text}");
        assert!(text.contains("kube-system/dns"), "{text}");
    }

    #[test]
    fn how_it_ended_is_said() {
        let now = 73 * SECOND;
        assert_eq!(status(&ended("Error"), now), "Exited (137) 3 seconds ago");
        assert_eq!(status(&ended("OOMKilled"), now), "Exited (137, OOMKilled) 3 seconds ago");
    }

    #[test]
    fn programs_see_only_what_is_so() {
        let value = serde_json::to_value(row(&running())).unwrap();
        assert_eq!(value["state"], "running");
        assert_eq!(value["pid"], 77);
        assert_eq!(value["startedAt"], "1970-01-01T00:00:10.000000000Z");
        assert_eq!(value["ports"][0]["hostPort"], 8080);
        assert!(value.get("exitCode").is_none() && value.get("finishedAt").is_none());
        let value = serde_json::to_value(row(&ended("Error"))).unwrap();
        assert_eq!(value["exitCode"], 137);
        assert!(value.get("pid").is_none());
    }
}
