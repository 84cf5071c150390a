//! The engine: what clients ask of it, and what it holds.
//!
//! | file | what |
//! |---|---|
//! | `sandbox` | making a sandbox |
//! | `namespaces`, `files`, `init` | parts of that |
//! | `container`, `prepare`, `volumes`, `cdi`, `launch` | making and starting a container |
//! | `delegate` | containers that another OCI runtime makes |
//! | `checkpoint`, `restore` | containers frozen into archives, and pods made of them |
//! | `exec`, `exec_sync`, `collect`, `kept`, `gates` | processes in running containers |
//! | `attach`, `forward` | clients of running containers, and of their ports |
//! | `copy` | files into and out of running containers |
//! | `teardown` | stop, remove, undo |
//! | `update` | changing limits |
//! | `events` | what shims report |
//! | `tell` | what of all that is told as an event |
//! | `recover` | taking up what an earlier daemon left |
//! | `lists` | views |
//! | `stats` | what is used |

mod apparmor;
mod attach;
mod bounded;
mod cdi;
mod checkpoint;
mod collect;
mod container;
mod copy;
mod delegate;
mod devices;
mod doctor;
mod events;
mod exec;
mod exec_sync;
mod files;
mod forward;
mod gates;
mod init;
mod kept;
mod launch;
mod lists;
mod logs;
mod namespaces;
mod node;
mod prepare;
mod processes;
mod recover;
mod restore;
mod sandbox;
mod scope;
mod selinux;
mod shims;
mod solo;
mod stats;
mod teardown;
mod tell;
mod update;
mod volumes;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use corten_base::{ContainerId, ExecId, Namespace, SandboxId};
use corten_image::Images;
use corten_kernel::cgroup::Cgroups;
use corten_kernel::sysctl::Sysctls;
use corten_net::{NamespacePool, Network, NetworkRequest};
use corten_spec::request::{ContainerConfig, Resources, SandboxConfig};
use corten_store::{CopiedIn, Store};
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, Kind, Result};
use crate::events::Hub;
use crate::journal::Journal;
use crate::meters::Meters;
use crate::placement::CgroupDriver;
use crate::runtimes::{HandlerView, RuntimeSettings, Runtimes};
use crate::shim::{ShimNews, ShimProgram};
use crate::systemd::Systemd;
use crate::table::{Sandbox, Table};
use crate::view::*;

/// Where a shim has its pod's /dev/shm, in its own mount namespace.
const SHM_IN_SHIM: &str = "/shm";

/// How long a daemon that starts waits for what its shims tell.
const TAKE_UP_PATIENCE: Duration = Duration::from_secs(1);

/// How long a launch may take, hooks included, before Start and Exec give up.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(110);

/// Who connects the pods of CRI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NetworkProvider {
    /// CNI plugins, as every network add-on expects.
    #[default]
    Cni,
    /// The built-in bridge.
    Builtin,
}

/// How the engine is set up.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Volatile state (`/run/corten`).
    pub state_dir: PathBuf,
    /// The shim's program.
    pub shim_path: PathBuf,
    /// The cgroup below which sandboxes without a parent get theirs (`/corten`;
    /// with systemd the slice of that name).
    pub cgroup_root: String,
    /// Who makes the cgroups of pods.
    pub cgroup_driver: CgroupDriver,
    /// Directories with the CDI files of vendors; of two that describe the same
    /// device the later counts.
    pub cdi_dirs: Vec<PathBuf>,
    /// Logs of containers whose client names no log directory.
    pub log_dir: PathBuf,
    /// Who connects the pods of CRI (namespace `k8s.io`).
    pub cri_network: NetworkProvider,
    /// CRIU's program, for checkpoints.
    pub criu: PathBuf,
    /// Runtime handlers beside our own.
    pub runtimes: Vec<RuntimeSettings>,
}

/// Runs pods. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    config: EngineConfig,
    /// Containers of another boot cannot run.
    boot_id: String,
    store: Arc<Store>,
    images: Images,
    cni: Network,
    bridge: Network,
    namespaces: NamespacePool,
    cgroups: Arc<Cgroups>,
    systemd: Systemd,
    shims: Arc<ShimProgram>,
    node: node::Node,
    /// None where it is off.
    selinux: Option<selinux::Selinux>,
    runtimes: Runtimes,
    kept: kept::Kept,
    sysctls: Sysctls,
    gates: gates::Gates,
    journal: Journal,
    table: Table,
    /// Reads what went through the links of pods, once somebody asked.
    counters: Mutex<Option<corten_kernel::netlink::Socket>>,
    /// What is counted of all this.
    meters: Meters,
    /// What has happened, for those who listen.
    events: Arc<Hub>,
    /// Where every shim's connection reports to.
    news: mpsc::UnboundedSender<(SandboxId, ShimNews)>,
}

impl Engine {
    /// Takes up what an earlier daemon left: reads the records, then connects
    /// to the shims in the background, and finishes or undoes what was under
    /// way. Lists are right at once.
    pub async fn open(
        config: EngineConfig,
        store: Arc<Store>,
        images: Images,
        cni: Network,
        bridge: Network,
    ) -> Result<Self> {
        let cgroups = Arc::new(Cgroups::probe()?);
        config.cgroup_driver.check(&cgroups)?;
        let shims = ShimProgram::prepare(
            &config.shim_path,
            cgroups.clone(),
            format!("{}/shims", config.cgroup_root),
        )?;
        let events_path = config.state_dir.join("events");
        let journal = Journal::open(&config.state_dir, store.clone())?;
        let (news, receiver) = mpsc::unbounded_channel();
        let mut node = node::Node::probe(&cgroups);
        node.policy.apparmor_default =
            apparmor::load_default(&node.policy, &config.state_dir).await;
        let inner = Arc::new(Inner {
            boot_id: node::boot_id()?,
            namespaces: NamespacePool::new(config.state_dir.join("netns")),
            node,
            selinux: selinux::Selinux::probe(),
            shims: Arc::new(shims),
            table: Table::default(),
            runtimes: Runtimes::probe(config.runtimes.clone()).await,
            kept: kept::Kept::default(),
            sysctls: Sysctls::default(),
            gates: gates::Gates::default(),
            config,
            store,
            images,
            cni,
            bridge,
            cgroups,
            systemd: Systemd::default(),
            journal,
            counters: Mutex::default(),
            meters: Meters::default(),
            events: Arc::new(Hub::open(&events_path, tell::first_event())),
            news,
        });
        inner.load()?;
        inner.restore_events();
        tokio::spawn(inner.clone().follow_shims(receiver));
        let taking_up = inner.clone();
        let (taken, taken_up) = oneshot::channel();
        tokio::spawn(async move {
            taking_up.take_up().await;
            let _ = taken.send(());
            taking_up.sweep().await;
        });
        // Shims answer in no time, and then the first list tells what ended in
        // the meantime. What hangs is not waited for.
        let _ = tokio::time::timeout(TAKE_UP_PATIENCE, taken_up).await;
        Ok(Self { inner })
    }

    /// Waits until what was recorded is on disk: for a daemon that leaves.
    pub async fn flush(&self) {
        self.inner.journal.flush().await;
    }

    /// The images.
    pub fn images(&self) -> &Images {
        &self.inner.images
    }

    /// Makes a sandbox, or joins the work on one with the same metadata.
    /// The work goes on when the caller leaves.
    pub async fn run_sandbox(&self, ns: &Namespace, config: SandboxConfig) -> Result<SandboxId> {
        let made = self.inner.meters.sandboxes.of(self.inner.run_sandbox(ns, config)).await?;
        Ok(made.id.clone())
    }

    /// Kills its containers, frees its network. An unknown one is stopped already.
    pub async fn stop_sandbox(&self, ns: &Namespace, id: &str) -> Result<()> {
        let Some(sandbox) = known(self.inner.table.find_sandbox(ns, id))? else { return Ok(()) };
        let inner = self.inner.clone();
        detached(async move { inner.stop_sandbox(&sandbox).await }).await
    }

    /// Stops and forgets it with its containers. An unknown one is removed already.
    pub async fn remove_sandbox(&self, ns: &Namespace, id: &str) -> Result<()> {
        let Some(sandbox) = known(self.inner.table.find_sandbox(ns, id))? else { return Ok(()) };
        let inner = self.inner.clone();
        detached(async move { inner.remove_sandbox(&sandbox).await }).await
    }

    /// Makes a container, or joins the work on one with the same metadata.
    pub async fn create_container(
        &self,
        ns: &Namespace,
        sandbox: &str,
        config: ContainerConfig,
    ) -> Result<ContainerId> {
        let sandbox = self.inner.table.find_sandbox(ns, sandbox)?;
        let make = self.inner.create_container(&sandbox, config);
        Ok(self.inner.meters.containers.of(make).await?.id.clone())
    }

    /// Makes a container with a sandbox of its own (`corten run`); the names
    /// of both are the container's, which is unique in its namespace.
    pub async fn create_solo(
        &self,
        ns: &Namespace,
        sandbox: SandboxConfig,
        container: ContainerConfig,
    ) -> Result<ContainerId> {
        self.inner.create_solo(ns, sandbox, container).await
    }

    /// Starts a created container. (A solo one that has ended, too.)
    pub async fn start_container(&self, ns: &Namespace, id: &str) -> Result<()> {
        let container = self.inner.table.find_container(ns, id)?;
        let inner = self.inner.clone();
        let start = async move { inner.start_container(&container).await };
        self.inner.meters.starts.of(detached(start)).await
    }

    /// Sends the stop signal, and SIGKILL after `grace`. Unknown is stopped.
    pub async fn stop_container(&self, ns: &Namespace, id: &str, grace: Duration) -> Result<()> {
        let Some(container) = known(self.inner.table.find_container(ns, id))? else {
            return Ok(());
        };
        let inner = self.inner.clone();
        detached(async move { inner.stop_container(&container, grace).await }).await
    }

    /// Sends a signal to the first process.
    pub async fn kill_container(&self, ns: &Namespace, id: &str, signal: i32) -> Result<()> {
        let container = self.inner.table.find_container(ns, id)?;
        self.inner.running_shim(&container).await?;
        self.inner.send_signal(&container, signal, false).await
    }

    /// Kills and forgets it. An unknown one is removed already.
    pub async fn remove_container(&self, ns: &Namespace, id: &str) -> Result<()> {
        let Some(container) = known(self.inner.table.find_container(ns, id))? else {
            return Ok(());
        };
        let inner = self.inner.clone();
        detached(async move {
            if container.sandbox.config.solo {
                inner.remove_sandbox(&container.sandbox).await
            } else {
                inner.remove_container(&container).await
            }
        })
        .await
    }

    /// Changes the limits of a container, all or nothing; what `asked` leaves
    /// open stays.
    pub async fn update_container(&self, ns: &Namespace, id: &str, asked: Resources) -> Result<()> {
        let container = self.inner.table.find_container(ns, id)?;
        let inner = self.inner.clone();
        detached(async move { inner.update_container(&container, &asked).await }).await
    }

    /// Changes the limits of a pod as a whole; what is left open stays.
    pub async fn update_sandbox(
        &self,
        ns: &Namespace,
        id: &str,
        resources: Resources,
        overhead: Resources,
    ) -> Result<()> {
        let sandbox = self.inner.table.find_sandbox(ns, id)?;
        let inner = self.inner.clone();
        detached(async move { inner.update_sandbox(&sandbox, &resources, &overhead).await }).await
    }

    /// Waits until a container has ended.
    pub async fn wait_container(&self, ns: &Namespace, id: &str) -> Result<ContainerView> {
        let container = self.inner.table.find_container(ns, id)?;
        let mut record = container.record.subscribe();
        let ended = record.wait_for(|record| !record.state.may_live()).await;
        ended
            .map(|record| lists::container_view(&record))
            .map_err(|_| Error::not_found("container", id))
    }

    /// Runs a command to its end; `timeout` kills it with its descendants
    /// (then: `Kind::DeadlineExceeded`).
    pub async fn exec_sync(
        &self,
        ns: &Namespace,
        id: &str,
        command: Vec<String>,
        timeout: Option<Duration>,
    ) -> Result<ExecOutput> {
        let container = self.inner.table.find_container(ns, id)?;
        self.inner.meters.execs.of(self.inner.exec_sync(&container, command, timeout)).await
    }

    /// Runs a command and hands over its streams.
    pub async fn exec(
        &self,
        ns: &Namespace,
        id: &str,
        request: ExecRequest,
    ) -> Result<ExecSession> {
        let container = self.inner.table.find_container(ns, id)?;
        self.inner.meters.execs.of(self.inner.exec(&container, request, None)).await
    }

    /// Attaches to a container that runs, or that is created and about to.
    pub async fn attach(
        &self,
        ns: &Namespace,
        id: &str,
        request: AttachRequest,
    ) -> Result<AttachSession> {
        let container = self.inner.table.find_container(ns, id)?;
        self.inner.attach(&container, request).await
    }

    /// Writes an archive (tar) of a part of a running container's files.
    pub async fn copy_out(
        &self,
        ns: &Namespace,
        id: &str,
        request: CopyOutRequest,
        out: impl Write + Send + 'static,
    ) -> Result<()> {
        let container = self.inner.table.find_container(ns, id)?;
        self.inner.copy_out(&container, request, out).await
    }

    /// Unpacks an archive (tar) into a running container.
    pub async fn copy_in(
        &self,
        ns: &Namespace,
        id: &str,
        request: CopyInRequest,
        archive: impl Read + Send + 'static,
    ) -> Result<CopiedIn> {
        let container = self.inner.table.find_container(ns, id)?;
        self.inner.copy_in(&container, request, archive).await
    }

    /// Connects to a TCP port on the loopback of a pod; the socket is
    /// non-blocking.
    pub async fn port_forward(&self, ns: &Namespace, sandbox: &str, port: u16) -> Result<OwnedFd> {
        let sandbox = self.inner.table.find_sandbox(ns, sandbox)?;
        self.inner.port_forward(&sandbox, port).await
    }

    /// Ends the input of an exec. Its shim keeps it open otherwise, so that a
    /// daemon that dies is no end of anything.
    pub async fn close_stdin(&self, ns: &Namespace, id: &str, exec: ExecId) -> Result<()> {
        let container = self.inner.table.find_container(ns, id)?;
        self.inner.close_stdin(&container, exec).await
    }

    /// Closes all streams of an exec whose client has left for good: a terminal
    /// is hung up, and who writes to nobody is told by SIGPIPE. Without this it
    /// would wait for a reader for ever.
    pub async fn hang_up(&self, ns: &Namespace, id: &str, exec: ExecId) -> Result<()> {
        let container = self.inner.table.find_container(ns, id)?;
        self.inner.hang_up(&container, exec).await
    }

    /// Changes the terminal size of an exec, or of the container itself, which
    /// may be one that is not started yet.
    pub async fn resize(
        &self,
        ns: &Namespace,
        id: &str,
        exec: Option<ExecId>,
        rows: u16,
        columns: u16,
    ) -> Result<()> {
        let container = self.inner.table.find_container(ns, id)?;
        self.inner.resize(&container, exec, rows, columns).await
    }

    /// Writes a running container into an archive; it goes on.
    pub async fn checkpoint_container(
        &self,
        ns: &Namespace,
        id: &str,
        location: &str,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let container = self.inner.table.find_container(ns, id)?;
        let location = restore::location(location)?;
        let inner = self.inner.clone();
        detached(async move { inner.checkpoint_container(&container, location, timeout).await })
            .await
    }

    /// Writes the containers of a pod, which must be all that run, into an
    /// empty directory; they go on.
    pub async fn checkpoint_pod(
        &self,
        ns: &Namespace,
        id: &str,
        output: &str,
        containers: Vec<String>,
    ) -> Result<()> {
        let sandbox = self.inner.table.find_sandbox(ns, id)?;
        let output = restore::location(output)?;
        let inner = self.inner.clone();
        detached(async move { inner.checkpoint_pod(&sandbox, output, &containers).await }).await
    }

    /// Makes a pod of what [`Engine::checkpoint_pod`] wrote: its id, and those
    /// of its containers by their names. They go on when they are started.
    pub async fn restore_pod(
        &self,
        ns: &Namespace,
        from: &str,
        sandbox: SandboxConfig,
        containers: Vec<ContainerConfig>,
    ) -> Result<(SandboxId, Vec<(String, ContainerId)>)> {
        let from = restore::location(from)?;
        let (inner, ns) = (self.inner.clone(), ns.clone());
        detached(async move { inner.restore_pod(&ns, &from, sandbox, containers).await }).await
    }

    /// Writes a running container's log to a new file at the same path.
    pub async fn reopen_log(&self, ns: &Namespace, id: &str) -> Result<()> {
        let container = self.inner.table.find_container(ns, id)?;
        self.inner.reopen_log(&container).await
    }

    /// Whether pods can run.
    pub fn status(&self) -> EngineStatus {
        let network = match self.inner.config.cri_network {
            NetworkProvider::Cni => self.inner.cni.status(),
            NetworkProvider::Builtin => self.inner.bridge.status(),
        };
        EngineStatus { runtime_problem: None, network_problem: network.err() }
    }

    /// The runtime handlers and what they can do, the default one (with no
    /// name) first.
    pub fn handlers(&self) -> Vec<HandlerView> {
        self.inner.runtimes.views()
    }

    /// The CNI configuration, where CRI's pods are connected by it.
    pub fn cni(&self) -> Option<corten_net::CniView> {
        match self.inner.config.cri_network {
            NetworkProvider::Cni => self.inner.cni.cni(),
            NetworkProvider::Builtin => None,
        }
    }
}

impl Inner {
    fn network_of(&self, sandbox: &Sandbox) -> &Network {
        if self.uses_cni(sandbox) { &self.cni } else { &self.bridge }
    }

    fn network_request(&self, sandbox: &Sandbox) -> Result<NetworkRequest> {
        let config = &sandbox.config;
        Ok(NetworkRequest {
            sandbox: sandbox.id.clone(),
            netns: self.namespaces.path(&sandbox.id),
            pod_name: config.name.clone(),
            pod_namespace: config.namespace.clone(),
            pod_uid: config.uid.clone(),
            ports: config.port_mappings.clone(),
            annotations: config.annotations.clone(),
            aliases: Vec::new(),
            dns: config.dns.clone(),
        })
    }
}

/// An unknown id, as far as it is no error.
fn known<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Runs work to its end even if the caller leaves.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(work)
        .await
        .map_err(|error| Error::internal(format!("the work panicked: {error}")))?
}

/// Runs a short blocking piece of work beside the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal(format!("the work panicked: {error}")))?
}

/// The wall clock, nanoseconds since 1970.
fn realtime_ns() -> i64 {
    corten_kernel::process::realtime_ns()
}
