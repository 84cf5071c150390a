//! The real crictl at work on one pod, and beside a test.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc;

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::poll::PATIENCE;
use crate::tool::{Tool, container, pod};

/// A pod with one container that runs a shell script.
pub struct Scene<'a> {
    crictl: &'a Tool,
    pod_file: String,
    /// The pod's id.
    pub pod: String,
    /// The container's id.
    pub container: String,
}

impl<'a> Scene<'a> {
    /// Pulls the shell image and runs both; the container is changed to the
    /// test's wishes.
    pub fn new(
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

    /// Another container of the pod: its id.
    pub fn add(&self, name: &str, image: &str, command: &[&str]) -> String {
        let file = self.crictl.file(&format!("{name}.json"), &container(name, image, command));
        let id = self.crictl.run(&["create", &self.pod, &file, &self.pod_file]);
        self.crictl.run(&["start", &id]);
        id
    }
}

/// A command that runs beside the test, whose lines are waited for.
pub struct Beside {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Beside {
    /// Starts crictl with these arguments.
    pub fn start(crictl: &Tool, arguments: &[&str]) -> Self {
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

    /// Writes to its input.
    pub fn says(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        stdin.write_all(text.as_bytes()).expect("crictl reads");
    }

    /// The next line with this text.
    pub fn line(&self, wanted: &str) -> String {
        let mut seen = Vec::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line =
                line.unwrap_or_else(|_| panic!("crictl never printed {wanted:?}, but {seen:?}"));
            seen.push(line.clone());
            if line.contains(wanted) {
                return line;
            }
        }
    }

    /// Whether it has printed a line; which is thrown away.
    pub fn has_line(&self) -> bool {
        self.lines.try_recv().is_ok()
    }

    /// All that is left, at its end, which must be a success.
    pub fn rest(mut self) -> String {
        drop(self.child.stdin.take());
        let rest: Vec<String> = self.lines.iter().collect();
        let status = self.child.wait().expect("crictl ends");
        let mut told = String::new();
        let _ = self.child.stderr.take().expect("a pipe").read_to_string(&mut told);
        assert!(status.success(), "{status}: {told}");
        rest.join("\n")
    }

    /// Ends it as an impatient user would.
    pub fn kill(self) {}
}

impl Drop for Beside {
    /// Also when a test fails: nobody reads it any more.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
