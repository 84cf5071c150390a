//! Probes of all kinds, and what runs at both ends of a container's life.

use corten_image::testing::ImageBuilder;
use corten_tests::Machine;
use corten_tests::kubelet::{Kubelet, Settings, container, visitor};
use serde_json::json;

use crate::{on_kubelet, shell, simple};

/// An image whose only file serves gRPC's health checks.
fn health_image(machine: &Machine) -> String {
    let program = std::fs::read(visitor()).expect("the visitor is read");
    machine.push(&ImageBuilder::new().layer(&[("visitor", 0o755, &program)]), "health")
}

#[test]
#[ignore = "run by cargo xtask kubelet"]
fn probes_that_succeed_and_fail() {
    on_kubelet(Settings::default(), async |machine, _, kubelet| {
        let (busybox, nginx) = (machine.image("busybox"), machine.image("nginx"));
        let server = |probe: serde_json::Value| {
            json!({
                "name": "main",
                "image": nginx,
                "imagePullPolicy": "IfNotPresent",
                "readinessProbe": probe,
                "livenessProbe": probe,
            })
        };
        let http = json!({ "httpGet": { "port": 80, "path": "/" }, "periodSeconds": 1 });
        kubelet.put(&simple("http", server(http)));
        let tcp = json!({ "tcpSocket": { "port": 80 }, "periodSeconds": 1 });
        kubelet.put(&simple("tcp", server(tcp)));
        let grpc = json!({ "grpc": { "port": 9000 }, "periodSeconds": 1 });
        kubelet.put(&simple(
            "grpc",
            json!({
                "name": "main",
                "image": health_image(machine),
                "imagePullPolicy": "IfNotPresent",
                "command": ["/visitor", "health", ":9000"],
                "readinessProbe": grpc,
                "livenessProbe": grpc,
            }),
        ));
        let test = |command: &str| {
            json!({
                "exec": { "command": ["/bin/sh", "-c", command] },
                "periodSeconds": 1, "failureThreshold": 1,
            })
        };
        let probes = json!({ "readinessProbe": test("test -e /tmp/ready") });
        let script = "sleep 2; touch /tmp/ready; exec sleep 1000";
        kubelet.put(&simple("exec", shell("main", &busybox, script, probes)));
        let probes = json!({ "livenessProbe": test("test ! -e /tmp/dead") });
        let script = "sleep 2; touch /tmp/dead; exec sleep 1000";
        kubelet.put(&simple("dies", shell("main", &busybox, script, probes)));
        let mut hangs = test("sleep 100");
        hangs["timeoutSeconds"] = 1.into();
        let probes = json!({ "livenessProbe": hangs });
        kubelet.put(&simple("hangs", shell("main", &busybox, "exec sleep 1000", probes)));

        for name in ["dies", "hangs"] {
            let main = kubelet.until_pod(name, "its container was replaced", |pod| {
                let main = container(pod, "main");
                (main["restartCount"].as_u64()? >= 1).then(|| main.clone())
            });
            assert_eq!(main.await["lastState"]["terminated"]["exitCode"], 137);
        }
        for name in ["http", "tcp", "grpc", "exec"] {
            let up = kubelet.ready(name).await;
            assert_eq!(container(&up, "main")["restartCount"], 0, "{up:#}");
        }
    });
}

#[test]
#[ignore = "run by cargo xtask kubelet"]
fn hooks_at_both_ends() {
    on_kubelet(Settings::default(), async |machine, _, kubelet| {
        let image = machine.image("busybox");
        let shared = machine.path("shared");
        std::fs::create_dir(&shared).expect("a directory is made");
        let run = |script: &str| json!({ "exec": { "command": ["/bin/sh", "-c", script] } });
        let mounts = json!([{ "name": "host", "mountPath": "/host" }]);
        let lifecycle = json!({
            "postStart": run("echo begun >> /host/hooks"),
            "preStop": run("echo ended >> /host/hooks"),
        });
        let more = json!({ "volumeMounts": mounts, "lifecycle": lifecycle });
        let mut hooked = simple("hooked", shell("main", &image, "exec sleep 1000", more));
        hooked["spec"]["volumes"] = json!([{ "name": "host", "hostPath": { "path": shared } }]);
        hooked["spec"]["terminationGracePeriodSeconds"] = 30.into();
        // The end comes at SIGTERM, not after those 30 seconds.
        hooked["spec"]["containers"][0]["command"][2] =
            "trap 'echo asked >> /host/hooks; exit 0' TERM; while :; do sleep 0.1; done".into();
        kubelet.put(&hooked);
        let fails = json!({ "lifecycle": { "postStart": run("exit 1") } });
        kubelet.put(&simple("fails", shell("main", &image, "exec sleep 1000", fails)));

        kubelet.ready("hooked").await;
        let hooks = shared.join("hooks");
        assert_eq!(std::fs::read_to_string(&hooks).expect("hooks ran"), "begun\n");
        kubelet.take("hooked");
        let whole = |_: &Kubelet| {
            let text = std::fs::read_to_string(&hooks).ok()?;
            (text.lines().count() == 3).then_some(text)
        };
        let text = kubelet.waits("hooks of the end have run", whole).await;
        assert_eq!(text, "begun\nended\nasked\n");
        kubelet
            .until_pod("fails", "its container was replaced", |pod| {
                (container(pod, "main")["restartCount"].as_u64()? >= 1).then_some(())
            })
            .await;
    });
}
