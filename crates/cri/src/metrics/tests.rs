//! Metrics of nodes that are full: how large they are, and in which messages
//! they come.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use corten_api::cri;
use corten_base::limits::{GRPC_ANSWER_BYTES_MAX, GRPC_MESSAGE_BYTES_MAX, STREAM_BATCH_BYTES};
use corten_base::{ContainerId, Digest, Namespace, SandboxId};
use corten_kernel::cgroup::{self, Pressure};
use corten_kernel::netlink::LinkCounters;
use corten_pods::{
    ContainerPhase, ContainerStats, ContainerView, Figures, Processes, SandboxPhase, SandboxStats,
    SandboxView,
};
use corten_spec::request::{ContainerConfig, SandboxConfig};
use corten_store::{Measured, Usage};
use prost::Message as _;
use tokio_stream::StreamExt as _;

use super::{Disks, FileSystem, sandbox};
use crate::batches::{Answers, stream};

/// All that the kernel may count.
fn figures() -> Option<Figures> {
    let counted = cgroup::Stats {
        cpu: Some(Default::default()),
        memory: Some(cgroup::Memory { peak: Some(1), ..Default::default() }),
        pids: Some(Default::default()),
        hugepages: vec![cgroup::Hugepages { page_size: "2MB".into(), ..Default::default() }],
        io: vec![cgroup::Io { major: 254, ..Default::default() }],
        cpu_pressure: Some(Pressure::default()),
        memory_pressure: Some(Pressure::default()),
        io_pressure: Some(Pressure::default()),
    };
    Some(Figures { at_ns: 1_800_000_000_000_000_000, counted, nano_cores: None })
}

/// A pod with one container, whose names have usual lengths.
fn pod(number: usize) -> SandboxStats {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.to_le_bytes());
    let sandbox = SandboxView {
        id: SandboxId::from_random(id),
        namespace: Namespace::kubernetes(),
        config: Arc::new(SandboxConfig {
            name: format!("deployment-6c5f8d7b9-{number:05}"),
            namespace: "production".into(),
            ..Default::default()
        }),
        phase: SandboxPhase::Ready,
        created_at_ns: 10,
        ips: Vec::new(),
        netns: None,
        shim_pid: None,
    };
    let container = ContainerView {
        id: ContainerId::from_random(id),
        sandbox: sandbox.id.clone(),
        namespace: sandbox.namespace.clone(),
        config: Arc::new(ContainerConfig { name: "application".into(), ..Default::default() }),
        phase: ContainerPhase::Running,
        created_at_ns: 10,
        started_at_ns: 20,
        finished_at_ns: 0,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        image_id: Digest::from_sha256([3; 32]),
        image_ref: String::new(),
        volumes: Vec::new(),
        log_path: String::new(),
        resources: Default::default(),
        user: Default::default(),
        stop_signal: 15,
        pid: None,
    };
    let cgroup = format!("/kubepods.slice/kubepods-burstable.slice/{}.scope", sandbox.id);
    let layer = Measured { usage: Usage::default(), at: SystemTime::UNIX_EPOCH };
    let link = LinkCounters {
        name: "eth0".into(),
        loopback: false,
        received: Default::default(),
        sent: Default::default(),
    };
    SandboxStats {
        sandbox,
        cgroup: cgroup.clone(),
        figures: figures(),
        links: Some(vec![link]),
        processes: Some(1),
        containers: vec![ContainerStats {
            container,
            cgroup,
            figures: figures(),
            layer: Some(layer),
            processes: Some(Processes::default()),
        }],
    }
}

fn metrics(number: usize) -> cri::PodSandboxMetrics {
    let image = |_: &ContainerView| "registry.example.com/team/application:v1.2.3".to_owned();
    sandbox(&pod(number), &FileSystem::default(), &Disks::new(), image)
}

fn bytes_of_a_list(pods: usize) -> usize {
    let pod_metrics = (0..pods).map(metrics).collect();
    cri::ListPodSandboxMetricsResponse { pod_metrics }.encoded_len()
}

#[test]
fn a_list_grows_by_what_is_in_it_and_fits_into_an_answer() {
    let (few, many) = (bytes_of_a_list(10), bytes_of_a_list(1000));
    assert_eq!(many, 100 * few);
    // Kubelets have to ask for the stream; whoever takes it can have it at once.
    assert!(many > GRPC_MESSAGE_BYTES_MAX, "{many}");
    assert!(many <= GRPC_ANSWER_BYTES_MAX / 4, "{many}");
}

#[tokio::test]
async fn a_stream_has_each_pod_once_in_messages_that_kubelets_take() {
    const PODS: usize = 1000;
    let translated = Arc::new(AtomicUsize::new(0));
    let count = translated.clone();
    let pods = (0..PODS).map(move |number| {
        count.fetch_add(1, Ordering::Relaxed);
        metrics(number)
    });
    let mut answers: Answers<cri::StreamPodSandboxMetricsResponse> = stream(pods);
    let largest = metrics(0).encoded_len();
    let (mut seen, mut messages) = (Vec::new(), 0);
    while let Some(message) = answers.next().await {
        let message = message.unwrap();
        assert!(message.encoded_len() <= STREAM_BATCH_BYTES + 2 * largest);
        seen.extend(message.pod_sandbox_metrics.into_iter().map(|pod| pod.pod_sandbox_id));
        messages += 1;
        // A client that does not read on has the work of one message done.
        assert_eq!(translated.load(Ordering::Relaxed), seen.len());
    }
    let expected: Vec<String> = (0..PODS).map(|number| metrics(number).pod_sandbox_id).collect();
    assert_eq!(seen, expected);
    let least = bytes_of_a_list(PODS).div_ceil(STREAM_BATCH_BYTES + 2 * largest);
    assert!((least..2 * least).contains(&messages), "{messages} messages");
}
