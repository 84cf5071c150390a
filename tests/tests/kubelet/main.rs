//! A real kubelet keeps pods on Corten. Building one takes minutes, and it
//! does much only every ten seconds, so these tests run by
//! `cargo xtask kubelet`.

mod crowd;
mod death;
mod network;
mod numbers;
mod others;
mod pods;
mod port;
mod probes;

use corten_tests::kubelet::{Kubelet, Settings};
use corten_tests::machine::Settings as MachineSettings;
use corten_tests::{Daemon, Machine};
use serde_json::{Value, json};

/// Runs a test on a machine with a kubelet on its daemon.
fn on_kubelet(
    settings: Settings,
    test: impl AsyncFnOnce(&Machine, &mut Daemon, &mut Kubelet) + Send,
) {
    let machine = MachineSettings { builtin_network: true, ..MachineSettings::default() };
    on_machine(machine, settings, test);
}

/// Likewise, on a machine with these settings.
fn on_machine(
    machine: MachineSettings,
    settings: Settings,
    test: impl AsyncFnOnce(&Machine, &mut Daemon, &mut Kubelet) + Send,
) {
    Machine::run_with(machine, async |machine, daemon| {
        let mut kubelet = Kubelet::start(machine, daemon, settings).await;
        test(machine, daemon, &mut kubelet).await;
        kubelet.stop().await;
    });
}

/// A manifest.
fn pod(name: &str, mut spec: Value) -> Value {
    // Shells do not end by SIGTERM.
    spec["terminationGracePeriodSeconds"] = 1.into();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": "default" },
        "spec": spec,
    })
}

/// A manifest with one container.
fn simple(name: &str, container: Value) -> Value {
    pod(name, json!({ "containers": [container] }))
}

/// A container of a manifest that runs a script, with more of its fields.
fn shell(name: &str, image: &str, script: &str, mut more: Value) -> Value {
    more["name"] = name.into();
    more["image"] = image.into();
    more["imagePullPolicy"] = "IfNotPresent".into();
    more["command"] = json!(["/bin/sh", "-c", script]);
    more
}

/// A container that idles.
fn idle(image: &str) -> Value {
    shell("main", image, "exec sleep 1000", json!({}))
}
