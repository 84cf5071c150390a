//! Every command of the real crictl that `crictl.rs` does not have: streams,
//! logs, stats, events, updates, credentials, and what takes all at once.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use corten_image::testing::{PASSWORD, Registry, USER};
use corten_tests::images::{self, PAGE};
use corten_tests::poll::PATIENCE;
use corten_tests::tool::{Tool, container, pod, text};
use corten_tests::{Machine, until};
use serde_json::{Value, json};

/// A pod with one container that runs a shell script.
struct Scene<'a> {
    crictl: &'a Tool,
    pod_file: String,
    pod: String,
    container: String,
}

impl<'a> Scene<'a> {
    fn new(
        machine: &Machine,
        crictl: &'a Tool,
        script: &str,
        change: impl FnOnce(&mut Value),
    ) -> Self {
        let image = machine.image("busybox");
        crictl.run(&["pull", &image]);
        let pod_file = crictl.file("pod.json", &pod(machine, "scene", &json!([])));
        let mut config = container("main", &image, &["/bin/sh", "-c", script]);
        change(&mut config);
        let file = crictl.file("main.json", &config);
        let pod = crictl.run(&["runp", &pod_file]);
        let container = crictl.run(&["create", &pod, &file, &pod_file]);
        crictl.run(&["start", &container]);
        Self { crictl, pod_file, pod, container }
    }

    fn add(&self, name: &str, image: &str, command: &[&str]) -> String {
        let file = self.crictl.file(&format!("{name}.json"), &container(name, image, command));
        let id = self.crictl.run(&["create", &self.pod, &file, &self.pod_file]);
        self.crictl.run(&["start", &id]);
        id
    }
}

/// A command that runs beside the test, whose lines are waited for.
struct Beside {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Beside {
    fn start(crictl: &Tool, arguments: &[&str]) -> Self {
        let mut command = crictl.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("crictl can be run");
        let stdout = child.stdout.take().expect("a pipe");
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        Self { child, lines }
    }

    fn says(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        stdin.write_all(text.as_bytes()).expect("crictl reads");
    }

    /// The next line with this text.
    fn line(&self, wanted: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("crictl never printed {wanted:?}"));
            if line.contains(wanted) {
                return line;
            }
        }
    }

    /// All that is left, at its end, which must be a success.
    fn rest(mut self) -> String {
        drop(self.child.stdin.take());
        let rest: Vec<String> = self.lines.iter().collect();
        let status = self.child.wait().expect("crictl ends");
        let mut told = String::new();
        let _ = self.child.stderr.take().expect("a pipe").read_to_string(&mut told);
        assert!(status.success(), "{status}: {told}");
        rest.join("\n")
    }

    /// Ends it as a user would. What it complained of.
    fn kill(mut self) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mut told = String::new();
        let _ = self.child.stderr.take().expect("a pipe").read_to_string(&mut told);
        told
    }
}

#[test]
fn streams() {
    Machine::run(async |machine, daemon| {
        let crictl = &Tool::crictl(machine, daemon);
        let script = "while read line; do echo heard $line; done; echo end of input; sleep 1000";
        let scene = Scene::new(machine, crictl, script, |config| {
            config["stdin"] = json!(true);
        });
        let id = scene.container.as_str();
        for transport in ["spdy", "websocket"] {
            exec(crictl, id, transport);
        }
        // Attached twice; the container's input stays open for the second.
        for (transport, word) in [("spdy", "one"), ("websocket", "two")] {
            let mut attached = Beside::start(crictl, &["attach", "-i", "-r", transport, id]);
            attached.says(&format!("{word}\n"));
            attached.line(&format!("heard {word}"));
            attached.kill();
        }
        let nginx = machine.image("nginx");
        crictl.run(&["pull", &nginx]);
        scene.add("server", &nginx, &[]);
        for transport in ["spdy", "websocket"] {
            let forward = ["port-forward", "-r", transport, scene.pod.as_str(), "0:80"];
            let forward = Beside::start(crictl, &forward);
            let line = forward.line("Forwarding from 127.0.0.1:");
            let address = line.split_whitespace().nth(2).expect("an address").to_owned();
            let page = until("the page is forwarded", async || page(&address)).await;
            assert_eq!(page, PAGE);
            // A second connection over the same stream.
            assert_eq!(self::page(&address).as_deref(), Some(PAGE));
            forward.kill();
        }
    });
}

fn exec(crictl: &Tool, id: &str, transport: &str) {
    let run = |more: &[&str]| crictl.try_run(&[&["exec", "-r", transport, id], more].concat());
    let output = run(&["sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("out".into(), "err".into()));
    let failed = run(&["sh", "-c", "exit 7"]);
    assert!(!failed.status.success());
    assert!(text(&failed.stderr).contains("exit code 7"), "{}", text(&failed.stderr));
    let mut cat = Beside::start(crictl, &["exec", "-i", "-r", transport, id, "cat"]);
    cat.says("through and back\n");
    cat.line("through and back");
    assert_eq!(cat.rest(), "", "the end of input ends cat");
    // A terminal, as a person has one.
    let script = "'tty; test -t 0 && test -t 1 && echo a terminal'";
    let command = crictl.command(&["exec", "-it", "-r", transport, id, "sh", "-c", script]);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let output = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .expect("script is installed");
    let told = text(&output.stdout);
    assert!(told.contains("/dev/pts/0") && told.contains("a terminal"), "{told}");
}

/// The page at an address, if there is one.
fn page(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, page)| page.to_owned())
}

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
        checkpoint(machine, crictl, id);
    });
}

/// A checkpoint, where the machine can make one; else a word of why not.
fn checkpoint(machine: &Machine, crictl: &Tool, id: &str) {
    let archive = machine.path("checkpoint.tar");
    let output = crictl.try_run(&["checkpoint", "--export", &archive.display().to_string(), id]);
    if output.status.success() {
        assert!(archive.metadata().expect("an archive").len() > 0);
        return;
    }
    let told = text(&output.stderr);
    assert!(told.contains("FailedPrecondition") && told.contains("criu"), "{told}");
    assert!(!archive.exists(), "no half of a checkpoint is left");
}

#[test]
fn events() {
    Machine::run(async |machine, daemon| {
        let crictl = &Tool::crictl(machine, daemon);
        // Begun before anything happens: the first event is of the pod.
        let events = Beside::start(
            crictl,
            &[
                "events",
                "-o",
                "go-template",
                "--template",
                "{{.containerID}} {{.containerEventType}}",
            ],
        );
        let first = Scene::new(machine, crictl, "exit 3", |_| {});
        for kind in
            ["CONTAINER_CREATED_EVENT", "CONTAINER_STARTED_EVENT", "CONTAINER_STOPPED_EVENT"]
        {
            assert!(events.line(kind).contains(&first.container));
        }
        crictl.run(&["rm", &first.container]);
        assert!(events.line("CONTAINER_DELETED_EVENT").contains(&first.container));
        events.kill();
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
