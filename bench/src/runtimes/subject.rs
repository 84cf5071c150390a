//! A runtime that runs, and the pods that the bench makes in it.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use corten_api::cri;
use corten_kernel::cgroup::{Cgroups, Resources};
use corten_spec::container::{MASKED_PATHS, READONLY_PATHS};
use corten_tests::Client;
use corten_tests::client::{Container, Pod, runtime_default};

use super::recipe::{Recipe, described};
use crate::home::{Home, PODS};
use crate::measure::charge::Charge;
use crate::measure::process;
use crate::report::{Role, Runtime};

/// The memory limit of a container.
const MEMORY_BYTES: i64 = 128 << 20;
/// What the kubelet gives to containers that asked for nothing special.
const OOM_SCORE_ADJ: i64 = 1000;
const CPU_SHARES: i64 = 102;
/// How long a daemon may take until it serves.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a daemon that starts is tried.
const TRY_AGAIN: Duration = Duration::from_micros(200);
/// How many lines of a daemon's log an error shows.
const LOG_LINES: usize = 5;

/// A runtime under test.
pub struct Subject {
    recipe: Recipe,
    home: Option<Home>,
    daemon: Option<u32>,
    client: Client,
    /// What containers are made of.
    image: String,
    logs: PathBuf,
    /// The image was not there before.
    pulled: bool,
    /// It could not be cleared after something failed.
    lost: bool,
}

/// Ids of a running pod.
#[derive(Debug, Clone)]
pub struct Running {
    /// What the bench calls it.
    pub name: String,
    /// The sandbox.
    pub pod: String,
    /// Its containers, in the order of their starts.
    pub containers: Vec<String>,
}

impl Running {
    /// Its first container.
    pub fn container(&self) -> &str {
        self.containers.first().map_or("", String::as_str)
    }
}

impl Subject {
    /// Starts a runtime in its home.
    pub(super) async fn of_home(mut home: Home, recipe: Recipe) -> Result<Self> {
        let log = home.path("daemon.log");
        let daemon = home.start(&recipe.command, &recipe.environment, &log)?;
        let client = serves(&recipe.socket, Some(daemon)).await.with_context(|| tail(&log))?;
        let (image, logs) = (home.image("busybox"), home.path("pod-logs"));
        let mut subject = Self {
            recipe,
            home: Some(home),
            daemon: Some(daemon),
            client,
            image,
            logs,
            pulled: false,
            lost: false,
        };
        // Its log goes with it.
        subject.prepare().await.with_context(|| tail(&log))?;
        Ok(subject)
    }

    /// Takes a runtime that somebody else runs.
    pub(super) async fn of_others(
        name: &str,
        socket: &Path,
        below: &Path,
        image: &str,
    ) -> Result<Self> {
        let mut client = serves(socket, None).await?;
        let request = cri::VersionRequest::default();
        let version = client.runtime.version(request).await?.into_inner();
        let versions = vec![format!("{} {}", version.runtime_name, version.runtime_version)];
        let recipe = Recipe {
            runtime: described(name, Role::Peer, "its own", versions),
            command: Vec::new(),
            environment: Vec::new(),
            socket: socket.to_owned(),
            monitors: &[],
        };
        let daemon = listener(socket);
        let (image, logs) = (image.to_owned(), below.join(format!("{name}.pod-logs")));
        let home = None;
        let mut subject =
            Self { recipe, home, daemon, client, image, logs, pulled: false, lost: false };
        subject.prepare().await?;
        Ok(subject)
    }

    /// Waits until pods can have a network, and pulls the image.
    async fn prepare(&mut self) -> Result<()> {
        let mut client = self.client();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request = cri::StatusRequest { verbose: false };
            let status = client.runtime.status(request).await?.into_inner().status;
            let conditions = status.unwrap_or_default().conditions;
            if ESSENTIAL.iter().all(|name| met(&conditions, name)) {
                break;
            }
            if Instant::now() > deadline {
                bail!("{} is not ready: {conditions:?}", self.name());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let request = cri::ImageStatusRequest { image: self.image_spec(), verbose: false };
        let known = client.images.image_status(request).await?.into_inner().image.is_some();
        client.pull(&self.image).await.with_context(|| format!("unable to pull {}", self.image))?;
        self.pulled = !known;
        Ok(())
    }

    fn image_spec(&self) -> Option<cri::ImageSpec> {
        Some(cri::ImageSpec { image: self.image.clone(), ..Default::default() })
    }

    /// What the report says of it.
    pub fn runtime(&self) -> &Runtime {
        &self.recipe.runtime
    }

    /// As series call it.
    pub fn name(&self) -> &str {
        &self.recipe.runtime.name
    }

    /// Whose it is.
    pub fn role(&self) -> Role {
        self.recipe.runtime.role
    }

    /// Whether the bench runs it, and not somebody else.
    pub fn is_at_home(&self) -> bool {
        self.home.is_some()
    }

    /// Whether it is not to be asked for anything any more.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// From now on it is.
    pub fn lose(&mut self) {
        self.lost = true;
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Where it lives; none if somebody else runs it.
    pub fn home(&mut self) -> Option<&mut Home> {
        self.home.as_mut()
    }

    /// The pid of its daemon, if that is known.
    pub fn daemon(&self) -> Option<u32> {
        self.daemon
    }

    /// The name of the image that its pods are made of.
    pub fn image(&self) -> &str {
        &self.image
    }

    /// A pod as the kubelet makes it, whose cgroup is there already.
    ///
    /// # Errors
    /// If the cgroup cannot be made.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        let mut pod = Pod::logging_to(&self.logs, name);
        std::fs::create_dir_all(&pod.config.log_directory).context("unable to make a directory")?;
        pod.config.metadata.get_or_insert_default().namespace = NAMESPACE.to_owned();
        pod.config.dns_config = Some(cri::DnsConfig {
            servers: vec!["192.0.2.53".into()],
            searches: vec!["default.svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
        });
        let linux = pod.config.linux.get_or_insert_default();
        linux.security_context.get_or_insert_default().seccomp = runtime_default();
        if let Some(group) = self.pod_group(name) {
            Cgroups::probe()?.create(&group, &Resources::default())?;
            linux.cgroup_parent = group;
        }
        Ok(pod)
    }

    /// A container that sleeps.
    pub fn container(&self, name: &str) -> Container {
        let mut container = Container::new(name, &self.image, &["sleep", "1000000"]);
        if let Some(image) = &mut container.config.image {
            image.user_specified_image.clone_from(&self.image);
        }
        confine(&mut container);
        container.linux().resources = Some(cri::LinuxContainerResources {
            cpu_shares: CPU_SHARES,
            memory_limit_in_bytes: MEMORY_BYTES,
            oom_score_adj: OOM_SCORE_ADJ,
            ..Default::default()
        });
        container
    }

    /// Makes a pod of one container.
    ///
    /// # Errors
    /// If the runtime does not.
    pub async fn start_pod(&self, name: &str) -> Result<Running> {
        let pod = self.pod(name)?;
        self.start_prepared(&pod, &[self.container("main")]).await
    }

    /// Makes a pod of these containers.
    ///
    /// # Errors
    /// If the runtime does not.
    pub async fn start_prepared(&self, pod: &Pod, containers: &[Container]) -> Result<Running> {
        let mut client = self.client();
        let name = pod.config.hostname.clone();
        let id = client.run_pod(pod).await.context("RunPodSandbox")?;
        let mut started = Vec::new();
        for container in containers {
            let container = client.create(&id, pod, container).await.context("CreateContainer")?;
            client.start(&container).await.context("StartContainer")?;
            started.push(container);
        }
        Ok(Running { name, pod: id, containers: started })
    }

    /// Takes a pod away, as the kubelet does.
    ///
    /// # Errors
    /// If the runtime does not.
    pub async fn end_pod(&self, running: &Running) -> Result<()> {
        let mut client = self.client();
        for container in &running.containers {
            client.stop(container, 0).await.context("StopContainer")?;
        }
        for container in &running.containers {
            client.remove(container).await.context("RemoveContainer")?;
        }
        client.stop_pod(&running.pod).await.context("StopPodSandbox")?;
        client.remove_pod(&running.pod).await.context("RemovePodSandbox")
    }

    /// Removes what the kubelet would remove of a pod that is gone.
    pub fn forget(&self, name: &str) {
        if let Some(group) = self.pod_group(name) {
            // A peer may still be at it; the home's end removes what stays.
            let _ = Cgroups::probe().and_then(|cgroups| cgroups.remove(&group));
        }
        let _ = std::fs::remove_dir_all(self.logs.join(name));
    }

    fn pod_group(&self, name: &str) -> Option<String> {
        self.home.as_ref().map(|home| format!("{}/{PODS}/pod{name}", home.cgroup()))
    }

    /// Removes all pods of the bench, whatever state they are in.
    ///
    /// # Errors
    /// If the runtime does not remove them.
    pub async fn clear(&self) -> Result<()> {
        let mut client = self.client();
        let request = cri::ListPodSandboxRequest::default();
        let listed = client.runtime.list_pod_sandbox(request).await?.into_inner().items;
        for pod in &listed {
            let metadata = pod.metadata.clone().unwrap_or_default();
            // In a runtime of somebody else, pods of others stay.
            if self.home.is_none() && metadata.namespace != NAMESPACE {
                continue;
            }
            client.stop_pod(&pod.id).await.context("StopPodSandbox")?;
            client.remove_pod(&pod.id).await.context("RemovePodSandbox")?;
            self.forget(&metadata.name);
        }
        Ok(())
    }

    /// `kill -9` of the daemon.
    ///
    /// # Errors
    /// If it is not the bench's to kill.
    pub fn kill(&mut self) -> Result<()> {
        let home = self.home.as_mut().context("the daemon is somebody else's")?;
        let daemon = self.daemon.take().context("the daemon does not run")?;
        home.end(daemon, false)
    }

    /// Starts the daemon again, and waits until its socket answers: how long
    /// that took.
    ///
    /// # Errors
    /// If it does not come to serve.
    pub async fn start_again(&mut self) -> Result<Duration> {
        let home = self.home.as_mut().context("the daemon is somebody else's")?;
        let log = home.path("daemon.log");
        let begun = Instant::now();
        let daemon = home.start(&self.recipe.command, &self.recipe.environment, &log)?;
        self.daemon = Some(daemon);
        let served = serves(&self.recipe.socket, self.daemon).await;
        let took = begun.elapsed();
        self.client = served.with_context(|| tail(&log))?;
        Ok(took)
    }

    /// Makes it serve again, without pods, after something failed.
    ///
    /// # Errors
    /// If it does not.
    pub async fn recover(&mut self) -> Result<()> {
        let answers = Client::try_connect(&self.recipe.socket).await;
        match answers {
            Some(client) => self.client = client,
            None if self.is_at_home() => {
                if self.daemon.is_some() {
                    self.kill()?;
                }
                self.start_again().await?;
            }
            None => bail!("{} does not answer any more", self.recipe.socket.display()),
        }
        self.clear().await
    }

    /// What its cgroups are charged; none if somebody else runs it.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn charge(&self) -> Result<Option<Charge>> {
        self.home.as_ref().map(|home| Charge::of(home.cgroup())).transpose()
    }

    /// The programs that stand by its pods.
    ///
    /// # Errors
    /// If cgroups cannot be read.
    pub fn monitors(&self) -> Result<Vec<u32>> {
        let Some(home) = &self.home else { return Ok(Vec::new()) };
        let pids: BTreeSet<i32> =
            Cgroups::probe()?.open(home.cgroup())?.pids()?.into_iter().collect();
        let pids = pids.into_iter().filter_map(|pid| u32::try_from(pid).ok());
        let is_monitor = |pid: &u32| {
            process::program(*pid).is_some_and(|name| self.recipe.monitors.contains(&&*name))
        };
        Ok(pids.filter(is_monitor).collect())
    }

    /// Whether its monitors can be told from other processes.
    pub fn knows_monitors(&self) -> bool {
        !self.recipe.monitors.is_empty()
    }

    /// Ends it, and removes everything that it made.
    ///
    /// # Errors
    /// If something stays.
    pub async fn leave(mut self) -> Result<()> {
        let mut cleared = self.clear().await;
        // Of a home, everything goes.
        if self.home.is_none() && self.pulled {
            let request = cri::RemoveImageRequest { image: self.image_spec() };
            let removed = self.client().images.remove_image(request).await;
            cleared = cleared.and(removed.map(drop).context("RemoveImage"));
        }
        if let Some(mut home) = self.home.take() {
            if let Some(daemon) = self.daemon {
                // A daemon that died already has nothing to say any more.
                let _ = home.end(daemon, true);
            }
            home.leave()?;
        }
        let _ = std::fs::remove_dir_all(&self.logs);
        cleared
    }
}

/// Conditions without which there are no pods; others are the runtime's own.
const ESSENTIAL: [&str; 2] = ["RuntimeReady", "NetworkReady"];

fn met(conditions: &[cri::RuntimeCondition], name: &str) -> bool {
    conditions.iter().any(|condition| condition.r#type == name && condition.status)
}

/// The namespace of the bench's pods, which nobody else has: in a runtime of
/// somebody else, pods are known by it.
const NAMESPACE: &str = "corten-bench";

/// Gives a container what the kubelet gives to every one that has no
/// privileges; it names each path.
pub fn confine(container: &mut Container) {
    let security = container.security();
    security.seccomp = runtime_default();
    security.masked_paths = MASKED_PATHS.map(str::to_owned).to_vec();
    security.readonly_paths = READONLY_PATHS.map(str::to_owned).to_vec();
}

/// Asks until a socket answers Version.
async fn serves(socket: &Path, daemon: Option<u32>) -> Result<Client> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Nobody has to be asked through a whole client before there is a socket.
        if UnixStream::connect(socket).is_ok()
            && let Some(client) = Client::try_connect(socket).await
        {
            return Ok(client);
        }
        if daemon.is_some_and(|pid| process::program(pid).is_none()) {
            bail!("the daemon has ended");
        }
        if Instant::now() > deadline {
            bail!("{} does not answer", socket.display());
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// The process that listens at a socket, if it is another than init.
fn listener(socket: &Path) -> Option<u32> {
    let stream = UnixStream::connect(socket).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
    let pid = u32::try_from(peer.pid.as_raw_nonzero().get()).ok()?;
    (pid > 1).then_some(pid)
}

/// The last lines of a daemon's log, as the context of an error.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LOG_LINES);
    format!("its log ends: {}", lines[from..].join(" / "))
}
