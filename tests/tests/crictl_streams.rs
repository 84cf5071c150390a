//! The real crictl at streams: exec, attach and port-forward over both
//! transports; events; checkpoints.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use corten_tests::crictl::{Beside, Scene};
use corten_tests::images::PAGE;
use corten_tests::poll::PATIENCE;
use corten_tests::tool::{Tool, text};
use corten_tests::{Machine, until};
use serde_json::json;

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
        // Where nobody listens yet, the client gives up for good.
        until("the server serves", async || {
            let wget = ["exec", "-s", id, "wget", "-q", "-O", "-", "http://127.0.0.1/"];
            crictl.try_run(&wget).status.success().then_some(())
        })
        .await;
        for transport in ["spdy", "websocket"] {
            let forward = ["port-forward", "-r", transport, scene.pod.as_str(), "0:80"];
            let forward = Beside::start(crictl, &forward);
            let line = forward.line("Forwarding from 127.0.0.1:");
            let address = line.split_whitespace().nth(2).expect("an address").to_owned();
            // Two connections over the same stream.
            assert_eq!(page(&address).as_deref(), Some(PAGE));
            assert_eq!(page(&address).as_deref(), Some(PAGE));
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
fn events() {
    Machine::run(async |machine, daemon| {
        let crictl = &Tool::crictl(machine, daemon);
        let wait = "until [ -e /go ]; do sleep 0.1; done; exit 3";
        let scene = Scene::new(machine, crictl, wait, |_| {});
        let id = scene.container.as_str();
        let template = "{{.containerId}} {{.containerEventType}}";
        let events =
            Beside::start(crictl, &["events", "-o", "go-template", "--template", template]);
        // It may not listen yet; once it has heard anything, it does.
        let (image, mut number) = (machine.image("busybox"), 0);
        until("events are heard", async || {
            number += 1;
            let id = scene.add(&format!("noise{number}"), &image, &["true"]);
            crictl.run(&["rm", "-f", &id]);
            events.has_line().then_some(())
        })
        .await;
        crictl.run(&["exec", "-s", id, "touch", "/go"]);
        events.line(&format!("{id} CONTAINER_STOPPED_EVENT"));
        crictl.run(&["rm", id]);
        events.line(&format!("{id} CONTAINER_DELETED_EVENT"));
        let id = scene.add("last", &image, &["true"]);
        for kind in ["CREATED", "STARTED", "STOPPED"] {
            events.line(&format!("{id} CONTAINER_{kind}_EVENT"));
        }
        events.kill();
    });
}

#[test]
fn checkpoints() {
    Machine::run(async |machine, daemon| {
        let crictl = &Tool::crictl(machine, daemon);
        let scene = Scene::new(machine, crictl, "exec sleep 1000", |_| {});
        checkpoint(machine, crictl, &scene.container);
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
