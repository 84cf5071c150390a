//! What pods and containers use: figures, lists, streams.

use std::collections::{BTreeMap, BTreeSet};

use corten_api::cri;
use corten_base::limits::{GRPC_ANSWER_BYTES_MAX, GRPC_MESSAGE_BYTES_MAX};
use corten_tests::client::{Client, Pod};
use corten_tests::{Machine, Scene, until};
use tonic::Code;

const MIB: u64 = 1 << 20;

fn of(value: &Option<cri::UInt64Value>) -> u64 {
    value.as_ref().expect("a value").value
}

async fn stats(client: &mut Client, id: &str) -> cri::ContainerStats {
    let request = cri::ContainerStatsRequest { container_id: id.into() };
    let response = client.runtime.container_stats(request).await.expect("stats").into_inner();
    response.stats.expect("stats")
}

async fn pod_stats(client: &mut Client, id: &str) -> cri::LinuxPodSandboxStats {
    let request = cri::PodSandboxStatsRequest { pod_sandbox_id: id.into() };
    let response = client.runtime.pod_sandbox_stats(request).await.expect("stats").into_inner();
    response.stats.expect("stats").linux.expect("the part for Linux")
}

/// The ids of containers in a list with this filter.
async fn listed(client: &mut Client, filter: cri::ContainerStatsFilter) -> Vec<String> {
    let request = cri::ListContainerStatsRequest { filter: Some(filter) };
    let list = client.runtime.list_container_stats(request).await.expect("a list").into_inner();
    list.stats.into_iter().map(|each| each.attributes.expect("attributes").id).collect()
}

#[test]
fn a_container_that_works() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let script = "dd if=/dev/urandom of=/written bs=1M count=3 2>/dev/null; \
                      echo ready; while :; do :; done";
        let mut container = scene.shell(script);
        let resources = container.linux().resources.get_or_insert_default();
        resources.memory_limit_in_bytes = 64 << 20;
        container.config.labels.insert("a".into(), "b".into());
        let id = scene.start(&container).await.expect("it runs");
        scene.logged(&container, "ready").await;

        let found = until("it has used a tenth of a second", async || {
            let found = stats(&mut scene.client, &id).await;
            let cpu = found.cpu.as_ref().expect("figures of the processor");
            (of(&cpu.usage_core_nano_seconds) > 100_000_000).then_some(found)
        })
        .await;
        let attributes = found.attributes.expect("attributes");
        assert_eq!(attributes.labels, BTreeMap::from([("a".into(), "b".into())]));
        assert_eq!(attributes.metadata.expect("metadata").name, "c1");
        let cpu = found.cpu.expect("figures of the processor");
        assert!(cpu.timestamp > 0 && of(&cpu.usage_nano_cores) > 1_000_000, "{cpu:?}");
        let memory = found.memory.expect("figures of memory");
        let (used, working) = (of(&memory.usage_bytes), of(&memory.working_set_bytes));
        assert!(working > 0 && working <= used && used <= 64 * MIB, "{memory:?}");
        assert_eq!(of(&memory.available_bytes), 64 * MIB - working);
        assert!(of(&memory.rss_bytes) > 0 && of(&memory.page_faults) > 0, "{memory:?}");
        let layer = found.writable_layer.expect("the writable layer");
        assert!(layer.timestamp > 0 && of(&layer.inodes_used) >= 1, "{layer:?}");
        let mountpoint = layer.fs_id.expect("a file system").mountpoint;
        assert_eq!(mountpoint, machine.path("data").display().to_string());
        let has_unified = cpu.psi.is_some();
        if std::path::Path::new("/proc/pressure/cpu").exists() && has_unified {
            assert!(found.io.expect("figures of disks").psi.is_some());
        }

        // What it wrote is counted soon, though nobody waits for it.
        until("the written bytes are counted", async || {
            let layer = stats(&mut scene.client, &id).await.writable_layer?;
            (of(&layer.used_bytes) >= 3 * MIB).then_some(())
        })
        .await;
    });
}

#[test]
fn a_pod_and_its_network() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let id = scene.idle(|_| {}).await;
        let other = scene.idle(|_| {}).await;
        let before = pod_stats(&mut scene.client, &scene.id).await;
        let network = before.network.expect("figures of the network");
        let link = network.default_interface.expect("a default link");
        assert_eq!((link.name.as_str(), network.interfaces.len()), ("eth0", 0));
        let send = "gateway=$(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p'); \
                    ping -c 4 -i 0.1 -s 1300 $gateway";
        scene.client.shell(&id, send).await;
        let sent = of(&link.tx_bytes);
        until("what was sent is counted", async || {
            let after = pod_stats(&mut scene.client, &scene.id).await;
            let link = after.network.expect("figures").default_interface.expect("a link");
            (of(&link.tx_bytes) >= sent + 5000).then_some(())
        })
        .await;

        let after = pod_stats(&mut scene.client, &scene.id).await;
        let processes = of(&after.process.expect("figures of processes").process_count);
        assert!((2..10).contains(&processes), "{processes}");
        let ids: Vec<_> =
            after.containers.iter().map(|each| &each.attributes.as_ref().unwrap().id).collect();
        assert_eq!(ids, [&id, &other]);
        let whole = of(&after.cpu.expect("figures").usage_core_nano_seconds);
        let parts = after
            .containers
            .iter()
            .map(|each| of(&each.cpu.as_ref().expect("figures").usage_core_nano_seconds));
        assert!(whole >= parts.max().unwrap() && after.memory.is_some());

        // With the host's network there is nothing that is the pod's.
        let host = Scene::named(machine, daemon, "host", |pod| {
            pod.namespaces().network = cri::NamespaceMode::Node.into();
            pod.config.hostname.clear();
        })
        .await;
        assert!(pod_stats(&mut scene.client, &host.id).await.network.is_none());

        // A stopped one is still listed, and has none of this.
        scene.client.stop_pod(&scene.id).await.unwrap();
        let stopped = pod_stats(&mut scene.client, &scene.id).await;
        assert!(stopped.cpu.is_none() && stopped.network.is_none());
        assert!(stopped.containers.is_empty());
    });
}

#[test]
fn lists_and_streams() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |pod| {
            pod.config.labels.insert("pod".into(), "first".into());
        })
        .await;
        let mut second = Scene::named(machine, daemon, "second", |_| {}).await;
        let one = scene
            .idle(|container| {
                container.config.labels.insert("app".into(), "one".into());
            })
            .await;
        let two = second.idle(|_| {}).await;
        let ended = scene.shell("true");
        let ended = scene.start(&ended).await.unwrap();
        scene.client.ended(&ended).await;

        let client = &mut scene.client;
        let filter = cri::ContainerStatsFilter::default;
        assert_eq!(listed(client, filter()).await, [one.as_str(), two.as_str()]);
        let of_pod = cri::ContainerStatsFilter { pod_sandbox_id: second.id.clone(), ..filter() };
        assert_eq!(listed(client, of_pod).await, [two.as_str()]);
        let labelled = |value: &str| cri::ContainerStatsFilter {
            label_selector: BTreeMap::from([("app".to_owned(), value.to_owned())]),
            ..filter()
        };
        assert_eq!(listed(client, labelled("one")).await, [one.as_str()]);
        assert!(listed(client, labelled("other")).await.is_empty());
        let short = cri::ContainerStatsFilter { id: two[..12].to_owned(), ..filter() };
        assert_eq!(listed(client, short).await, [two.as_str()]);
        // One that has ended is still there, but uses nothing.
        assert!(stats(client, &ended).await.cpu.is_none());

        let mut stream = client
            .runtime
            .stream_container_stats(cri::StreamContainerStatsRequest::default())
            .await
            .unwrap()
            .into_inner();
        let mut streamed = Vec::new();
        while let Some(batch) = stream.message().await.unwrap() {
            streamed
                .extend(batch.container_stats.into_iter().map(|each| each.attributes.unwrap().id));
        }
        assert_eq!(streamed, [one, two]);

        let label = BTreeMap::from([("pod".to_owned(), "first".to_owned())]);
        let request = cri::ListPodSandboxStatsRequest {
            filter: Some(cri::PodSandboxStatsFilter {
                label_selector: label,
                ..Default::default()
            }),
        };
        let pods = client.runtime.list_pod_sandbox_stats(request).await.unwrap().into_inner().stats;
        let ids: Vec<_> = pods.iter().map(|pod| &pod.attributes.as_ref().unwrap().id).collect();
        assert_eq!(ids, [&scene.id]);
        let request = cri::StreamPodSandboxStatsRequest::default();
        let stream = client.runtime.stream_pod_sandbox_stats(request).await.unwrap();
        let batch = stream.into_inner().message().await.unwrap().unwrap();
        assert_eq!(batch.pod_sandbox_stats.len(), 2);

        // Unknown ones are errors that kubelets know.
        let request = cri::ContainerStatsRequest { container_id: "0".repeat(64) };
        let error = client.runtime.container_stats(request).await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
        let request = cri::PodSandboxStatsRequest { pod_sandbox_id: "0".repeat(64) };
        let error = client.runtime.pod_sandbox_stats(request).await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
    });
}

#[test]
fn plain_lists_as_streams() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let id = scene.idle(|_| {}).await;
        let runtime = &mut scene.client.runtime;
        let pods = runtime.stream_pod_sandboxes(cri::StreamPodSandboxesRequest::default()).await;
        let mut pods = pods.unwrap().into_inner();
        assert_eq!(pods.message().await.unwrap().unwrap().pod_sandboxes[0].id, scene.id);
        assert!(pods.message().await.unwrap().is_none());
        let containers = runtime.stream_containers(cri::StreamContainersRequest::default()).await;
        let batch = containers.unwrap().into_inner().message().await.unwrap().unwrap();
        assert_eq!(batch.containers[0].id, id);
        let filter = cri::ContainerFilter { id: "0".repeat(64), ..Default::default() };
        let request = cri::StreamContainersRequest { filter: Some(filter) };
        let none = runtime.stream_containers(request).await.unwrap();
        assert!(none.into_inner().message().await.unwrap().is_none());
        let request = cri::StreamImagesRequest::default();
        let images = scene.client.images.stream_images(request).await.unwrap();
        let batch = images.into_inner().message().await.unwrap().unwrap();
        assert_eq!(batch.images.len(), 1);
    });
}

/// What few pods of a full node say of themselves, or many: a list that is
/// larger than what kubelets take comes whole to whom takes more, and as a
/// stream to all.
#[test]
fn lists_that_are_larger_than_a_message() {
    const PODS: usize = 3;
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let mut ids = Vec::new();
        for number in 0..PODS {
            let mut pod = Pod::new(machine, &format!("pod{number}"));
            pod.namespaces().network = cri::NamespaceMode::Node.into();
            pod.config.hostname.clear();
            let text = "x".repeat(GRPC_MESSAGE_BYTES_MAX / PODS + 1);
            pod.config.annotations.insert("large".into(), text);
            ids.push(client.run_pod(&pod).await.expect("the pod runs"));
        }
        let request = cri::ListPodSandboxRequest::default;
        let refused = client.runtime.list_pod_sandbox(request()).await.unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
        let mut patient = client.runtime.clone().max_decoding_message_size(GRPC_ANSWER_BYTES_MAX);
        let list = patient.list_pod_sandbox(request()).await.expect("a list").into_inner();
        let listed = list.items.into_iter().map(|pod| pod.id);
        assert_eq!(listed.collect::<BTreeSet<_>>(), ids.iter().cloned().collect());

        let request = cri::StreamPodSandboxesRequest::default();
        let stream = client.runtime.stream_pod_sandboxes(request).await;
        let mut stream = stream.expect("a stream").into_inner();
        let mut streamed = BTreeSet::new();
        while let Some(batch) = stream.message().await.expect("a message") {
            streamed.extend(batch.pod_sandboxes.into_iter().map(|pod| pod.id));
        }
        assert_eq!(streamed, ids.iter().cloned().collect());
        // The kit takes no more than kubelets do.
        for id in ids {
            client.stop_pod(&id).await.expect("the pod stops");
            client.remove_pod(&id).await.expect("the pod is removed");
        }
    });
}

/// Metrics that depend on what this machine counts.
fn may_be_missing(name: &str) -> bool {
    let counted = ["_blkio_", "_fs_reads_", "_fs_writes_", "_hugetlb_", "_pressure_"];
    counted.iter().any(|part| name.contains(part))
}

#[test]
fn metrics_of_pods() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let id = scene
            .idle(|container| {
                let resources = container.linux().resources.get_or_insert_default();
                resources.cpu_quota = 50_000;
                resources.memory_limit_in_bytes = 64 << 20;
            })
            .await;
        let runtime = &mut scene.client.runtime;
        let request = cri::ListMetricDescriptorsRequest::default();
        let described = runtime.list_metric_descriptors(request).await.unwrap().into_inner();
        let keys: BTreeMap<_, _> =
            described.descriptors.into_iter().map(|each| (each.name, each.label_keys)).collect();
        assert_eq!(keys.len(), 56);

        let request = cri::ListPodSandboxMetricsRequest::default();
        let pods = runtime.list_pod_sandbox_metrics(request).await.unwrap().into_inner();
        let [pod] = &pods.pod_metrics[..] else { panic!("{pods:?}") };
        assert_eq!(pod.pod_sandbox_id, scene.id);
        let [container] = &pod.container_metrics[..] else { panic!("{pod:?}") };
        assert_eq!(container.container_id, id);

        let mut seen = BTreeMap::new();
        let mut series = BTreeSet::new();
        for metric in pod.metrics.iter().chain(&container.metrics) {
            let keys = &keys[&metric.name];
            assert_eq!(keys.len(), metric.label_values.len(), "{metric:?}");
            // Of the same name and labels there may be only one.
            assert!(series.insert((&metric.name, &metric.label_values)), "{metric:?}");
            let labels: BTreeMap<_, _> = keys.iter().zip(&metric.label_values).collect();
            assert_eq!(labels[&"pod".to_owned()], "pod");
            assert_eq!(labels[&"namespace".to_owned()], "test");
            seen.insert(metric.name.clone(), of(&metric.value));
        }
        let missing: Vec<_> = keys.keys().filter(|name| !seen.contains_key(*name)).collect();
        assert!(missing.iter().all(|name| may_be_missing(name)), "{missing:?}");
        let value = |name: &str| seen[name];
        assert_eq!(value("container_spec_cpu_quota"), 50_000);
        assert_eq!(value("container_spec_memory_limit_bytes"), 64 * MIB);
        assert_eq!(value("container_processes"), 1);
        assert!(value("container_file_descriptors") >= 3);
        assert!(value("container_memory_max_usage_bytes") > 0);
        assert!(value("container_start_time_seconds") > 1_700_000_000);
        assert!(value("container_network_transmit_packets_total") > 0);
        let network = |metric: &&cri::Metric| metric.name.starts_with("container_network_");
        assert_eq!(pod.metrics.iter().filter(network).count(), 8);

        let request = cri::StreamPodSandboxMetricsRequest::default();
        let stream = runtime.stream_pod_sandbox_metrics(request).await.unwrap();
        let batch = stream.into_inner().message().await.unwrap().unwrap();
        assert_eq!(batch.pod_sandbox_metrics[0].pod_sandbox_id, scene.id);
    });
}
