//! `corten events`: what happens to containers.

use corten_api::corten::events_response::Told;
use corten_api::corten::{Event, EventKind, EventsRequest};
use serde_json::json;

use crate::client::Place;
use crate::error::{Doing, Result};
use crate::output::{self, Output, printable, rfc3339, short_id};

/// Show what happens to containers
///
/// Goes on until Ctrl-C.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Begin with the event of this number; 0 for the oldest that is kept
    #[arg(long, value_name = "NUMBER")]
    since: Option<u64>,
    /// Show what has happened (as far as it is kept), and end
    #[arg(long)]
    past: bool,
    #[command(flatten)]
    output: Output,
}

impl Arguments {
    /// Shows it, a line for each event.
    pub async fn run(self, place: &Place) -> Result<u8> {
        let daemon = place.connect().await?;
        let since = if self.past { self.since.or(Some(0)) } else { self.since };
        let request = EventsRequest { namespace: daemon.space(), since, past_only: self.past };
        let doing = "follow what happens";
        let mut messages = daemon.calls().events(request).await.doing(doing)?.into_inner();
        while let Some(message) = messages.message().await.doing(doing)? {
            match message.told {
                Some(Told::Event(event)) if self.output.json() => {
                    output::print(&format!("{}\n", row(&event)))?;
                }
                Some(Told::Event(event)) => output::print(&format!("{}\n", line(&event)))?,
                Some(Told::Lost(number)) => {
                    eprintln!("corten: {number} events are not kept any more");
                }
                Some(Told::CaughtUp(_)) | None => {}
            }
        }
        Ok(0)
    }
}

fn kind(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Unspecified => "unknown",
        EventKind::Created => "created",
        EventKind::Started => "started",
        EventKind::OutOfMemory => "out-of-memory",
        EventKind::Stopped => "stopped",
        EventKind::Deleted => "deleted",
    }
}

fn line(event: &Event) -> String {
    let (what, id, name) = match event.container_id.as_str() {
        "" => ("pod", &event.pod_id, &event.pod_name),
        id => ("container", &id.to_owned(), &event.container_name),
    };
    let happened = kind(event.kind());
    let how = match event.kind() {
        EventKind::Stopped => format!(" ({}, {})", event.exit_code, printable(&event.reason)),
        _ => String::new(),
    };
    let of = if what == "container" && !event.pod_name.is_empty() {
        format!(" of pod {}", printable(&event.pod_name))
    } else {
        String::new()
    };
    let (time, id) = (rfc3339(event.at_ns), short_id(id));
    format!("{time} {what} {id} {} {happened}{how}{of}", printable(name))
}

fn row(event: &Event) -> serde_json::Value {
    json!({
        "sequence": event.sequence,
        "at": rfc3339(event.at_ns),
        "kind": kind(event.kind()),
        "namespace": event.namespace,
        "containerId": event.container_id,
        "containerName": event.container_name,
        "podId": event.pod_id,
        "podName": event.pod_name,
        "podNamespace": event.pod_namespace,
        "image": event.image,
        "exitCode": event.exit_code,
        "reason": event.reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_happened() {
        let event = Event {
            at_ns: 1_000_000_000,
            kind: EventKind::Stopped.into(),
            container_id: "0123456789abcdef".into(),
            container_name: "web".into(),
            exit_code: 137,
            reason: "OOMKilled".into(),
            ..Event::default()
        };
        let text = line(&event);
        assert!(text.ends_with("container 0123456789abc web stopped (137, OOMKilled)"), "{text}");
    }
}
