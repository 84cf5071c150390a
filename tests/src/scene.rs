//! A pod on a machine, and short ways to ask what its containers see.

use corten_api::cri;
use tonic::Status;

use crate::client::{Client, Container, Pod, log_lines, log_path};
use crate::daemon::Daemon;
use crate::machine::Machine;
use crate::poll::until;

/// A pod that runs, and the image of its containers.
pub struct Scene {
    /// Talks to the daemon.
    pub client: Client,
    /// What the pod was asked to be.
    pub pod: Pod,
    /// Its id.
    pub id: String,
    /// The shell image.
    pub image: String,
    group: String,
    containers: u32,
}

/// What a container said, and how it ended.
#[derive(Debug)]
pub struct Said {
    /// Both streams of its log, as text.
    pub text: String,
    /// Its state after the end.
    pub status: cri::ContainerStatus,
}

impl Scene {
    /// Pulls the shell image and runs a pod, changed to the test's wishes.
    pub async fn new(machine: &Machine, daemon: &Daemon, change: impl FnOnce(&mut Pod)) -> Self {
        Self::named(machine, daemon, "pod", change).await
    }

    /// Likewise, with a name: for tests of several pods.
    pub async fn named(
        machine: &Machine,
        daemon: &Daemon,
        name: &str,
        change: impl FnOnce(&mut Pod),
    ) -> Self {
        let mut client = daemon.client().await;
        let image = machine.image("busybox");
        client.pull(&image).await.expect("the image is pulled");
        let mut pod = Pod::new(machine, name);
        change(&mut pod);
        let id = client.run_pod(&pod).await.expect("the pod runs");
        let group = machine.pod_group(&id);
        Self { client, pod, id, image, group, containers: 0 }
    }

    /// The cgroup of a container, of a pod whose client named no parent.
    pub fn group(&self, container: &str) -> String {
        format!("{}/{container}", self.group)
    }

    /// A container with a name of its own that runs a script.
    pub fn shell(&mut self, script: &str) -> Container {
        self.containers += 1;
        Container::shell(&format!("c{}", self.containers), &self.image, script)
    }

    /// Starts a container that idles: its id. No shell comes first, so that it
    /// is `sleep` as soon as it runs.
    pub async fn idle(&mut self, change: impl FnOnce(&mut Container)) -> String {
        let mut container = self.shell("");
        container.config.command = vec!["sleep".into(), "1000".into()];
        change(&mut container);
        self.start(&container).await.expect("the container runs")
    }

    /// Creates and starts a container.
    pub async fn start(&mut self, container: &Container) -> Result<String, Status> {
        self.client.run(&self.id, &self.pod, container).await
    }

    /// Runs a container to its end: what it said.
    pub async fn run(&mut self, container: &Container) -> Said {
        let id = self.start(container).await.expect("the container runs");
        let status = self.client.ended(&id).await;
        let text = self.log_of(container);
        self.client.remove(&id).await.expect("the container is removed");
        Said { text, status }
    }

    /// Runs a script in a container that is changed to the test's wishes, and
    /// must succeed: what it said.
    pub async fn says(&mut self, script: &str, change: impl FnOnce(&mut Container)) -> String {
        let mut container = self.shell(script);
        change(&mut container);
        let said = self.run(&container).await;
        assert_eq!(said.status.exit_code, 0, "{script:?} failed: {}", said.text);
        said.text
    }

    /// The error of a container that cannot be created or started.
    pub async fn refused(&mut self, change: impl FnOnce(&mut Container)) -> String {
        let mut container = self.shell("true");
        change(&mut container);
        match self.start(&container).await {
            Ok(_) => panic!("the container was started"),
            Err(status) => status.message().to_owned(),
        }
    }

    /// The lines of a container's log.
    pub fn log_of(&self, container: &Container) -> String {
        let lines = log_lines(&log_path(&self.pod, container));
        let text =
            lines.into_iter().map(|(_, tag, text)| if tag == "P" { text } else { text + "\n" });
        text.collect()
    }

    /// Waits until the log of a container has this line.
    pub async fn logged(&self, container: &Container, line: &str) {
        until(&format!("the log says {line:?}"), async || {
            self.log_of(container).lines().any(|there| there == line).then_some(())
        })
        .await;
    }
}

/// The value of a field of /proc/self/status, as `name:\tvalue` lines have it.
pub fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("no {name} in {text:?}")).trim()
}
