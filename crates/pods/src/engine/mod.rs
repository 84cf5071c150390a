//! The engine: what clients ask of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use corten_base::{ContainerId, Namespace, SandboxId};
use corten_image::Images;
use corten_spec::request::{ContainerConfig, SandboxConfig};
use corten_store::Store;

use crate::error::{Error, Kind, Result};
use crate::view::*;

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
    /// The cgroup below which sandboxes without a parent get theirs (`/corten`).
    pub cgroup_root: String,
    /// Logs of containers whose client names no log directory.
    pub log_dir: PathBuf,
    /// Who connects the pods of CRI (namespace `k8s.io`).
    pub cri_network: NetworkProvider,
}

/// Runs pods. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    #[allow(dead_code)]
    config: EngineConfig,
}

fn not_yet<T>() -> Result<T> {
    Err(Error::new(Kind::Internal, "engine is being written"))
}

impl Engine {
    /// Takes up what an earlier daemon left: reads the records, connects to
    /// the shims in the background, finishes or undoes what was under way.
    pub async fn open(
        config: EngineConfig,
        _store: Arc<Store>,
        _images: Images,
        _cni: corten_net::Network,
        _bridge: corten_net::Network,
    ) -> Result<Self> {
        Ok(Self { inner: Arc::new(Inner { config }) })
    }

    /// The images.
    pub fn images(&self) -> &Images {
        unreachable!()
    }

    /// Makes a sandbox, or joins the work on one with the same metadata.
    /// The work goes on when the caller leaves.
    pub async fn run_sandbox(&self, _ns: &Namespace, _config: SandboxConfig) -> Result<SandboxId> {
        not_yet()
    }
    /// Kills its containers, frees its network. An unknown one is stopped already.
    pub async fn stop_sandbox(&self, _ns: &Namespace, _id: &str) -> Result<()> {
        not_yet()
    }
    /// Stops and forgets it with its containers. An unknown one is removed already.
    pub async fn remove_sandbox(&self, _ns: &Namespace, _id: &str) -> Result<()> {
        not_yet()
    }
    /// One sandbox, by id or the beginning of one.
    pub fn sandbox(&self, _ns: &Namespace, _id: &str) -> Result<SandboxView> {
        not_yet()
    }
    /// Those that fit, oldest first.
    pub fn sandboxes(&self, _ns: &Namespace, _filter: &SandboxFilter) -> Vec<SandboxView> {
        Vec::new()
    }
    /// Makes a container, or joins the work on one with the same metadata.
    pub async fn create_container(
        &self,
        _ns: &Namespace,
        _sandbox: &str,
        _config: ContainerConfig,
    ) -> Result<ContainerId> {
        not_yet()
    }
    /// Makes a container with a sandbox of its own (`corten run`); the names
    /// of both are the container's, which is unique in its namespace.
    pub async fn create_solo(
        &self,
        _ns: &Namespace,
        _sandbox: SandboxConfig,
        _container: ContainerConfig,
    ) -> Result<ContainerId> {
        not_yet()
    }
    /// Starts a created container. (A solo one that has ended, too.)
    pub async fn start_container(&self, _ns: &Namespace, _id: &str) -> Result<()> {
        not_yet()
    }
    /// Sends the stop signal, and SIGKILL after `grace`. Unknown is stopped.
    pub async fn stop_container(&self, _ns: &Namespace, _id: &str, _grace: Duration) -> Result<()> {
        not_yet()
    }
    /// Sends a signal to the first process.
    pub async fn kill_container(&self, _ns: &Namespace, _id: &str, _signal: i32) -> Result<()> {
        not_yet()
    }
    /// Kills and forgets it. An unknown one is removed already.
    pub async fn remove_container(&self, _ns: &Namespace, _id: &str) -> Result<()> {
        not_yet()
    }
    /// One container, by id, the beginning of one, or (solo) its name.
    pub fn container(&self, _ns: &Namespace, _id: &str) -> Result<ContainerView> {
        not_yet()
    }
    /// Those that fit, oldest first.
    pub fn containers(&self, _ns: &Namespace, _filter: &ContainerFilter) -> Vec<ContainerView> {
        Vec::new()
    }
    /// Waits until a container has ended.
    pub async fn wait_container(&self, _ns: &Namespace, _id: &str) -> Result<ContainerView> {
        not_yet()
    }
    /// Runs a command to its end; `timeout` kills it with its descendants
    /// (then: `Kind::DeadlineExceeded`).
    pub async fn exec_sync(
        &self,
        _ns: &Namespace,
        _id: &str,
        _command: Vec<String>,
        _timeout: Option<Duration>,
    ) -> Result<ExecOutput> {
        not_yet()
    }
    /// Runs a command and hands over its streams.
    pub async fn exec(&self, _ns: &Namespace, _id: &str, _request: ExecRequest) -> Result<ExecSession> {
        not_yet()
    }
    /// Changes the terminal size of an exec, or of the container itself.
    pub async fn resize(
        &self,
        _ns: &Namespace,
        _id: &str,
        _exec: Option<corten_base::ExecId>,
        _rows: u16,
        _columns: u16,
    ) -> Result<()> {
        not_yet()
    }
    /// Writes a running container's log to a new file at the same path.
    pub async fn reopen_log(&self, _ns: &Namespace, _id: &str) -> Result<()> {
        not_yet()
    }
    /// Whether pods can run.
    pub fn status(&self) -> EngineStatus {
        EngineStatus::default()
    }
    /// Everything known about a container (its record, OCI spec), as JSON.
    pub fn inspect_container(&self, _ns: &Namespace, _id: &str) -> Result<serde_json::Value> {
        not_yet()
    }
    /// Everything known about a sandbox, as JSON.
    pub fn inspect_sandbox(&self, _ns: &Namespace, _id: &str) -> Result<serde_json::Value> {
        not_yet()
    }
    /// Namespaces that have anything in them.
    pub fn namespaces(&self) -> Vec<Namespace> {
        Vec::new()
    }
}
