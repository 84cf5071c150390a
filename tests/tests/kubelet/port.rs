//! What people do through the kubelet's port: kubectl's exec, attach,
//! port-forward and logs end here, by Kubernetes' own client.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Stdio};

use corten_tests::images::PAGE;
use corten_tests::kubelet::{Age, Kubelet, NODE, Settings, get};
use corten_tests::tool::text;
use serde_json::json;

use crate::{idle, on_kubelet, shell, simple};

/// The path of an exec of a script.
fn exec(script: &str, more: &str) -> String {
    let script: String = script.bytes().map(|byte| format!("%{byte:02x}")).collect();
    format!("/exec/default/main-{NODE}/main?command=sh&command=-c&command={script}&output=1{more}")
}

/// Both streams and the exit code of a script; what it reads is `input`.
fn run_in_pod(
    kubelet: &Kubelet,
    wire: &[&str],
    path: &str,
    input: &str,
) -> (String, String, Option<i32>) {
    let mut visitor = kubelet.visitor(&[&["exec"], wire].concat(), path);
    visitor.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut visitor = visitor.spawn().expect("the visitor can be run");
    let mut stdin = visitor.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("input is written");
    drop(stdin);
    let output = visitor.wait_with_output().expect("the visitor ends");
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

/// A visitor that goes on, and its output; killed when dropped.
struct Visit(Child, BufReader<ChildStdout>);

impl Visit {
    fn start(kubelet: &Kubelet, arguments: &[&str], path: &str, after: &[&str]) -> Self {
        let mut visitor = kubelet.visitor(arguments, path);
        visitor.args(after).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut visitor = visitor.spawn().expect("the visitor can be run");
        let stdout = visitor.stdout.take().expect("a pipe");
        Self(visitor, BufReader::new(stdout))
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).expect("a line is read");
        line.trim_end().to_owned()
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn through_the_port(age: Age, wires: &'static [&'static [&'static str]]) {
    on_kubelet(Settings { age, ..Settings::default() }, async |machine, _, kubelet| {
        let (busybox, nginx) = (machine.image("busybox"), machine.image("nginx"));
        kubelet.put(&simple("main", idle(&busybox)));
        let echo = "echo ready; while read line; do echo got $line; done";
        kubelet.put(&simple("echo", shell("main", &busybox, echo, json!({ "stdin": true }))));
        let server = json!({ "name": "main", "image": nginx, "imagePullPolicy": "IfNotPresent" });
        kubelet.put(&simple("web", server));
        for name in ["main", "echo", "web"] {
            kubelet.ready(name).await;
        }
        for wire in wires {
            let path = exec("echo out; echo err >&2; exit 3", "&error=1");
            let ended = run_in_pod(kubelet, wire, &path, "");
            assert_eq!(ended, ("out".into(), "err".into(), Some(3)), "{wire:?}");
            let path = exec("cat; echo end", "&input=1&error=1");
            let ended = run_in_pod(kubelet, &[wire, &["-stdin"][..]].concat(), &path, "a\nb\n");
            assert_eq!((&*ended.0, ended.2), ("a\nb\nend", Some(0)), "{wire:?}: {}", ended.1);
            let path = exec("test -t 0 && test -t 1 && echo terminal", "&input=1&tty=1");
            let arguments = [wire, &["-stdin", "-tty"][..]].concat();
            let ended = run_in_pod(kubelet, &arguments, &path, "");
            assert_eq!((&*ended.0, ended.2), ("terminal", Some(0)), "{wire:?}: {}", ended.1);

            let path = format!("/attach/default/echo-{NODE}/main?input=1&output=1&error=1");
            let arguments = [&["attach"][..], wire, &["-stdin"]].concat();
            let mut attached = Visit::start(kubelet, &arguments, &path, &[]);
            let stdin = attached.0.stdin.as_mut().expect("a pipe");
            writeln!(stdin, "over {}", wire.len()).expect("a line is sent");
            let line = format!("got over {}", wire.len());
            assert_eq!(attached.line(), line);
            drop(attached);
            kubelet
                .waits("the line is in the log", |kubelet| {
                    kubelet.said("echo", "main").lines().any(|there| there == line).then_some(())
                })
                .await;

            let path = format!("/portForward/default/web-{NODE}");
            let arguments = [&["forward"][..], wire].concat();
            let mut forward = Visit::start(kubelet, &arguments, &path, &["0:80"]);
            let said = forward.line();
            let port = said.strip_prefix("Forwarding from 127.0.0.1:").expect("a port is ready");
            let port = port.split(' ').next().and_then(|port| port.parse().ok()).expect("a port");
            for _ in 0..3 {
                assert_eq!(get(port, "/").as_deref(), Some(PAGE), "{wire:?}");
            }
        }
        let path = format!("/containerLogs/default/echo-{NODE}/main?follow=true&tailLines=1");
        let mut follows = Visit::start(kubelet, &["get"], &path, &[]);
        assert!(follows.line().starts_with("got over"));
    });
}

#[test]
#[ignore = "run by cargo xtask kubelet"]
fn exec_attach_forward_and_logs() {
    through_the_port(Age::Newest, &[&[], &["-websocket"]]);
}

/// Its WebSockets are of the kind that kubectl no longer speaks.
#[test]
#[ignore = "run by cargo xtask kubelet"]
fn the_port_of_an_older_kubelet() {
    through_the_port(Age::Older, &[&[]]);
}
