//! Whoever dies, pods live on: the same processes, not one restart.

use std::collections::BTreeSet;

use corten_tests::Daemon;
use corten_tests::kubelet::{Age, Kubelet, Settings};
use serde_json::{Value, json};

use crate::{idle, on_kubelet, pod, shell, simple};

/// What must not change: each container's id, start and count of restarts, and
/// all processes.
type Life = (BTreeSet<String>, BTreeSet<i32>);

fn life(kubelet: &Kubelet) -> Life {
    let mut containers = BTreeSet::new();
    for pod in kubelet.pods() {
        let lists = ["containerStatuses", "initContainerStatuses"];
        for status in lists.iter().filter_map(|list| pod["status"][list].as_array()).flatten() {
            let started = status["state"].as_object().expect("a state").values().next();
            let started = started.map_or(Value::Null, |state| state["startedAt"].clone());
            let name = &pod["metadata"]["name"];
            let (id, restarts) = (&status["containerID"], &status["restartCount"]);
            containers.insert(format!("{name} {id} {started} {restarts}"));
        }
    }
    (containers, kubelet.processes())
}

/// Waits until the kubelet has looked after so many pods some times more.
async fn has_settled(kubelet: &Kubelet, pods: usize) {
    let name = "kubelet_pod_worker_duration_seconds_count";
    let syncs = |kubelet: &Kubelet| kubelet.metric(name, "operation_type=\"sync\"");
    let enough = syncs(kubelet) + 4.0 * pods as f64;
    kubelet.waits("pods were looked after", |k| (syncs(k) >= enough).then_some(())).await;
}

/// Both die in every order.
async fn nobody_notices(daemon: &mut Daemon, kubelet: &mut Kubelet) {
    let pods = kubelet.pods().len();
    let before = life(kubelet);
    assert!(!before.1.is_empty(), "no processes of pods are found");

    kubelet.kill();
    kubelet.start_again().await;
    has_settled(kubelet, pods).await;
    assert_eq!(life(kubelet), before, "after the kubelet's death");

    daemon.restart().await;
    has_settled(kubelet, pods).await;
    assert_eq!(life(kubelet), before, "after the daemon's death");

    kubelet.kill();
    daemon.kill();
    assert_eq!(kubelet.processes(), before.1, "while both are dead");
    daemon.start_again().await;
    kubelet.start_again().await;
    has_settled(kubelet, pods).await;
    assert_eq!(life(kubelet), before, "after the death of both");
}

fn deaths(settings: Settings, afterwards: impl AsyncFnOnce(&Kubelet) + Send) {
    on_kubelet(settings, async |machine, daemon, kubelet| {
        let (busybox, nginx) = (machine.image("busybox"), machine.image("nginx"));
        kubelet.put(&simple("idle", idle(&busybox)));
        let once = shell("init", &busybox, "exit 0", json!({}));
        let probe = json!({ "httpGet": { "port": 80, "path": "/" }, "periodSeconds": 1 });
        let server = json!({
            "name": "main", "image": nginx, "imagePullPolicy": "IfNotPresent",
            "readinessProbe": probe, "livenessProbe": probe,
        });
        let other = shell("other", &busybox, "exec sleep 1000", json!({}));
        kubelet
            .put(&pod("web", json!({ "initContainers": [once], "containers": [server, other] })));
        let mut host = simple("host", idle(&busybox));
        host["spec"]["hostNetwork"] = true.into();
        kubelet.put(&host);
        let mut shares = simple("shares", idle(&busybox));
        shares["spec"]["shareProcessNamespace"] = true.into();
        kubelet.put(&shares);
        for name in ["idle", "web", "host", "shares"] {
            kubelet.ready(name).await;
        }
        nobody_notices(daemon, kubelet).await;
        afterwards(kubelet).await;
        // And they can still be replaced.
        let all = kubelet.processes().len();
        kubelet.take("shares");
        kubelet.waits("the pod has ended", |k| (k.processes().len() < all).then_some(())).await;
    });
}

#[test]
#[ignore = "run by cargo xtask kubelet"]
fn of_kubelet_and_daemon() {
    deaths(Settings::default(), async |kubelet| {
        // Its configuration says systemd: what the runtime says, counts.
        let said = "Using cgroup driver setting received from the CRI runtime";
        assert!(kubelet.log().contains(said), "the kubelet chose its cgroup driver itself");
    });
}

#[test]
#[ignore = "run by cargo xtask kubelet"]
fn of_an_older_kubelet_and_the_daemon() {
    deaths(Settings { age: Age::Older, ..Settings::default() }, async |_| ());
}

#[test]
#[ignore = "run by cargo xtask kubelet"]
fn with_streamed_lists_and_events() {
    let gates = vec![
        ("CRIListStreaming", true),
        ("EventedPLEG", true),
        ("PodAndContainerStatsFromCRI", true),
    ];
    deaths(Settings { gates, ..Settings::default() }, async |kubelet| {
        let connected = "kubelet_evented_pleg_connection_success_count";
        let events = |kubelet: &Kubelet| (kubelet.metric(connected, "") >= 1.0).then_some(());
        kubelet.waits("the kubelet listens to events", events).await;
    });
}
