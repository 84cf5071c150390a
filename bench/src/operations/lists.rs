//! What kubelets and Prometheus ask for again and again, against the number
//! of pods that there are.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use corten_api::cri;
use corten_tests::Client;

use super::{Key, catalogue as keys, fail, note};
use crate::measure::clock::ms;
use crate::report::{Report, Unit};
use crate::runtimes::Subject;

/// A list is not asked for any more after this time.
const ENOUGH: Duration = Duration::from_secs(5);

/// Kubelets take 16 MB in one message. Of metrics, a thousand pods have more:
/// what it costs to make them is measured nevertheless.
const ANSWER_BYTES_MAX: usize = 128 << 20;

/// Everything that lists, in the order of the table.
const LISTS: &[(Key, List)] = &[
    (keys::LIST_CONTAINERS, List::Containers),
    (keys::LIST_PODS, List::Pods),
    (keys::CONTAINER_STATS, List::ContainerStats),
    (keys::POD_STATS, List::PodStats),
    (keys::METRICS, List::Metrics),
];

#[derive(Clone, Copy)]
enum List {
    Containers,
    Pods,
    ContainerStats,
    PodStats,
    Metrics,
}

impl List {
    /// Asks once: how many there are.
    async fn ask(self, client: &mut Client) -> Result<usize> {
        let runtime = &mut client.runtime;
        Ok(match self {
            Self::Containers => {
                let request = cri::ListContainersRequest::default();
                runtime.list_containers(request).await?.get_ref().containers.len()
            }
            Self::Pods => {
                let request = cri::ListPodSandboxRequest::default();
                runtime.list_pod_sandbox(request).await?.get_ref().items.len()
            }
            Self::ContainerStats => {
                let request = cri::ListContainerStatsRequest::default();
                runtime.list_container_stats(request).await?.get_ref().stats.len()
            }
            Self::PodStats => {
                let request = cri::ListPodSandboxStatsRequest::default();
                runtime.list_pod_sandbox_stats(request).await?.get_ref().stats.len()
            }
            Self::Metrics => {
                let request = cri::ListPodSandboxMetricsRequest::default();
                let mut runtime = runtime.clone().max_decoding_message_size(ANSWER_BYTES_MAX);
                runtime.list_pod_sandbox_metrics(request).await?.get_ref().pod_metrics.len()
            }
        })
    }
}

/// Asks for each list up to `runs` times while there are so many pods of one
/// container. What a runtime does not list is reported.
pub async fn measure(report: &mut Report, subject: &Subject, pods: u32, runs: usize) {
    let mut client = subject.client();
    for (key, list) in LISTS {
        let begun = Instant::now();
        let mut values = Vec::new();
        while values.len() < runs && begun.elapsed() < ENOUGH {
            match once(*list, &mut client, pods).await {
                Ok(took) => values.push(took),
                Err(error) => {
                    fail(report, subject, key.1.trim(), Some(pods), &error);
                    break;
                }
            }
        }
        note(report, subject, *key, Some(pods), Unit::Milliseconds, values);
    }
}

async fn once(list: List, client: &mut Client, pods: u32) -> Result<f64> {
    let begun = Instant::now();
    let listed = list.ask(client).await?;
    let took = ms(begun.elapsed());
    ensure!(listed == pods as usize, "{listed} are listed, not {pods}");
    Ok(took)
}

/// Asks once for all containers, and says whether as many are listed.
pub async fn is_whole(client: &mut Client, pods: u32) -> bool {
    once(List::Containers, client, pods).await.is_ok()
}
