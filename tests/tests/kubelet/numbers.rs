//! What a kubelet tells about use of resources.

use corten_tests::Machine;
use corten_tests::kubelet::{Age, Kubelet, Settings};
use serde_json::{Value, json};

use crate::{on_kubelet, shell, simple};

/// A pod that works a little, so that there is something to count.
async fn busy(machine: &Machine, kubelet: &Kubelet) {
    let image = machine.image("busybox");
    let script = "dd if=/dev/zero of=/file bs=1024 count=2000; \
        while :; do for i in $(seq 1 2000); do :; done; sleep 0.1; done";
    let mounts = json!({ "volumeMounts": [{ "name": "work", "mountPath": "/work" }] });
    let mut pod = simple("busy", shell("main", &image, script, mounts));
    pod["spec"]["volumes"] = json!([{ "name": "work", "emptyDir": {} }]);
    kubelet.put(&pod);
    kubelet.ready("busy").await;
}

/// Waits until `/stats/summary` is whole.
async fn summary(kubelet: &Kubelet, with_network: bool) {
    let number = |value: &Value| value.as_u64().is_some_and(|number| number > 0);
    let last = std::cell::RefCell::new(Value::Null);
    let whole = |kubelet: &Kubelet| {
        let text = kubelet.get("/stats/summary")?;
        let summary: Value = serde_json::from_str(&text).ok()?;
        let pods = summary["pods"].as_array()?.clone();
        last.replace(summary);
        let pod = pods.into_iter().find(|pod| pod["podRef"]["name"] == "busy-node")?;
        let main = pod["containers"].as_array()?.first()?.clone();
        let whole = number(&main["cpu"]["usageCoreNanoSeconds"])
            && number(&main["cpu"]["usageNanoCores"])
            && number(&main["memory"]["workingSetBytes"])
            && main["rootfs"]["usedBytes"].as_u64()? > 2_000_000
            && number(&main["logs"]["capacityBytes"])
            && number(&pod["cpu"]["usageCoreNanoSeconds"])
            && number(&pod["memory"]["workingSetBytes"])
            && pod["volume"].as_array()?.iter().any(|volume| volume["name"] == "work")
            && (!with_network || number(&pod["network"]["rxBytes"]));
        whole.then_some(())
    };
    if kubelet.may(whole).await.is_none() {
        panic!("the summary is not whole: {:#}", last.take());
    }
    let summary: Value =
        serde_json::from_str(&kubelet.get("/stats/summary").expect("a summary")).expect("JSON");
    let images = &summary["node"]["runtime"]["imageFs"];
    assert!(number(&images["usedBytes"]) && number(&images["capacityBytes"]), "{images}");
}

/// Waits for a line of a page of metrics that has all these parts.
async fn metric(kubelet: &Kubelet, page: &str, parts: &[&str]) {
    kubelet
        .waits(&format!("{page} has {parts:?}"), |kubelet| {
            let text = kubelet.get(page)?;
            let has = |line: &str| parts.iter().all(|part| line.contains(part));
            text.lines().any(has).then_some(())
        })
        .await;
}

const OF_MAIN: [&str; 3] = ["container=\"main\"", "pod=\"busy-node\"", "namespace=\"default\""];

async fn resource_metrics(kubelet: &Kubelet) {
    for name in ["container_cpu_usage_seconds_total{", "container_memory_working_set_bytes{"] {
        metric(kubelet, "/metrics/resource", &[&[name], &OF_MAIN[..]].concat()).await;
    }
    metric(kubelet, "/metrics/resource", &["pod_memory_working_set_bytes{", OF_MAIN[1]]).await;
}

/// The kubelet counts containers by itself, in their cgroups, and asks for
/// writable layers alone.
#[test]
#[ignore = "run by cargo xtask kubelet"]
fn that_the_kubelet_counts() {
    on_kubelet(Settings::default(), async |machine, _, kubelet| {
        busy(machine, kubelet).await;
        summary(kubelet, false).await;
        resource_metrics(kubelet).await;
    });
}

#[test]
#[ignore = "run by cargo xtask kubelet"]
fn that_an_older_kubelet_counts() {
    on_kubelet(Settings { age: Age::Older, ..Settings::default() }, async |machine, _, kubelet| {
        busy(machine, kubelet).await;
        summary(kubelet, false).await;
        resource_metrics(kubelet).await;
    });
}

/// Everything comes from us.
#[test]
#[ignore = "run by cargo xtask kubelet"]
fn that_we_count() {
    let gates = vec![("PodAndContainerStatsFromCRI", true)];
    on_kubelet(Settings { gates, ..Settings::default() }, async |machine, _, kubelet| {
        busy(machine, kubelet).await;
        summary(kubelet, true).await;
        resource_metrics(kubelet).await;
        for name in ["container_cpu_usage_seconds_total{", "container_memory_working_set_bytes{"] {
            metric(kubelet, "/metrics/cadvisor", &[&[name], &OF_MAIN[..]].concat()).await;
        }
        let network = ["container_network_receive_bytes_total{", "pod=\"busy-node\""];
        metric(kubelet, "/metrics/cadvisor", &network).await;
    });
}
