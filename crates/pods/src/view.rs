//! What clients see of sandboxes and containers: copies taken at one instant.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use corten_base::{ContainerId, Digest, Namespace, SandboxId};
use corten_kernel::stream::{read_some, set_nonblocking};
use corten_protocol::frame::Exit;
use corten_spec::request::{ContainerConfig, Map, Resources, SandboxConfig};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// State of a sandbox as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxPhase {
    /// Its network and its shim are there.
    Ready,
    /// Stopped, or broken.
    NotReady,
}

/// A sandbox at one instant.
#[derive(Debug, Clone)]
pub struct SandboxView {
    /// Its id.
    pub id: SandboxId,
    /// Its namespace of names.
    pub namespace: Namespace,
    /// What was asked for.
    pub config: Arc<SandboxConfig>,
    /// Ready or not.
    pub phase: SandboxPhase,
    /// Nanoseconds since 1970.
    pub created_at_ns: i64,
    /// Addresses, the primary one first; empty with the host's network.
    pub ips: Vec<IpAddr>,
    /// The pinned network namespace, unless the host's.
    pub netns: Option<PathBuf>,
    /// The shim's pid, while it lives.
    pub shim_pid: Option<i32>,
}

/// State of a container as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ContainerPhase {
    /// Made, not started.
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
}

/// Who a container's first process is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProcessUser {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplemental groups.
    pub groups: Vec<u32>,
}

/// A container at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerView {
    /// Its id.
    pub id: ContainerId,
    /// Its sandbox.
    pub sandbox: SandboxId,
    /// Its namespace of names.
    pub namespace: Namespace,
    /// What was asked for.
    pub config: Arc<ContainerConfig>,
    /// State.
    pub phase: ContainerPhase,
    /// Nanoseconds since 1970.
    pub created_at_ns: i64,
    /// Nanoseconds since 1970; 0 if not started.
    pub started_at_ns: i64,
    /// Nanoseconds since 1970; 0 if not ended.
    pub finished_at_ns: i64,
    /// Exit code, once ended.
    pub exit_code: i32,
    /// One word: `Completed`, `Error`, `OOMKilled`, `StartError`, `Unknown`.
    pub reason: String,
    /// A sentence to the reason.
    pub message: String,
    /// Image id.
    pub image_id: Digest,
    /// `repository@digest` if the image has one, else its id.
    pub image_ref: String,
    /// Images that it has as volumes: which of its mounts, and their ids.
    pub volumes: Vec<(usize, Digest)>,
    /// The log file; empty for none.
    pub log_path: String,
    /// Limits as they are now.
    pub resources: Resources,
    /// User of the first process.
    pub user: ProcessUser,
    /// The signal that Stop sends.
    pub stop_signal: i32,
    /// The first process as the host sees it, while it runs.
    pub pid: Option<i32>,
}

/// Which sandboxes to list: all fields must fit, empty ones always do.
#[derive(Debug, Clone, Default)]
pub struct SandboxFilter {
    /// Id or the beginning of one.
    pub id: String,
    /// State.
    pub phase: Option<SandboxPhase>,
    /// Labels that must be there with these values.
    pub labels: Map,
}

/// Which containers to list: all fields must fit, empty ones always do.
#[derive(Debug, Clone, Default)]
pub struct ContainerFilter {
    /// Id or the beginning of one.
    pub id: String,
    /// Sandbox id or the beginning of one.
    pub sandbox: String,
    /// State.
    pub phase: Option<ContainerPhase>,
    /// Labels that must be there with these values.
    pub labels: Map,
}

/// What a finished ExecSync gives.
#[derive(Debug, Clone, Default)]
pub struct ExecOutput {
    /// Up to 16 MiB of stdout.
    pub stdout: Vec<u8>,
    /// Up to 16 MiB of stderr.
    pub stderr: Vec<u8>,
    /// Exit code.
    pub exit_code: i32,
}

/// A process to run in a container.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    /// argv.
    pub command: Vec<String>,
    /// A terminal instead of pipes.
    pub terminal: bool,
    /// The terminal's rows and columns from the beginning.
    pub size: Option<(u16, u16)>,
    /// Keep stdin open.
    pub stdin: bool,
    /// More environment.
    pub env: Vec<(String, String)>,
    /// Another working directory.
    pub working_dir: Option<String>,
    /// Another user: `user[:group]`, names or numbers.
    pub user: Option<String>,
}

/// A running exec: the daemon's ends of its streams.
#[derive(Debug)]
pub struct ExecSession {
    /// Number within the pod, for resizes.
    pub exec: corten_base::ExecId,
    /// The process as the host sees it.
    pub pid: i32,
    /// Write end of stdin, or the terminal.
    pub stdin: Option<OwnedFd>,
    /// Read end of stdout, or the terminal.
    pub stdout: Option<OwnedFd>,
    /// Read end of stderr.
    pub stderr: Option<OwnedFd>,
    /// How it ends.
    pub exit: oneshot::Receiver<Exit>,
}

/// A process of a container.
#[derive(Debug, Clone)]
pub struct ProcessView {
    /// As the host sees it.
    pub pid: i32,
    /// Its parent, likewise.
    pub parent: i32,
    /// Its user, likewise.
    pub uid: u32,
    /// As `/proc` has it: `R`, `S`, `D`, `Z`…
    pub state: char,
    /// How many.
    pub threads: u64,
    /// Processor time, nanoseconds.
    pub cpu_ns: u64,
    /// Memory that it has mapped and that is there.
    pub memory_bytes: u64,
    /// Its words, or its name in brackets where it has none.
    pub command: String,
}

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gravity {
    /// Could be better.
    Hint,
    /// Something will not work.
    Warning,
    /// Containers cannot run.
    Error,
}

/// Something that is not as it should be.
#[derive(Debug, Clone)]
pub struct Finding {
    /// How bad it is.
    pub gravity: Gravity,
    /// What it is about, in a word or two.
    pub subject: &'static str,
    /// What is wrong.
    pub text: String,
    /// What to do about it; may be empty.
    pub advice: String,
}

impl Finding {
    /// A finding.
    pub fn new(gravity: Gravity, subject: &'static str, text: String, advice: &str) -> Self {
        Self { gravity, subject, text, advice: advice.to_owned() }
    }
}

/// A part of a container's files to read.
#[derive(Debug, Clone, Default)]
pub struct CopyOutRequest {
    /// What, as a process in the container names it.
    pub path: String,
    /// What it is called in the archive; empty for a directory whose entries
    /// stand at the top.
    pub name: String,
    /// If it is a link, copy what that leads to.
    pub follow: bool,
}

/// Where an archive goes in a container.
#[derive(Debug, Clone, Default)]
pub struct CopyInRequest {
    /// A directory, in which the archive's top gets its place; or what is to
    /// become of that top.
    pub path: String,
    /// Leave the top out: what is below it goes into the directory, which is
    /// made where it is missing.
    pub contents: bool,
    /// Keep the owners of the archive, instead of the container's root.
    pub keep_owner: bool,
}

/// Which streams of a container a client wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttachRequest {
    /// To write to its stdin.
    pub stdin: bool,
    /// Its stdout, or all output of its terminal.
    pub stdout: bool,
    /// Its stderr.
    pub stderr: bool,
}

/// A client attached to a container: pipes of its own, which end when the
/// container's streams do. Output that is not taken for some seconds ends them
/// too: see [`Fate`].
#[derive(Debug)]
pub struct AttachSession {
    /// To write to; none if the container has no stdin (any more). Closing it
    /// closes the container's stdin where that is to be so (`stdin_once`).
    pub stdin: Option<OwnedFd>,
    /// To read stdout, or all output of a terminal.
    pub stdout: Option<OwnedFd>,
    /// To read stderr; none for a terminal.
    pub stderr: Option<OwnedFd>,
    /// The container has a terminal, which can be resized.
    pub terminal: bool,
    /// Why its output has ended.
    pub fate: Fate,
    /// How the container ends.
    pub exit: oneshot::Receiver<Exit>,
}

/// What becomes of a client that is attached: a pipe on which the shim says so.
#[derive(Debug, Default)]
pub struct Fate(Option<OwnedFd>);

impl Fate {
    /// Of the pipe; none from a shim that is older than this.
    pub(crate) fn new(pipe: Option<OwnedFd>) -> Self {
        Self(pipe.filter(|pipe| set_nonblocking(pipe).is_ok()))
    }

    /// Whether the client was too slow and gets no more output. Known when its
    /// output has ended; said once.
    pub fn too_slow(&self) -> bool {
        let said = self.0.as_ref().map(|pipe| read_some(pipe, &mut [0]));
        matches!(said, Some(Ok(1..)))
    }
}

/// Whether pods can run, and why not.
#[derive(Debug, Clone, Default)]
pub struct EngineStatus {
    /// Why no pod can run, or none.
    pub runtime_problem: Option<String>,
    /// Why pods get no network, or none.
    pub network_problem: Option<String>,
}
