//! What a pod may ask for, and how its containers end.

use std::path::Path;

use corten_tests::kubelet::{Kubelet, Settings, container};
use serde_json::{Value, json};

use crate::{on_kubelet, pod, shell, simple};

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
            { "name": "work", "mountPath": "/part", "subPath": "part" },
        ]);
        let field = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
        let environment = json!([
            { "name": "GREETING", "value": "hello" },
            { "name": "BOTH", "value": "$(GREETING) world" },
            { "name": "POD_NAME", "valueFrom": field("metadata.name") },
            { "name": "POD_IP", "valueFrom": field("status.podIP") },
        ]);
        let startup =
            json!({ "exec": { "command": ["cat", "/work/sidecar"] }, "periodSeconds": 1 });
        let sidecar = json!({
            "restartPolicy": "Always", "volumeMounts": mounts, "startupProbe": startup,
        });
        let once = "set -e; cat /work/sidecar; df /memory | grep tmpfs; echo init > /part/init";
        let main = "cat /work/part/init /work/sidecar > /host/seen; \
            echo $BOTH $POD_NAME $POD_IP >> /host/seen; exec sleep 1000";
        let idle = "exec sleep 1000";
        kubelet.put(&pod(
            "parts",
            json!({
                "initContainers": [
                    shell("sidecar", &image, "echo sidecar > /work/sidecar; exec sleep 1000", sidecar),
                    shell("init", &image, once, json!({ "volumeMounts": mounts })),
                ],
                "containers": [
                    shell("main", &image, main, json!({ "volumeMounts": mounts, "env": environment })),
                    shell("other", &image, idle, json!({})),
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
        let seen = written(kubelet, &shared.join("seen"), 3).await;
        assert_eq!(seen, format!("init\nsidecar\nhello world parts-node {address}\n"));
        assert_eq!(container(&up, "init")["state"]["terminated"]["reason"], "Completed");
        for name in ["sidecar", "main", "other"] {
            assert!(container(&up, name)["state"]["running"].is_object(), "{name}: {up:#}");
            assert_eq!(container(&up, name)["restartCount"], 0);
        }
    });
}

/// A file, when it has so many lines.
async fn written(kubelet: &Kubelet, path: &Path, lines: usize) -> String {
    let whole = |_: &Kubelet| {
        let text = std::fs::read_to_string(path).ok()?;
        (text.lines().count() == lines).then_some(text)
    };
    kubelet.waits(&format!("{} is written", path.display()), whole).await
}

#[test]
#[ignore = "run by cargo xtask kubelet"]
fn namespaces_of_the_host_and_of_users() {
    on_kubelet(Settings::default(), async |machine, _, kubelet| {
        let image = machine.image("busybox");
        // The kubelet's own port is that of the machine.
        let see = "until wget -q -O /dev/null http://127.0.0.1:10255/healthz; do sleep 1; done; \
            echo seen; exec sleep 1000";
        let mut host = simple("host", shell("main", &image, see, json!({})));
        host["spec"]["hostNetwork"] = true.into();
        kubelet.put(&host);
        let look = "cat /proc/self/uid_map; id -u; touch /work/file; stat -c %u /work/file; \
            exec sleep 1000";
        let mounts = json!({ "volumeMounts": [{ "name": "work", "mountPath": "/work" }] });
        let mut users = simple("users", shell("main", &image, look, mounts));
        users["spec"]["hostUsers"] = false.into();
        users["spec"]["volumes"] = json!([{ "name": "work", "emptyDir": {} }]);
        kubelet.put(&users);

        kubelet.ready("host").await;
        let seen = |kubelet: &Kubelet| (kubelet.said("host", "main") == "seen\n").then_some(());
        kubelet.waits("the pod sees the machine's port", seen).await;
        kubelet.ready("users").await;
        let said = kubelet.waits("it has looked", |kubelet| {
            let said = kubelet.said("users", "main");
            (said.lines().count() == 3).then_some(said)
        });
        let said = said.await;
        let lines: Vec<&str> = said.lines().collect();
        let map: Vec<&str> = lines[0].split_whitespace().collect();
        assert_eq!((map[0], map[2]), ("0", "65536"), "{said}");
        assert_ne!(map[1], "0", "root of the machine is in the pod: {said}");
        assert_eq!(lines[1..], ["0", "0"], "{said}");
    });
}

/// Waits until a pod is in this phase: the pod.
async fn in_phase(kubelet: &Kubelet, name: &str, phase: &str) -> Value {
    let there = |pod: &Value| (pod["status"]["phase"] == phase).then(|| pod.clone());
    kubelet.until_pod(name, &format!("the pod is {phase}"), there).await
}

#[test]
#[ignore = "run by cargo xtask kubelet"]
fn ends_and_restarts() {
    on_kubelet(Settings::default(), async |machine, _, kubelet| {
        let image = machine.image("busybox");
        let put = |name: &str, policy: &str, script: &str| {
            let mounts = json!({ "volumeMounts": [{ "name": "work", "mountPath": "/work" }] });
            let mut pod = simple(name, shell("main", &image, script, mounts));
            pod["spec"]["restartPolicy"] = policy.into();
            pod["spec"]["volumes"] = json!([{ "name": "work", "emptyDir": {} }]);
            kubelet.put(&pod);
        };
        put("never", "Never", "echo last words > /dev/termination-log; exit 3");
        put("succeeds", "OnFailure", "exit 0");
        put("second-try", "OnFailure", "test -e /work/tried && exit 0; touch /work/tried; exit 1");
        put("crashes", "Always", "exit 7");
        put("missing", "Never", "exit 0");

        let never = in_phase(kubelet, "never", "Failed").await;
        let end = &container(&never, "main")["state"]["terminated"];
        assert_eq!((&end["exitCode"], &end["message"]), (&json!(3), &json!("last words\n")));
        in_phase(kubelet, "succeeds", "Succeeded").await;
        let second = in_phase(kubelet, "second-try", "Succeeded").await;
        assert_eq!(container(&second, "main")["restartCount"], 1);
        let looping = kubelet.until_pod("crashes", "it is in a crash loop", |pod| {
            let main = container(pod, "main");
            let again = main["restartCount"].as_u64()? >= 2;
            let waits = main["state"]["waiting"]["reason"] == "CrashLoopBackOff";
            (again && waits).then(|| main.clone())
        });
        assert_eq!(looping.await["lastState"]["terminated"]["exitCode"], 7);
    });
}

#[test]
#[ignore = "run by cargo xtask kubelet"]
fn limits_and_the_end_of_memory() {
    on_kubelet(Settings::default(), async |machine, _, kubelet| {
        let image = machine.image("busybox");
        let limits = |memory: &str| json!({ "resources": { "limits": { "memory": memory, "cpu": "500m" } } });
        let mut hungry = simple("hungry", shell("main", &image, "tail /dev/zero", limits("16Mi")));
        hungry["spec"]["restartPolicy"] = "Never".into();
        kubelet.put(&hungry);
        let look = "cd /sys/fs/cgroup; cat memory.max 2>/dev/null || cat memory/memory.limit_in_bytes; \
            cat cpu.max 2>/dev/null || echo $(cat cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us); \
            exec sleep 1000";
        kubelet.put(&simple("limited", shell("main", &image, look, limits("32Mi"))));

        let hungry = in_phase(kubelet, "hungry", "Failed").await;
        let end = &container(&hungry, "main")["state"]["terminated"];
        assert_eq!(end["reason"], "OOMKilled", "{hungry:#}");
        assert_eq!(end["exitCode"], 137);
        let limited = kubelet.ready("limited").await;
        assert_eq!(limited["status"]["qosClass"], "Guaranteed");
        let resources = &container(&limited, "main")["resources"];
        assert_eq!(resources["limits"], json!({ "cpu": "500m", "memory": "32Mi" }));
        let said = kubelet.waits("it has looked", |kubelet| {
            let said = kubelet.said("limited", "main");
            (said.lines().count() == 2).then_some(said)
        });
        assert_eq!(said.await, format!("{}\n50000 100000\n", 32 << 20));
    });
}

#[test]
#[ignore = "run by cargo xtask kubelet"]
fn logs_are_rotated() {
    on_kubelet(Settings::default(), async |machine, _, kubelet| {
        const LINES: usize = 30_000;
        let image = machine.image("busybox");
        // 50 bytes a line: more than the limit of 1 MiB.
        let script = format!("seq 1 {LINES}; while sleep 1; do echo more; done");
        kubelet.put(&simple("talks", shell("main", &image, &script, json!({}))));
        let up = kubelet.ready("talks").await;
        let uid = up["metadata"]["uid"].as_str().expect("a uid");
        let logs = machine.path(&format!("kubelet-logs/default_talks-node_{uid}/main"));
        let names = || -> Vec<String> {
            let entries = std::fs::read_dir(&logs).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        };
        let rotated = kubelet
            .waits("the log is rotated", |_| {
                let rotated = names().into_iter().find(|name| name.starts_with("0.log."))?;
                // The container goes on in the new file.
                let new = std::fs::read_to_string(logs.join("0.log")).ok()?;
                new.lines().any(|line| line.ends_with(" more")).then_some(rotated)
            })
            .await;
        let text = |name: &str| std::fs::read_to_string(logs.join(name)).expect("a log");
        let whole = text(&rotated) + &text("0.log");
        let words = whole.lines().map(|line| line.rsplit_once(' ').expect("a line of a log").1);
        let numbers: Vec<usize> = words.filter_map(|word| word.parse().ok()).collect();
        assert!(numbers.iter().copied().eq(1..=LINES), "{} lines", numbers.len());
    });
}
