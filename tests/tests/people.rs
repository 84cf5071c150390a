//! `corten`, as people type it: containers of theirs beside the kubelet's.

use std::io::{BufRead as _, BufReader};

use corten_kernel::cgroup::Cgroups;
use corten_tests::client::Pod;
use corten_tests::images::PAGE;
use corten_tests::tool::{Tool, page, text};
use corten_tests::{Machine, until};
use serde_json::json;

/// A file of the cgroup that a container's first process is in.
fn cgroup_file(pid: u64, v1: (&str, &str), v2: &str) -> String {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroups");
    let group = |of: &str| {
        groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            controllers.split(',').any(|name| name == of).then(|| path.to_owned())
        })
    };
    let file = if Cgroups::probe().expect("cgroups").is_unified() {
        format!("/sys/fs/cgroup{}/{v2}", group("").expect("v2"))
    } else {
        format!("/sys/fs/cgroup/{}{}/{}", v1.0, group(v1.0).expect("v1"), v1.1)
    };
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn a_container_from_pull_to_rmi() {
    Machine::run(async |machine, daemon| {
        let corten = Tool::corten(machine, daemon);
        let image = machine.image("busybox");
        corten.run(&["pull", &image]);
        assert!(corten.run(&["images"]).contains("/busybox"));
        // In the foreground: its output and its exit code are ours.
        let output =
            corten.try_run(&["run", "--rm", &image, "sh", "-c", "echo out; echo err >&2; exit 7"]);
        assert_eq!((text(&output.stdout), text(&output.stderr)), ("out".into(), "err".into()));
        assert_eq!(output.status.code(), Some(7));
        assert_eq!(corten.try_run(&["run", "--rm", &image, "nonsense"]).status.code(), Some(127));
        assert_eq!(
            corten.try_run(&["run", "--rm", &image, "/etc/passwd"]).status.code(),
            Some(126)
        );
        assert_eq!(corten.run(&["ps", "-a", "-q"]), "", "--rm leaves nothing");

        let script =
            "i=0; trap 'exit 3' TERM; while true; do echo line $i; i=$((i+1)); sleep 0.02; done";
        let id = corten.run(&["run", "-d", "--name", "counter", &image, "sh", "-c", script]);
        assert!(corten.run(&["ps"]).contains("counter"));
        let clash = corten.fails(&["run", "-d", "--name", "counter", &image, "true"]);
        assert!(clash.contains("counter") && clash.contains("corten rm"), "{clash}");
        let inspected = corten.json(&["inspect", "counter"]);
        assert!(inspected.to_string().contains(&id), "{inspected}");

        let mut follower = corten.start(&["logs", "-f", "counter"]);
        let lines = BufReader::new(follower.stdout.take().unwrap()).lines();
        let first: Vec<String> = lines.take(5).map(Result::unwrap).collect();
        assert_eq!(first, ["line 0", "line 1", "line 2", "line 3", "line 4"]);
        follower.kill().unwrap();
        follower.wait().unwrap();
        assert_eq!(corten.run(&["logs", "counter"]).lines().next(), Some("line 0"));

        assert_eq!(corten.run(&["exec", "counter", "hostname"]), "counter");
        let failed = corten.try_run(&["exec", "counter", "sh", "-c", "exit 9"]);
        assert_eq!(failed.status.code(), Some(9));

        corten.run(&["stop", "counter"]);
        assert_eq!(corten.run(&["wait", "counter"]), "3");
        assert!(!corten.run(&["ps"]).contains("counter"));
        assert!(corten.run(&["ps", "-a"]).contains("counter"));
        // Started again it goes on with its own files and log.
        corten.run(&["start", "counter"]);
        assert!(corten.run(&["ps"]).contains("counter"));
        assert!(corten.fails(&["rm", "counter"]).contains("running"));
        corten.run(&["kill", "counter"]);
        assert_eq!(corten.run(&["wait", "counter"]), "137");
        corten.run(&["rm", "counter"]);
        assert_eq!(corten.run(&["ps", "-a", "-q"]), "");
        corten.run(&["rmi", &image]);
        assert_eq!(corten.run(&["images", "-q"]), "");
    });
}

#[test]
fn what_run_can_be_told() {
    Machine::run(async |machine, daemon| {
        let corten = Tool::corten(machine, daemon);
        let image = machine.image("busybox");
        corten.run(&["pull", &image]);
        let shared = machine.path("shared");
        std::fs::create_dir(&shared).unwrap();
        std::fs::write(shared.join("from-host"), "hello").unwrap();
        let volume = format!("{}:/data", shared.display());
        let script =
            "cat /data/from-host; echo; pwd; id -u; echo $COLOUR; echo there > /data/from-inside";
        let seen = corten.run(&[
            "run",
            "--rm",
            "-v",
            &volume,
            "-e",
            "COLOUR=rust",
            "-w",
            "/tmp",
            "-u",
            "root",
            &image,
            "sh",
            "-c",
            script,
        ]);
        assert_eq!(seen, "hello\n/tmp\n0\nrust");
        assert_eq!(std::fs::read_to_string(shared.join("from-inside")).unwrap(), "there\n");
        let read_only = format!("{volume}:ro");
        let output = corten.try_run(&["run", "--rm", "-v", &read_only, &image, "touch", "/data/x"]);
        assert!(text(&output.stderr).contains("Read-only"), "{}", text(&output.stderr));
        assert_eq!(corten.run(&["run", "--rm", "-u", "web", &image, "id", "-un"]), "web");
        assert_eq!(corten.run(&["run", "--rm", "--entrypoint", "echo", &image, "a", "b"]), "a b");

        corten.run(&[
            "run", "-d", "--name", "limited", "--memory", "64m", "--cpus", "0.5", &image, "sleep",
            "1000",
        ]);
        let inspected = corten.json(&["inspect", "limited"]);
        let pid = inspected[0]["pid"].as_u64().unwrap_or_else(|| panic!("no pid: {inspected}"));
        let memory = cgroup_file(pid, ("memory", "memory.limit_in_bytes"), "memory.max");
        assert_eq!(memory.trim(), (64 << 20).to_string());
        let cpu = cgroup_file(pid, ("cpu", "cpu.cfs_quota_us"), "cpu.max");
        assert!(cpu.starts_with("50000"), "{cpu}");
        corten.run(&["rm", "-f", "limited"]);
    });
}

#[test]
fn networks_of_people() {
    // CRI has no network here at all: people's containers use the bridge.
    Machine::run_with(corten_tests::machine::Settings::default(), async |machine, daemon| {
        let corten = Tool::corten(machine, daemon);
        let (nginx, busybox) = (machine.image("nginx"), machine.image("busybox"));
        corten.run(&["run", "-q", "-d", "--name", "web", "-p", "18081:80", &nginx]);
        let address = "127.0.0.1:18081".parse().unwrap();
        assert_eq!(until("the host port answers", async || page(address)).await, PAGE);
        let taken = corten.fails(&["run", "-q", "-d", "--name", "other", "-p", "18081:80", &nginx]);
        assert!(taken.contains("18081"), "{taken}");
        assert_eq!(corten.run(&["ps", "-a"]).matches("other").count(), 0, "nothing is left of it");

        let links = ["run", "-q", "--rm", "--network", "none", &busybox, "ls", "/sys/class/net"];
        assert_eq!(corten.run(&links), "lo");
        let fetch = ["run", "--rm", "--network", "host", &busybox, "wget", "-q", "-O", "-"];
        let url = "http://127.0.0.1:18081/";
        assert_eq!(corten.run(&[&fetch[..], &[url]].concat()), PAGE.trim_end());
        corten.run(&["stop", "web"]);
        corten.run(&["start", "web"]);
        assert_eq!(until("the host port answers", async || page(address)).await, PAGE);
        corten.run(&["rm", "-f", "web"]);
        assert_eq!(page(address), None, "the host port is closed");
        corten.run(&["rmi", &nginx, &busybox]);
    });
}

#[test]
fn people_and_the_kubelet_do_not_meet() {
    Machine::run(async |machine, daemon| {
        let corten = Tool::corten(machine, daemon);
        let mut client = daemon.client().await;
        let image = machine.image("busybox");
        client.pull(&image).await.unwrap();
        let pod = Pod::new(machine, "kubes");
        let id = client.run_pod(&pod).await.unwrap();
        let container = corten_tests::client::Container::shell("inside", &image, "exec sleep 1000");
        client.run(&id, &pod, &container).await.unwrap();

        corten.run(&["run", "-q", "-d", "--name", "mine", &image, "sleep", "1000"]);
        assert_eq!(client.containers().await.len(), 1);
        assert_eq!(client.pods().await.len(), 1);
        let mine = corten.run(&["ps"]);
        assert!(mine.contains("mine") && !mine.contains("inside"), "{mine}");
        let kubelets = corten.run(&["-n", "k8s.io", "ps"]);
        assert!(kubelets.contains("inside") && !kubelets.contains("mine"), "{kubelets}");
        assert!(corten.run(&["-n", "k8s.io", "pods"]).contains("kubes"));

        // The kubelet's removal of an image leaves people's.
        client.remove_everything().await;
        assert!(corten.run(&["images"]).contains("busybox"));
        assert!(corten.run(&["ps"]).contains("mine"));
        corten.run(&["rm", "-f", "mine"]);
        corten.run(&["rmi", &image]);
    });
}

#[test]
fn a_daemon_that_is_killed_does_not_disturb_people() {
    Machine::run(async |machine, daemon| {
        let corten = Tool::corten(machine, daemon);
        let image = machine.image("busybox");
        let script = "trap 'exit 4' TERM; while true; do sleep 0.02; done";
        corten.run(&["run", "-q", "-d", "--name", "lasting", &image, "sh", "-c", script]);
        let short = ["run", "-q", "-d", "--name", "short", &image, "sh", "-c", "sleep 0.1; exit 6"];
        corten.run(&short);
        let before = corten.json(&["inspect", "lasting"])[0]["pid"].clone();
        assert!(before.as_u64().is_some());
        daemon.kill();
        assert!(corten.fails(&["ps"]).contains("unable to reach the daemon"));
        std::fs::metadata(format!("/proc/{before}")).expect("it runs on");
        daemon.start_again().await;
        assert_eq!(corten.json(&["inspect", "lasting"])[0]["pid"], before);
        assert_eq!(corten.run(&["wait", "short"]), "6");
        assert_eq!(corten.run(&["exec", "lasting", "echo", "here"]), "here");
        corten.run(&["stop", "lasting"]);
        assert_eq!(corten.run(&["wait", "lasting"]), "4");
        // What ended under another daemon can be started again.
        corten.run(&["start", "lasting"]);
        corten.run(&["rm", "-f", "lasting", "short"]);
        corten.run(&["rmi", &image]);
    });
}

#[test]
fn images_travel_as_archives() {
    Machine::run(async |machine, daemon| {
        let corten = Tool::corten(machine, daemon);
        let image = machine.image("busybox");
        corten.run(&["pull", &image]);
        let archive = machine.path("image.tar").display().to_string();
        corten.run(&["save", "-o", &archive, &image]);
        corten.run(&["rmi", &image]);
        assert_eq!(corten.run(&["images", "-q"]), "");
        corten.run(&["load", "-i", &archive]);
        let seen = corten.run(&["run", "--rm", "--pull", "never", &image, "echo", "loaded"]);
        assert_eq!(seen, "loaded");
        let images = corten.json(&["images", "-o", "json"]);
        assert_ne!(images, json!([]));
        corten.run(&["rmi", &image]);
    });
}
