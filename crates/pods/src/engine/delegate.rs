//! Containers that another OCI runtime makes.
//!
//! The daemon writes the bundle (`config.json`, and what single calls read and
//! write) into the container's own directory; the shim calls the runtime to
//! make and start the container and its execs, since it has to be their
//! parent. `config.json` is the intent: while it is there the runtime may know
//! the container, and is told to forget it before the container's end is done.

use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use corten_base::ExecId;
use corten_base::limits::RUNTIME_LOG_BYTES_MAX;
use corten_kernel::launch::{FdIndex, NamespaceKind};
use corten_kernel::{fdpass, mount, ns};
use corten_protocol::frame::LaunchFailure;
use corten_spec::lower::{
    CREATE, CallFiles, RuntimeCall, STAGED_ROOT, Staged, delegate, delegate_exec, runtime_words,
    staged_sources,
};
use corten_spec::oci;
use corten_spec::request::NamespaceMode;

use super::launch::Plan;
use super::prepare::{PodFds, open_source};
use super::volumes::Volumes;
use super::{Inner, blocking};
use crate::error::{Error, Result};
use crate::runtimes::{self, Handler, OciRuntime};
use crate::table::{Container, Sandbox};

/// How long one call of a runtime may take: less than a Start may.
const CALL_TIMEOUT: Duration = Duration::from_secs(100);
/// Of the stage: there is nothing in it, and the root of a user namespace has
/// to get through.
const PASSABLE: u32 = 0o711;

/// How long a runtime may take to forget a container.
const DELETE_TIMEOUT: Duration = Duration::from_secs(30);

impl Inner {
    /// The handler of a sandbox.
    pub(super) fn handler_of(&self, sandbox: &Sandbox) -> Result<Arc<Handler>> {
        self.runtimes.find(&sandbox.config.runtime_handler)
    }

    /// The OCI runtime of a container, unless our own launcher makes it.
    pub(super) fn oci_runtime(&self, container: &Container) -> Result<Option<OciRuntime>> {
        Ok(self.handler_of(&container.sandbox)?.oci())
    }

    /// The directory on which stages are mounted: in the mount namespaces of
    /// those who need one.
    pub(super) fn stage(&self) -> Result<PathBuf> {
        let stage = self.config.state_dir.join("stage");
        make_dir(&stage.join(STAGED_ROOT), PASSABLE)?;
        Ok(stage)
    }

    fn bundle(&self, container: &Container) -> PathBuf {
        self.journal.container_dir(&container.sandbox.id, &container.id)
    }

    /// Opens what the container is made of, writes `config.json`, and the plan
    /// that runs the runtime.
    pub(super) fn delegate(
        &self,
        runtime: &OciRuntime,
        container: &Container,
        spec: &oci::Spec,
        root: OwnedFd,
        mut opened: Volumes,
        pod: PodFds,
    ) -> Result<Plan> {
        let bundle = self.bundle(container);
        let mut fds = Descriptors::new(root);
        let mut binds = Vec::new();
        let shm = self.shm_name(container);
        for source in staged_sources(spec) {
            let source = match opened.remove(&source.path) {
                Some(volume) => volume,
                None if source.path == shm => self.shim_shm(&container.sandbox)?,
                None => open_source(&source, pod.user.as_ref())?,
            };
            binds.push(fds.push(source));
        }
        let namespaces: Vec<_> = self
            .joined(container, spec, pod)?
            .into_iter()
            .map(|(kind, mount)| (kind, fds.push(mount)))
            .collect();
        let host_mounts = fds.push(ns::own(NamespaceKind::Mount)?);
        let terminal = spec.process.as_ref().is_some_and(|process| process.terminal);
        let (directory, console) = self.call_fds(&bundle, CREATE, terminal, &mut fds)?;
        let (shown, options) = (bundle.display().to_string(), &runtime.options);
        let call = RuntimeCall {
            program: &runtime.program,
            options,
            bundle: &shown,
            id: container.id.as_str(),
            timeout_ms: CALL_TIMEOUT.as_millis() as u32,
            host_mounts,
            directory,
            console,
        };
        let stage = self.stage()?;
        let staged = Staged {
            stage: &stage.display().to_string(),
            fd_count: fds.count()?,
            root: Descriptors::ROOT,
            binds: &binds,
            namespaces: &namespaces,
        };
        let (config, bytes) =
            delegate(spec, &call, &staged).map_err(|error| Error::invalid(error.to_string()))?;
        make_dir(&runtime.root, 0o700)?;
        write(&bundle.join("config.json"), &config.to_json())?;
        Plan::seal(bytes, fds.0)
    }

    /// The directory of a call, its console if it has one, and nothing left of
    /// a call of the same name.
    fn call_fds(
        &self,
        bundle: &Path,
        name: &str,
        terminal: bool,
        fds: &mut Descriptors,
    ) -> Result<(FdIndex, Option<FdIndex>)> {
        let files = CallFiles::new(name);
        for file in files.all() {
            remove(&bundle.join(file))?;
        }
        let directory = fds.push(super::restore::open_directory(bundle)?);
        let console = if terminal {
            Some(fds.push(fdpass::listen_stream(&bundle.join(&files.console))?))
        } else {
            None
        };
        Ok((directory, console))
    }

    /// The plan of one more process in a running container.
    pub(super) fn delegate_exec(
        &self,
        runtime: &OciRuntime,
        container: &Container,
        process: &oci::Process,
        exec: ExecId,
    ) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
        let bundle = self.bundle(container);
        let name = call_name(exec);
        let mut fds = Descriptors(vec![ns::own(NamespaceKind::Mount)?]);
        let (directory, console) = self.call_fds(&bundle, &name, process.terminal, &mut fds)?;
        let json = serde_json::to_vec(process)
            .map_err(|error| Error::internal(format!("unable to encode a process: {error}")))?;
        write(&bundle.join(CallFiles::new(&name).process), &json)?;
        let call = RuntimeCall {
            program: &runtime.program,
            options: &runtime.options,
            bundle: &bundle.display().to_string(),
            id: container.id.as_str(),
            timeout_ms: CALL_TIMEOUT.as_millis() as u32,
            host_mounts: FdIndex(0),
            directory,
            console,
        };
        let bytes = delegate_exec(&call, process, &name)
            .map_err(|error| Error::invalid(error.to_string()))?;
        Ok((bytes, fds.0))
    }

    /// Removes what the call of an exec has left in the bundle.
    pub(super) fn forget_call(&self, container: &Container, exec: ExecId) {
        if matches!(self.oci_runtime(container), Ok(None)) {
            return;
        }
        let bundle = self.bundle(container);
        for file in CallFiles::new(&call_name(exec)).all() {
            // What stays goes with the container.
            let _ = remove(&bundle.join(file));
        }
    }

    /// The pod's /dev/shm, which is in the mount namespace of its shim.
    pub(super) fn shim_shm(&self, sandbox: &Sandbox) -> Result<OwnedFd> {
        let shim = sandbox.record.borrow().shim_pid;
        let shim = shim.ok_or_else(|| Error::internal("the sandbox has no shim"))?;
        let mounts = ns::of_process(shim, NamespaceKind::Mount)?;
        let open = || mount::open_tree(Path::new(super::SHM_IN_SHIM), true);
        Ok(ns::run_in(&[std::os::fd::AsFd::as_fd(&mounts)], open)??)
    }

    /// Mounts of the namespaces that a container joins.
    fn joined(
        &self,
        container: &Container,
        spec: &oci::Spec,
        pod: PodFds,
    ) -> Result<Vec<(oci::NamespaceType, OwnedFd)>> {
        let linux = spec.linux.as_ref();
        let joins = |kind| {
            let found = linux.and_then(|linux| linux.namespace(kind));
            found.is_some_and(|namespace| !namespace.path.is_empty())
        };
        let pid = if joins(oci::NamespaceType::Pid) {
            Some(ns::of_process(self.pid_in_namespace(container)?, NamespaceKind::Pid)?)
        } else {
            None
        };
        let held = [
            (oci::NamespaceType::User, pod.user),
            (oci::NamespaceType::Network, pod.net),
            (oci::NamespaceType::Ipc, pod.ipc),
            (oci::NamespaceType::Uts, pod.uts),
            (oci::NamespaceType::Pid, pid),
        ];
        held.into_iter()
            .filter(|(kind, _)| joins(*kind))
            .filter_map(|(kind, fd)| Some((kind, fd?)))
            .map(|(kind, fd)| {
                let fd = std::os::fd::AsFd::as_fd(&fd);
                Ok((kind, mount::open_tree_at(fd, false)?))
            })
            .collect()
    }

    /// A process of the PID namespace that a container joins.
    fn pid_in_namespace(&self, container: &Container) -> Result<i32> {
        let gone = || Error::precondition("the PID namespace that it joins has ended");
        match &container.config.security.namespaces.pid {
            NamespaceMode::Target(id) => {
                let target = self.table.find_container(&container.sandbox.namespace, id)?;
                let pid = target.record.borrow().pid;
                pid.ok_or_else(gone)
            }
            NamespaceMode::Pod | NamespaceMode::Container | NamespaceMode::Node => {
                let group = self.cgroups.open(&self.init_cgroup(&container.sandbox))?;
                group.pids()?.first().copied().ok_or_else(gone)
            }
        }
    }

    /// Has the runtime forget a container that it may know. A runtime that
    /// does not answer, or is no longer there, is not asked twice: whatever
    /// runs is killed by the cgroup, and what the runtime wrote is removed.
    pub(super) async fn forget_in_runtime(&self, container: &Container) -> Result<()> {
        let _turn = container.runtime.lock().await;
        let bundle = self.bundle(container);
        let intent = bundle.join("config.json");
        if !intent.exists() {
            return Ok(());
        }
        let runtime = self.oci_runtime(container).ok().flatten();
        let Some(runtime) = runtime else {
            tracing::warn!(container = %container.id, handler = container.sandbox.config.runtime_handler, "the runtime that made this container is not configured any more; it cannot be told to forget it");
            return remove(&intent);
        };
        let call = RuntimeCall {
            program: &runtime.program,
            options: &runtime.options,
            bundle: &bundle.display().to_string(),
            id: container.id.as_str(),
            timeout_ms: 0,
            host_mounts: FdIndex(0),
            directory: FdIndex(0),
            console: None,
        };
        let words = runtime_words(&call, &["delete", "--force"]);
        let deleted = runtimes::run(Path::new(&runtime.program), &words, DELETE_TIMEOUT).await;
        if let Err(error) = deleted {
            tracing::warn!(container = %container.id, %error, "a runtime could not forget a container; its files are removed");
            let state = runtime.root.join(container.id.as_str());
            blocking(move || remove_dir(&state)).await?;
        }
        remove(&intent)
    }

    /// What a runtime said of its failure.
    pub(super) fn runtime_failure(
        &self,
        container: &Container,
        call: &str,
        failure: LaunchFailure,
    ) -> String {
        let log = self.bundle(container).join(CallFiles::new(call).log);
        let program = self.oci_runtime(container).ok().flatten().map(|runtime| runtime.program);
        let program = program.unwrap_or_else(|| "the OCI runtime".to_owned());
        let said = last_error(&log);
        match (said, failure.errno) {
            (Some(said), _) => format!("{program}: {said}"),
            (None, LaunchFailure::NO_PROCESS) => format!("{program} left no process"),
            (None, status) => format!("{program} ended with status {status}, and said nothing"),
        }
    }

    /// The same of an exec.
    pub(super) fn exec_failure(
        &self,
        container: &Container,
        exec: ExecId,
        failure: LaunchFailure,
    ) -> Option<String> {
        (failure.step == LaunchFailure::RUNTIME)
            .then(|| self.runtime_failure(container, &call_name(exec), failure))
    }
}

/// Descriptors that a plan refers to, in their order: the root first.
pub(super) struct Descriptors(Vec<OwnedFd>);

impl Descriptors {
    /// The first.
    pub(super) const ROOT: FdIndex = FdIndex(0);

    pub(super) fn new(root: OwnedFd) -> Self {
        Self(vec![root])
    }

    pub(super) fn into_inner(self) -> Vec<OwnedFd> {
        self.0
    }

    pub(super) fn push(&mut self, fd: OwnedFd) -> FdIndex {
        self.0.push(fd);
        FdIndex((self.0.len() - 1) as u16)
    }

    pub(super) fn count(&self) -> Result<u16> {
        super::prepare::check_fds(&self.0)?;
        Ok(self.0.len() as u16)
    }
}

fn call_name(exec: ExecId) -> String {
    format!("exec-{}", exec.0)
}

/// The last error in a log of JSON lines; the last line, if they are none.
fn last_error(log: &Path) -> Option<String> {
    let mut file = std::fs::File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(RUNTIME_LOG_BYTES_MAX))).ok()?;
    let mut bytes = Vec::new();
    file.take(RUNTIME_LOG_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = || text.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    let error = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let grave = matches!(line["level"].as_str(), Some("error" | "fatal" | "panic"));
        line["msg"].as_str().filter(|_| grave).map(str::to_owned)
    };
    lines().find_map(error).or_else(|| lines().next().map(str::to_owned))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes)
        .map_err(|error| Error::internal(format!("unable to write {}: {error}", path.display())))
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::internal(format!("unable to remove {}: {error}", path.display())))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn make_dir(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|error| Error::internal(format!("unable to create {}: {error}", path.display())))
}

fn remove_dir(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::internal(format!("unable to remove {}: {error}", path.display())))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
