//! Pods made of checkpoints. A restored container is made like any other, but
//! that its files are those that it had, and that CRIU makes its processes
//! when it is started.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use corten_base::limits::{
    CHECKPOINT_BYTES_MAX, CHECKPOINT_FILES_MAX, RECORD_BYTES_MAX, RUNTIME_LOG_BYTES_MAX,
};
use corten_base::{ContainerId, Namespace, SandboxId};
use corten_kernel::launch::NamespaceKind;
use corten_kernel::{mount, ns};
use corten_protocol::frame::LaunchFailure;
use corten_spec::lower::{RESTORE_LOG, Restore, STAGED_ROOT, restore, staged_sources};
use corten_spec::oci;
use corten_spec::request::{ContainerConfig, NamespaceMode, SandboxConfig};
use corten_store::{MountAs, TarContent, TarMember, members};

use super::checkpoint::{Facts, POD_FILE, PodFacts, VERSION};
use super::delegate::Descriptors;
use super::launch::Plan;
use super::prepare::{PodFds, open_source};
use super::volumes::Volumes;
use super::{Inner, blocking};
use crate::error::{Error, Result};
use crate::table::Container;

/// How long CRIU may take to restore: less than a Start may.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(100);
/// Of archives that are copied out of an archive.
const COPY_BYTES: usize = 64 << 10;

impl Inner {
    /// Makes a pod and its containers of what a checkpoint of a pod wrote. The
    /// containers wait for Start.
    pub(super) async fn restore_pod(
        self: &Arc<Self>,
        namespace: &Namespace,
        from: &Path,
        config: SandboxConfig,
        containers: Vec<ContainerConfig>,
    ) -> Result<(SandboxId, Vec<(String, ContainerId)>)> {
        self.criu().await?;
        self.check_restore(&config, &containers)?;
        let pod: PodFacts = read_json(&from.join(POD_FILE))?;
        let mut asked: Vec<_> = containers.iter().map(|container| container.name.clone()).collect();
        let mut there = pod.containers.clone();
        asked.sort();
        there.sort();
        if pod.version != VERSION || asked != there {
            return Err(Error::precondition(format!(
                "unable to restore: the checkpoint (version {}) has the containers {}, and {} were asked for",
                pod.version,
                there.join(", "),
                asked.join(", ")
            )));
        }
        let sandbox = self.run_sandbox(namespace, config).await?;
        let mut made = Vec::new();
        for mut container in containers {
            let name = container.name.clone();
            let archive = from.join(format!("{name}.tar"));
            container.restore_from = Some(archive.display().to_string());
            match self.create_container(&sandbox, container).await {
                Ok(container) => made.push((name, container.id.clone())),
                Err(error) => {
                    if let Err(undo) = self.remove_sandbox(&sandbox).await {
                        tracing::error!(sandbox = %sandbox.id, error = %undo, "unable to remove a pod that could not be restored");
                    }
                    return Err(error);
                }
            }
        }
        Ok((sandbox.id.clone(), made))
    }

    /// What no checkpoint can be of, no restored pod can ask for.
    fn check_restore(&self, config: &SandboxConfig, containers: &[ContainerConfig]) -> Result<()> {
        let refused = |what| Err(Error::precondition(format!("unable to restore: {what}")));
        if self.runtimes.usable(&config.runtime_handler)?.oci().is_some() {
            return refused("the runtime handler is another OCI runtime");
        }
        if config.namespaces.user.is_some() {
            return refused("the pod asks for a user namespace");
        }
        let own_pids = |one: &ContainerConfig| {
            one.security.namespaces.pid == NamespaceMode::Container && !one.tty
        };
        if !containers.iter().all(own_pids) {
            return refused("a container asks for a terminal, or for the PID namespace of others");
        }
        Ok(())
    }

    /// Takes an archive apart: the images of CRIU into the snapshot's side, and
    /// into its files what the container had written.
    pub(super) fn unpack_checkpoint(&self, container: &Container, archive: &str) -> Result<()> {
        let failed = |error: corten_store::Error| {
            Error::invalid(format!("unable to read the checkpoint {archive}: {error}"))
        };
        let open = || {
            File::open(archive)
                .map_err(|error| Error::invalid(format!("unable to open {archive}: {error}")))
        };
        let found =
            members(std::io::BufReader::new(open()?), CHECKPOINT_FILES_MAX, CHECKPOINT_BYTES_MAX)
                .map_err(failed)?;
        let (id, layers) = (&container.id, container.record.borrow().layers.clone());
        let snapshots = self.store.snapshotter();
        let internal = |error: corten_store::Error| Error::internal(error.to_string());
        let how = MountAs { idmap: None, label: "" };
        drop(snapshots.prepare(id, &layers, how).map_err(internal)?);
        let side = snapshots.side(id).map_err(internal)?;
        for member in &found {
            let Some(name) = wanted(member) else { continue };
            copy_out(open()?, member, &side.join(name)).map_err(|error| {
                Error::internal(format!("unable to copy {name} out of {archive}: {error}"))
            })?;
        }
        let facts = self.checkpoint_facts(container)?;
        let image = container.record.borrow().image_id.to_string();
        if facts.version != VERSION || facts.image != image {
            return Err(Error::precondition(format!(
                "unable to restore: the checkpoint (version {}) is of image {}, and {image} was asked for",
                facts.version, facts.image
            )));
        }
        let changes = side.join("rootfs-diff.tar");
        let mut file = File::open(&changes).map_err(|error| {
            Error::invalid(format!("{archive} has no rootfs-diff.tar: {error}"))
        })?;
        snapshots.read_changes(id, &mut file).map_err(failed)?;
        let _ = std::fs::remove_file(changes);
        Ok(())
    }

    fn checkpoint_facts(&self, container: &Container) -> Result<Facts> {
        let side = self.store.snapshotter().side(&container.id);
        let side = side.map_err(|error| Error::internal(error.to_string()))?;
        read_json(&side.join("corten.dump"))
    }

    /// The plan that has CRIU make the container's processes.
    pub(super) fn plan_restore(
        &self,
        container: &Container,
        spec: &oci::Spec,
        root: OwnedFd,
        mut opened: Volumes,
        pod: PodFds,
    ) -> Result<Plan> {
        let facts = self.checkpoint_facts(container)?;
        let bundle = self.journal.container_dir(&container.sandbox.id, &container.id);
        let images = self.store.snapshotter().side(&container.id);
        let images = images.map_err(|error| Error::internal(error.to_string()))?;
        let mut fds = Descriptors::new(root);
        let shm = self.shm_name(container);
        let mut binds = Vec::new();
        for source in staged_sources(spec) {
            let source = match opened.remove(&source.path) {
                Some(volume) => volume,
                None if source.path == shm => self.shim_shm(&container.sandbox)?,
                None => open_source(&source, None)?,
            };
            binds.push(fds.push(source));
        }
        let mut namespaces = Vec::new();
        for (kind, fd) in [(oci::NamespaceType::Ipc, pod.ipc), (oci::NamespaceType::Uts, pod.uts)] {
            if let Some(fd) = fd {
                namespaces.push((kind, fds.push(mount::open_tree_at(fd.as_fd(), false)?)));
            }
        }
        if facts.network != pod.net.is_some() {
            return Err(Error::precondition(
                "unable to restore: of the two pods one has the network of the host",
            ));
        }
        let network = pod.net.map(|net| fds.push(net));
        let host_mounts = fds.push(ns::own(NamespaceKind::Mount)?);
        let directory = fds.push(open_directory(&bundle)?);
        let stage = self.stage()?;
        let input = Restore {
            program: &self.config.criu.display().to_string(),
            images: &images.display().to_string(),
            bundle: &bundle.display().to_string(),
            stage: &stage.display().to_string(),
            timeout_ms: RESTORE_TIMEOUT.as_millis() as u32,
            fd_count: fds.count()?,
            host_mounts,
            directory,
            root: Descriptors::ROOT,
            binds: &binds,
            namespaces: &namespaces,
            network,
            mounts: &facts.mounts,
            host_paths: &self.cgroup_paths(container, &facts)?,
            streams: &facts.streams,
        };
        debug_assert!(stage.join(STAGED_ROOT).exists());
        let bytes =
            restore(spec, &input).map_err(|error| Error::precondition(error.to_string()))?;
        Plan::seal(bytes, fds.into_inner())
    }

    /// CRIU gives the UTS namespace that it joins the name of the old pod.
    pub(super) async fn name_pod_again(&self, container: &Container) -> Result<()> {
        let name = self.node.hostname_of(&container.sandbox.config);
        let Some(uts) = self.pod_namespaces(container).await?.uts else { return Ok(()) };
        blocking(move || Ok(ns::run_in(&[uts.as_fd()], || ns::set_hostname(&name))??)).await
    }

    /// Why CRIU did not bring a container back.
    pub(super) fn restore_failure(&self, container: &Container, failure: LaunchFailure) -> String {
        let bundle = self.journal.container_dir(&container.sandbox.id, &container.id);
        let why = criu_error(&bundle.join(RESTORE_LOG)).unwrap_or_else(|| match failure.errno {
            LaunchFailure::NO_PROCESS => "it left no process".to_owned(),
            status => format!("it ended with status {status}"),
        });
        format!("criu could not restore it: {why}")
    }

    /// Where the new container's cgroups are that the old one saw of its own.
    fn cgroup_paths(&self, container: &Container, facts: &Facts) -> Result<Vec<(String, String)>> {
        let group = self.cgroups.open(&container.record.borrow().cgroup)?;
        let seen = facts.mounts.iter().filter_map(|target| {
            let name = target.strip_prefix("/sys/fs/cgroup")?.trim_start_matches('/');
            Some((target.clone(), group.directory_at(name)?.display().to_string()))
        });
        Ok(seen.collect())
    }
}

/// The name of a member's copy, if it is one that a restore needs.
fn wanted(member: &TarMember) -> Option<&str> {
    let path = std::str::from_utf8(&member.path).ok()?;
    if path == "corten.dump" || path == "rootfs-diff.tar" {
        return Some(path);
    }
    path.strip_prefix("checkpoint/").filter(|name| !name.is_empty() && !name.contains('/'))
}

fn copy_out(mut archive: File, member: &TarMember, to: &Path) -> std::io::Result<()> {
    let TarContent::Data { offset, length } = member.content else {
        return Err(std::io::Error::other("it is a link"));
    };
    archive.seek(SeekFrom::Start(offset))?;
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(to)?;
    let mut from = std::io::BufReader::with_capacity(COPY_BYTES, archive.take(length));
    std::io::copy(&mut from, &mut file).map(drop)
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let problem = |why: String| {
        Error::invalid(format!("unable to read the checkpoint {}: {why}", path.display()))
    };
    let file = File::open(path).map_err(|error| problem(error.to_string()))?;
    let mut text = Vec::new();
    let read = file.take(RECORD_BYTES_MAX as u64).read_to_end(&mut text);
    read.map_err(|error| problem(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| problem(error.to_string()))
}

pub(super) fn open_directory(path: &Path) -> Result<OwnedFd> {
    let opened = File::open(path).map(OwnedFd::from);
    opened.map_err(|error| Error::internal(format!("unable to open {}: {error}", path.display())))
}

/// The first error in a log of CRIU that is none of those that it survives.
pub(super) fn criu_error(log: &Path) -> Option<String> {
    let mut text = Vec::new();
    File::open(log).ok()?.take(16 * RUNTIME_LOG_BYTES_MAX).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    let errors = text.lines().filter(|line| line.contains("Error (") && !line.contains("rlimit:"));
    let said: Vec<_> = errors.map(|line| line.trim().to_owned()).take(3).collect();
    (!said.is_empty()).then(|| said.join("; "))
}

/// Where a checkpoint is, as clients name it: an absolute path.
pub(super) fn location(path: &str) -> Result<PathBuf> {
    let path = PathBuf::from(path);
    if path.is_absolute() && path.file_name().is_some() {
        return Ok(path);
    }
    Err(Error::invalid(format!("{} is no absolute path of a checkpoint", path.display())))
}
