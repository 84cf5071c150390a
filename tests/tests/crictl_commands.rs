//! Commands of the real crictl that `crictl.rs` does not have: logs, stats,
//! updates, credentials, and what takes all at once.

use corten_image::testing::{PASSWORD, Registry, USER};
use corten_tests::crictl::{Beside, Scene};
use corten_tests::tool::Tool;
use corten_tests::{Machine, images, until};
use serde_json::json;

#[test]
fn logs() {
    Machine::run(async |machine, daemon| {
        let crictl = &Tool::crictl(machine, daemon);
        let script = "echo first; echo second; until [ -e /go ]; do sleep 0.1; done; echo third";
        let scene = Scene::new(machine, crictl, script, |_| {});
        let id = scene.container.as_str();
        let follow = Beside::start(crictl, &["logs", "-f", id]);
        follow.line("first");
        follow.line("second");
        assert_eq!(crictl.run(&["logs", "--tail", "1", id]), "second");
        assert_eq!(crictl.run(&["logs", "--limit-bytes", "3", id]), "fir");
        assert_eq!(crictl.run(&["logs", "--since", "2001-02-03T04:05:06Z", id]), "first\nsecond");
        assert_eq!(crictl.run(&["logs", "--stream", "stderr", id]), "");
        let stamped = crictl.run(&["logs", "-t", "--tail", "1", id]);
        assert!(stamped.starts_with("20") && stamped.ends_with(" second"), "{stamped}");
        // Rotated: what is written now goes into a new file.
        let log = machine.path("logs/scene/main.log");
        std::fs::rename(&log, log.with_extension("1")).expect("the log is rotated");
        crictl.run(&["logs", "-r", id]);
        until("there is a new log", async || log.exists().then_some(())).await;
        crictl.run(&["exec", "-s", id, "touch", "/go"]);
        until("the new log has the new line", async || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            (text.contains(" third") && !text.contains("second")).then_some(())
        })
        .await;
        follow.line("third");
        follow.rest();
    });
}

#[test]
fn numbers() {
    Machine::run(async |machine, daemon| {
        let crictl = &Tool::crictl(machine, daemon);
        let scene = Scene::new(machine, crictl, "exec sleep 1000", |_| {});
        let id = scene.container.as_str();
        let stats = crictl.json(&["stats", "-o", "json", "--id", id]);
        let stats = &stats["stats"][0];
        assert_eq!(stats["attributes"]["id"], id);
        assert_ne!(stats["cpu"]["usageCoreNanoSeconds"]["value"], "0", "{stats}");
        assert_ne!(stats["memory"]["workingSetBytes"]["value"], "0", "{stats}");
        assert!(crictl.run(&["stats", "-s", "0"]).contains("main"));
        let stats = crictl.json(&["statsp", "-o", "json", "--id", &scene.pod]);
        let stats = &stats["stats"][0];
        assert_eq!(stats["attributes"]["id"], json!(scene.pod));
        assert_ne!(stats["linux"]["memory"]["workingSetBytes"]["value"], "0", "{stats}");
        assert_eq!(stats["linux"]["network"]["defaultInterface"]["name"], "eth0", "{stats}");

        let described = crictl.json(&["metricdescs"]).to_string();
        let metrics = crictl.json(&["metricsp"]).to_string();
        for name in ["container_cpu_usage_seconds_total", "container_memory_working_set_bytes"] {
            assert!(described.contains(name), "{described}");
            assert!(metrics.contains(name), "{metrics}");
        }
        assert!(metrics.contains(&scene.pod), "{metrics}");

        let update =
            ["update", "--memory", "67108864", "--cpu-share", "512", "--cpu-quota", "50000"];
        crictl.run(&[&update[..], &["--cpu-period", "100000", id]].concat());
        let limits = &crictl.json(&["inspect", id])["status"]["resources"]["linux"];
        assert_eq!(limits["memoryLimitInBytes"], "67108864", "{limits}");
        assert_eq!(limits["cpuQuota"], "50000", "{limits}");

        let config = crictl.run(&["runtime-config"]);
        assert!(config.contains("CGROUPFS") || config.contains("SYSTEMD"), "{config}");
        crictl.run(&["update-runtime-config", "--pod-cidr", "10.1.2.0/24"]);
    });
}

#[test]
fn credentials() {
    Machine::run(async |machine, daemon| {
        let crictl = &Tool::crictl(machine, daemon);
        let registry = Registry::start_locked();
        let image = images::named("busybox").push(&registry, "private/shell", "v1").to_string();
        let refused = crictl.fails(&["pull", &image]);
        assert!(refused.contains("the registry wants user and password"), "{refused}");
        let wrong = crictl.fails(&["pull", "--creds", "pup:wrong", &image]);
        assert!(!wrong.contains("wrong\""), "a password is not repeated: {wrong}");
        crictl.run(&["pull", "--creds", &format!("{USER}:{PASSWORD}"), &image]);
        crictl.run(&["rmi", &image]);
        // base64 of pup:secret.
        crictl.run(&["pull", "--auth", "cHVwOnNlY3JldA==", &image]);
        assert!(crictl.run(&["images"]).contains("private/shell"));
        drop(registry);
    });
}

#[test]
fn all_at_once() {
    Machine::run(async |machine, daemon| {
        let crictl = &Tool::crictl(machine, daemon);
        let scene = Scene::new(machine, crictl, "exec sleep 1000", |_| {});
        let unused = machine.image_as("busybox", "unused");
        let nginx = machine.image("nginx");
        for image in [&unused, &nginx] {
            crictl.run(&["pull", image]);
        }
        let kept = crictl.run(&["images"]);
        assert!(kept.contains("nginx") && kept.contains("busybox"), "{kept}");
        crictl.run(&["rmi", "--prune"]);
        let kept = crictl.run(&["images"]);
        assert!(!kept.contains("nginx") && kept.contains("busybox"), "{kept}");
        let file = crictl.json(&["imagefsinfo"]);
        let used = &file["status"]["imageFilesystems"][0]["usedBytes"]["value"];
        assert!(used.as_str().expect("a number").parse::<u64>().expect("a number") > 0, "{file}");

        // By name, label and state, as people have their containers in mind.
        assert_eq!(crictl.run(&["ps", "-q", "--no-trunc", "--name", "^main$"]), scene.container);
        assert_eq!(crictl.run(&["ps", "-q", "--pod", &scene.pod, "--state", "exited"]), "");
        assert_eq!(crictl.run(&["pods", "-q", "--no-trunc", "--label", "app=scene"]), scene.pod);
        assert!(crictl.run(&["exec", "-s", "--name", "main", "hostname"]).ends_with("scene"));
        let table = crictl.run(&["inspect", "-o", "table", &scene.container]);
        assert!(table.contains("Name: main"), "{table}");

        let image = machine.image("busybox");
        scene.add("second", &image, &["sleep", "1000"]);
        crictl.run(&["stop", "-t", "0", &scene.container]);
        crictl.run(&["rm", "-f", "-a"]);
        assert_eq!(crictl.run(&["ps", "-a", "-q"]), "");
        crictl.run(&["rmp", "-f", "-a"]);
        assert_eq!(crictl.run(&["pods", "-q"]), "");
        crictl.run(&["rmi", "-a"]);
        assert_eq!(crictl.run(&["images", "-q"]), "");

        assert!(crictl.run(&["completion", "bash"]).contains("crictl"));
        let endpoint = crictl.run(&["config", "--get", "runtime-endpoint"]);
        assert_eq!(endpoint, format!("unix://{}", daemon.socket().display()));
        crictl.run(&["config", "--set", "timeout=33"]);
        assert_eq!(crictl.run(&["config", "--get", "timeout"]), "33");
    });
}
