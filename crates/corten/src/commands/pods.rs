//! `corten pods`: Kubernetes' pods.

use std::collections::BTreeMap;

use corten_api::corten::{ListPodsRequest, PodSummary};
use serde::Serialize;

use crate::client::Place;
use crate::error::{Doing, Result};
use crate::output::{self, Output, Table, ago, rfc3339, short_id};

/// Where a kubelet's pods are: a list of people's own would always be empty.
const KUBERNETES: &str = "k8s.io";

/// List Kubernetes' pods
///
/// Unless a namespace is named, these are the kubelet's: those of k8s.io.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Those too that are stopped
    #[arg(short, long)]
    all: bool,
    /// Print ids only
    #[arg(short, long, conflicts_with = "output")]
    quiet: bool,
    /// Cut nothing short
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    output: Output,
}

/// A pod, for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    id: &'a str,
    name: &'a str,
    namespace: &'a str,
    uid: &'a str,
    attempt: u32,
    ready: bool,
    created_at: String,
    addresses: &'a [String],
    containers: u32,
    running: u32,
    labels: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    handler: &'a str,
}

impl Arguments {
    /// Prints them.
    pub async fn run(self, place: &Place) -> Result<u8> {
        let daemon = place.connect().await?;
        let namespace = match daemon.space() {
            space if space.is_empty() => KUBERNETES.to_owned(),
            space => space,
        };
        let request = ListPodsRequest { namespace, all: self.all };
        let pods = daemon.calls().list_pods(request).await.doing("list pods")?.into_inner().pods;
        let id = |pod: &PodSummary| {
            if self.no_trunc { pod.id.clone() } else { short_id(&pod.id).to_owned() }
        };
        if self.quiet {
            output::print(&pods.iter().map(|pod| format!("{}\n", id(pod))).collect::<String>())?;
        } else if self.output.json() {
            output::print_json(&pods.iter().map(row).collect::<Vec<_>>())?;
        } else {
            output::print(&table(&pods, id, output::now_ns()))?;
        }
        Ok(0)
    }
}

fn table(pods: &[PodSummary], id: impl Fn(&PodSummary) -> String, now_ns: i64) -> String {
    let headings = ["POD ID", "NAMESPACE", "NAME", "CREATED", "STATUS", "RUNNING", "ADDRESS"];
    let mut table = Table::new(headings);
    for pod in pods {
        table.row([
            id(pod),
            pod.pod_namespace.clone(),
            pod.name.clone(),
            ago(pod.created_at_ns, now_ns),
            if pod.ready { "Ready" } else { "Stopped" }.to_owned(),
            format!("{} of {}", pod.running, pod.containers),
            pod.addresses.first().cloned().unwrap_or_default(),
        ]);
    }
    table.render()
}

fn row(pod: &PodSummary) -> Row<'_> {
    Row {
        id: &pod.id,
        name: &pod.name,
        namespace: &pod.pod_namespace,
        uid: &pod.uid,
        attempt: pod.attempt,
        ready: pod.ready,
        created_at: rfc3339(pod.created_at_ns),
        addresses: &pod.addresses,
        containers: pod.containers,
        running: pod.running,
        labels: pod.labels.iter().map(|(key, value)| (&**key, &**value)).collect(),
        handler: &pod.handler,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_where_a_pod_is() {
        let pod = PodSummary {
            id: "0123456789abcdef".into(),
            name: "dns-1".into(),
            pod_namespace: "kube-system".into(),
            ready: true,
            created_at_ns: 1_000_000_000,
            addresses: vec!["10.0.0.2".into(), "fd00::2".into()],
            containers: 2,
            running: 1,
            ..Default::default()
        };
        let text = table(&[pod], |pod| pod.id.clone(), 4_000_000_000);
        let row = text.lines().nth(1).unwrap();
        assert_eq!(
            row,
            "0123456789abcdef   kube-system   dns-1   3 seconds ago   Ready    1 of 2    10.0.0.2"
        );
    }
}
