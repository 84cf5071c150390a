//! Streams: exec, attach and port-forward, with the clients that people use.

use std::io::Write;
use std::process::Stdio;

use corten_tests::machine::Machine;
use corten_tests::tool::{Tool, text};
use corten_tests::{Daemon, Scene};

/// Both transports of crictl.
const TRANSPORTS: [&str; 1] = ["spdy"];

async fn idle(machine: &Machine, daemon: &Daemon) -> (Scene, String) {
    let mut scene = Scene::new(machine, daemon, |_| {}).await;
    let id = scene.idle(|_| {}).await;
    (scene, id)
}

#[test]
fn crictl_executes() {
    Machine::run(async |machine, daemon| {
        let (_scene, id) = idle(machine, daemon).await;
        let crictl = Tool::crictl(machine, daemon);
        for transport in TRANSPORTS {
            let exec = |script: &str, stdin: &[u8]| {
                let arguments = ["exec", "-r", transport, "-i", &id, "/bin/sh", "-c", script];
                let mut command = crictl.command(&arguments);
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
                let mut child = command.spawn().expect("crictl can be run");
                child.stdin.take().expect("a pipe").write_all(stdin).expect("it reads");
                child.wait_with_output().expect("crictl ends")
            };
            let output = exec("tr a-z A-Z; echo done >&2", b"hello");
            assert_eq!(text(&output.stdout), "HELLO", "{transport}: {output:?}");
            assert_eq!(text(&output.stderr), "done", "{transport}");
            assert!(output.status.success());
            let failed = exec("exit 7", b"");
            assert!(text(&failed.stderr).contains("exit code 7"), "{transport}: {failed:?}");
        }
    });
}
