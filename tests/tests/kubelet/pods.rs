//! What a pod may ask for.

use corten_tests::kubelet::{Settings, container};
use serde_json::json;

use crate::{on_kubelet, pod, shell};

#[test]
#[ignore = "run by cargo xtask kubelet"]
fn init_containers_sidecars_volumes_and_environment() {
    on_kubelet(Settings::default(), async |machine, _, kubelet| {
        let image = machine.image("busybox");
        let shared = machine.path("shared");
        std::fs::create_dir(&shared).expect("a directory is made");
        let mounts = json!([
            { "name": "work", "mountPath": "/work" },
            { "name": "memory", "mountPath": "/memory" },
            { "name": "host", "mountPath": "/host" },
        ]);
        let field = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
        let environment = json!([
            { "name": "GREETING", "value": "hello" },
            { "name": "BOTH", "value": "$(GREETING) world" },
            { "name": "POD_NAME", "valueFrom": field("metadata.name") },
            { "name": "POD_IP", "valueFrom": field("status.podIP") },
        ]);
        let sidecar = "echo sidecar > /work/sidecar; exec sleep 1000";
        let first = "set -e; cat /work/sidecar; df /memory | grep tmpfs; echo init > /work/init";
        let second = "cat /work/init /work/sidecar > /host/seen; echo $BOTH $POD_NAME $POD_IP >> /host/seen; \
            exec sleep 1000";
        kubelet.put(&pod(
            "parts",
            &json!({
                "initContainers": [
                    shell("sidecar", &image, sidecar, json!({
                        "restartPolicy": "Always",
                        "volumeMounts": mounts,
                        "startupProbe": { "exec": { "command": ["cat", "/work/sidecar"] }, "periodSeconds": 1 },
                    })),
                    shell("init", &image, first, json!({ "volumeMounts": mounts })),
                ],
                "containers": [
                    shell("main", &image, second, json!({ "volumeMounts": mounts, "env": environment })),
                    shell("other", &image, "exec sleep 1000", json!({})),
                ],
                "volumes": [
                    { "name": "work", "emptyDir": {} },
                    { "name": "memory", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } },
                    { "name": "host", "hostPath": { "path": shared, "type": "Directory" } },
                ],
            }),
        ));
        let up = kubelet.ready("parts").await;
        let address = up["status"]["podIP"].as_str().expect("an address");
        let seen = kubelet
            .waits("main has written", |_| {
                let text = std::fs::read_to_string(shared.join("seen")).ok()?;
                (text.lines().count() == 3).then_some(text)
            })
            .await;
        assert_eq!(seen, format!("init\nsidecar\nhello world parts-node {address}\n"));
        assert_eq!(container(&up, "init")["state"]["terminated"]["reason"], "Completed");
        for name in ["sidecar", "main", "other"] {
            assert!(container(&up, name)["state"]["running"].is_object(), "{name}: {up:#}");
            assert_eq!(container(&up, name)["restartCount"], 0);
        }
    });
}
