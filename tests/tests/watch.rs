//! What people see of running containers, and of what is wrong: `corten
//! stats`, `top`, `events`, `update` and `doctor`.

use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd;

use corten_kernel::netlink::make_namespace_set;
use corten_tests::tool::{Tool, text};
use corten_tests::{Machine, until};

#[test]
fn figures_processes_and_limits() {
    Machine::run(async |machine, daemon| {
        let corten = Tool::corten(machine, daemon);
        let image = machine.image("busybox");
        let script = "yes > /dev/null & exec sleep 1234";
        corten.run(&["run", "-q", "-d", "--name", "busy", &image, "sh", "-c", script]);
        let busy = until("it uses the CPU", async || {
            let figures = corten.json(&["stats", "-o", "json", "busy"]);
            (figures[0]["cpuNanoseconds"].as_u64()? > 0 && figures[0]["pids"].as_u64()? == 2)
                .then_some(figures)
        });
        assert_eq!(busy.await[0]["name"], "busy");
        assert!(corten.run(&["stats", "--no-stream"]).contains("busy"));
        assert!(corten.fails(&["stats", "nobody"]).contains("nobody"));

        // Both begin as the shell.
        until("they are what they become", async || {
            let processes = corten.run(&["top", "busy"]);
            (processes.contains("sleep 1234") && processes.contains("yes")).then_some(())
        })
        .await;
        let first = &corten.json(&["inspect", "busy"])[0]["pid"];
        assert_eq!(corten.json(&["top", "-o", "json", "busy"])[0]["pid"], *first);

        assert!(corten.fails(&["update", "busy"]).contains("none is named"));
        corten.run(&["update", "--memory", "96m", "--pids-limit", "50", "busy"]);
        let figures = corten.json(&["stats", "-o", "json", "busy"]);
        assert_eq!(figures[0]["memoryLimitBytes"], 96 << 20);
        assert_eq!(figures[0]["pidsLimit"], 50);
        corten.run(&["rm", "-f", "busy"]);
        assert!(corten.fails(&["top", "busy"]).contains("no container"));
        corten.run(&["rmi", &image]);
    });
}

#[test]
fn events_are_told_as_they_happen() {
    Machine::run(async |machine, daemon| {
        let corten = Tool::corten(machine, daemon);
        let image = machine.image("busybox");
        let run = ["run", "-q", "--rm", "--name", "one", &image, "sh", "-c", "exit 3"];
        assert_eq!(corten.try_run(&run).status.code(), Some(3));
        let past = corten.run(&["events", "--past"]);
        let happened: Vec<&str> = past.lines().filter(|line| line.contains(" one ")).collect();
        for what in ["created", "started", "stopped (3, Error)", "deleted"] {
            assert!(happened.iter().any(|line| line.contains(what)), "{what}: {past}");
        }
        let mut follower = corten.start(&["events", "--since", "0", "-o", "json"]);
        let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
        corten.run(&["run", "-q", "--rm", "--name", "two", &image, "true"]);
        let told = lines.any(|line| {
            let event: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
            event["containerName"] == "two" && event["kind"] == "stopped"
        });
        assert!(told);
        follower.kill().unwrap();
        follower.wait().unwrap();
        corten.run(&["rmi", &image]);
    });
}

#[test]
fn the_doctor_finds_what_belongs_to_nobody() {
    Machine::run(async |machine, daemon| {
        let corten = Tool::corten(machine, daemon);
        let left_over = || {
            let output = corten.try_run(&["doctor", "-o", "json"]);
            let findings: serde_json::Value =
                serde_json::from_str(&text(&output.stdout)).expect("findings");
            let all = findings.as_array().expect("a list").clone();
            all.into_iter().filter(|one| one["subject"] == "left over").collect::<Vec<_>>()
        };
        let image = machine.image("busybox");
        corten.run(&["run", "-q", "-d", "--name", "known", &image, "sleep", "1000"]);
        assert_eq!(left_over(), Vec::<serde_json::Value>::new());
        // A namespace that somebody pinned, of a pod that never was.
        let net = make_namespace_set().unwrap().net;
        let path = machine.path("state/netns").join("ab".repeat(32));
        corten_kernel::ns::bind(net.as_fd(), &path).unwrap();
        let found = left_over();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0]["text"].as_str().unwrap().contains(&"ab".repeat(32)));
        assert!(corten.run(&["doctor"]).contains("belongs to no pod"));
        corten_kernel::ns::unbind(&path).unwrap();
        corten.run(&["rm", "-f", "known"]);
        corten.run(&["rmi", &image]);
    });
}
