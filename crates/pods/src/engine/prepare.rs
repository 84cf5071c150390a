//! From a container's request to its plan: what has to be looked up on the
//! node and in the image is looked up here, and given as data to the pure
//! functions of `corten-spec`.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use corten_base::ExecId;
use corten_base::limits::{FRAME_FDS_MAX, PASSWD_BYTES_MAX, SECCOMP_PROFILE_BYTES_MAX};
use corten_image::Image;
use corten_kernel::launch::{FdIndex, MountAttributes, NamespaceKind};
use corten_kernel::rooted::Root;
use corten_kernel::{Errno, cgroup, mount, ns};
use corten_protocol::frame::{PodNamespaces, Reply, Request};
use corten_spec::container::{
    ContainerInput, ExecRequest as SpecExec, ImageSettings, Labels, MountFact, NamespacePaths,
    SandboxFiles, container_spec, exec_process,
};
use corten_spec::request::{MountPropagation, NamespaceMode, Profile, RunAs};
use corten_spec::{
    BindSource, LowerInput, ResolvedUser, bind_sources, cgroup_resources, lower, lower_exec, oci,
    resolve_user, v1_cgroups,
};
use corten_store::{Idmap, MountAs};
use rustix::fs::OFlags;

use super::apparmor;
use super::launch::Plan;
use super::volumes::Volumes;
use super::{Inner, blocking};
use crate::error::{Error, Kind, Result};
use crate::table::Container;
use crate::view::{ExecRequest, ProcessUser};

/// How long looking up and opening what a container refers to may take.
pub(super) const PREPARE_TIMEOUT: Duration = Duration::from_secs(60);

/// A container that is ready to be handed over.
pub(super) struct Prepared {
    pub plan: Plan,
    pub user: ProcessUser,
}

/// The pod's namespaces, as its shim holds them.
#[derive(Default)]
pub(super) struct PodFds {
    pub user: Option<OwnedFd>,
    pub net: Option<OwnedFd>,
    pub ipc: Option<OwnedFd>,
    pub uts: Option<OwnedFd>,
}

impl Inner {
    /// Makes the root filesystem, the OCI spec and the plan of a container. Its
    /// limits are told to whoever sets them, as soon as they are found.
    pub(super) async fn prepare(
        self: &Arc<Self>,
        container: &Arc<Container>,
        image: &Arc<Image>,
        limits: mpsc::Sender<cgroup::Resources>,
    ) -> Result<Prepared> {
        // Most of the work does not need the namespaces: the shim is asked
        // meanwhile.
        let (answer, pod) = mpsc::channel();
        let ask = async {
            // If nobody waits any more, the work has failed.
            let _ = answer.send(self.pod_namespaces(container).await);
        };
        let (inner, of, image) = (self.clone(), container.clone(), image.clone());
        let prepared = blocking(move || inner.prepare_now(&of, &image, pod, &limits));
        let prepared = async { tokio::join!(prepared, ask).0 };
        // A mount source on a dead filesystem hangs for ever; that costs its
        // thread, and this container.
        tokio::time::timeout(PREPARE_TIMEOUT, prepared).await.unwrap_or_else(|_| {
            Err(Error::new(
                Kind::DeadlineExceeded,
                format!(
                    "its mounts were not ready within {} s: a host path does not answer (a dead network filesystem?)",
                    PREPARE_TIMEOUT.as_secs()
                ),
            ))
        })
    }

    /// Asks the shim for the pod's namespaces: it alone outlives the daemon.
    pub(super) async fn pod_namespaces(&self, container: &Container) -> Result<PodFds> {
        let shim = self.shim_of(container).await?;
        let (reply, fds) = shim.call(&Request::Namespaces, &[]).await?;
        let Reply::Namespaces(PodNamespaces { user, net, ipc, uts }) = reply else {
            return Err(Error::internal(format!("the shim answered {reply:?} to Namespaces")));
        };
        let mut fds = fds.into_iter();
        let mut next = |there: bool| if there { fds.next() } else { None };
        Ok(PodFds { user: next(user), net: next(net), ipc: next(ipc), uts: next(uts) })
    }

    fn prepare_now(
        &self,
        container: &Container,
        image: &Image,
        asked: mpsc::Receiver<Result<PodFds>>,
        limits: &mpsc::Sender<cgroup::Resources>,
    ) -> Result<Prepared> {
        let answer = || {
            let gone = |_| Error::internal("the shim was not asked for the pod's namespaces");
            asked.recv_timeout(PREPARE_TIMEOUT).map_err(gone)?
        };
        let owned = container.sandbox.config.namespaces.user.is_some();
        let early = if owned { Some(answer()?) } else { None };
        if let Some(archive) = &container.config.restore_from {
            self.unpack_checkpoint(container, archive)?;
        }
        apparmor::check(&self.node.policy, container.config.security.apparmor.as_ref())?;
        let labels = self.labels(container)?;
        self.relabel(container, labels.as_ref())?;
        let label = labels.as_ref().map_or("", |labels| &labels.mount);
        let user_namespace = early.as_ref().and_then(|pod| pod.user.as_ref());
        let (root, volumes) = self.filesystems(container, user_namespace, label)?;
        let user = resolve_in(&root, container, image)?;
        let mut spec = self.oci_spec(container, image, &user, labels)?;
        self.add_cdi_devices(&container.config, &mut spec)?;
        self.save_spec(container, &spec)?;
        // If nobody wants them any more, the group could not be made.
        let _ = limits.send(cgroup_resources(&spec.linux.clone().unwrap_or_default()));
        if let Some(linux) = &mut spec.linux {
            // They are the sandbox's, and were set when it was made.
            linux.sysctl.clear();
        }
        let pod = early.map_or_else(answer, Ok)?;
        let plan = match self.oci_runtime(container)? {
            _ if container.config.restore_from.is_some() => {
                self.plan_restore(container, &spec, root, volumes, pod)?
            }
            None => self.lower(container, &spec, root, volumes, pod)?,
            Some(runtime) => self.delegate(&runtime, container, &spec, root, volumes, pod)?,
        };
        let user = ProcessUser { uid: user.uid, gid: user.gid, groups: user.additional_gids };
        Ok(Prepared { plan, user })
    }

    /// Opens what the plan refers to, and writes it. The descriptors go in this
    /// order: the root, the bind sources, the namespaces.
    fn lower(
        &self,
        container: &Container,
        spec: &oci::Spec,
        root: OwnedFd,
        mut volumes: Volumes,
        pod: PodFds,
    ) -> Result<Plan> {
        let shm = self.shm_name(container);
        let own_mounts = [(shm.as_str(), super::SHM_IN_SHIM)];
        let mut fds = vec![root];
        let mut binds = Vec::new();
        for source in bind_sources(spec, &own_mounts) {
            binds.push(FdIndex(fds.len() as u16));
            fds.push(match volumes.remove(&source.path) {
                Some(volume) => volume,
                None => open_source(&source, pod.user.as_ref())?,
            });
        }
        let mut namespaces = Vec::new();
        let held = [
            (oci::NamespaceType::Network, pod.net),
            (oci::NamespaceType::Ipc, pod.ipc),
            (oci::NamespaceType::Uts, pod.uts),
        ];
        for (kind, fd) in held {
            if let Some(fd) = fd {
                namespaces.push((kind, FdIndex(fds.len() as u16)));
                fds.push(fd);
            }
        }
        let hooked = spec.hooks != oci::Hooks::default();
        let host_mounts = hooked.then_some(FdIndex(fds.len() as u16));
        if hooked {
            fds.push(ns::own(NamespaceKind::Mount)?);
        }
        check_fds(&fds)?;
        // These come last: the group is being made meanwhile.
        let v1_cgroups = v1_cgroups(spec, &self.node.policy.cgroups, fds.len() as u16);
        let bundle = self.journal.container_dir(&container.sandbox.id, &container.id);
        let input = LowerInput {
            id: container.id.as_str(),
            bundle: &bundle.display().to_string(),
            fd_count: (fds.len() + v1_cgroups.len()) as u16,
            root: FdIndex(0),
            binds: &binds,
            namespaces: &namespaces,
            pid_of: &self.pid_of(container)?,
            own_mounts: &own_mounts,
            v1_cgroups: &v1_cgroups,
            host_mounts,
        };
        let filter = self.kept.filter(spec)?;
        let bytes = lower(spec, &input, filter.as_deref())
            .map_err(|error| Error::invalid(error.to_string()))?;
        self.kept.keep(&container.id, spec, filter);
        Ok(Plan { shows_cgroups: !v1_cgroups.is_empty(), ..Plan::seal(bytes, fds)? })
    }

    /// What the pod's /dev/shm is called in specs; it is only in the shim's
    /// own mount namespace.
    pub(super) fn shm_name(&self, container: &Container) -> String {
        self.journal.sandbox_dir(&container.sandbox.id).join("shm").display().to_string()
    }

    /// The container whose PID namespace is joined; empty for none.
    fn pid_of(&self, container: &Container) -> Result<String> {
        match &container.config.security.namespaces.pid {
            NamespaceMode::Pod => Ok(container.sandbox.id.to_string()),
            NamespaceMode::Target(id) => self.target(container, id),
            NamespaceMode::Container | NamespaceMode::Node => Ok(String::new()),
        }
    }

    /// The plan of one more process in a running container, and what it refers to.
    pub(super) fn plan_exec(
        &self,
        container: &Container,
        request: &ExecRequest,
        exec: ExecId,
    ) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
        let runtime = self.oci_runtime(container)?;
        let load = || self.load_spec(container);
        let base = self.kept.base(&container.id, runtime.is_some(), load)?;
        let process = exec_process(
            base.process(),
            &SpecExec {
                args: request.command.clone(),
                tty: request.terminal,
                cwd: request.working_dir.clone().unwrap_or_default(),
                env: request
                    .env
                    .iter()
                    .map(|(key, value)| (key.clone(), value.clone().into_bytes()))
                    .collect(),
                user: self.exec_user(container, request)?,
                privileged: None,
            },
        );
        let mut process = process.map_err(|error| Error::invalid(error.to_string()))?;
        process.console_size = request
            .size
            .map(|(height, width)| oci::ConsoleSize { height: height.into(), width: width.into() });
        if let Some(runtime) = runtime {
            return self.delegate_exec(&runtime, container, &process, exec);
        }
        let bytes = lower_exec(&base, &process, container.config.security.privileged)
            .map_err(|error| Error::invalid(error.to_string()))?;
        Ok((bytes, Vec::new()))
    }

    /// Another user than the container's, by the container's own files.
    fn exec_user(
        &self,
        container: &Container,
        request: &ExecRequest,
    ) -> Result<Option<ResolvedUser>> {
        let Some(text) = &request.user else { return Ok(None) };
        let root = super::copy::container_root(container)?;
        let passwd = read_in(&root, "/etc/passwd")?;
        let group = read_in(&root, "/etc/group")?;
        resolve_user(&RunAs::default(), text, &passwd, &group)
            .map(Some)
            .map_err(|error| Error::invalid(error.to_string()))
    }
}

/// Descriptors of a Create frame besides those of the plan: the plan itself,
/// the log, two of the v2 cgroup, two for each v1 hierarchy, the OOM counter.
const FDS_OF_FRAME_MAX: usize = 1 + 1 + 2 + 2 * 16 + 1;

/// Refuses more descriptors than a Create frame can carry.
pub(super) fn check_fds(fds: &[OwnedFd]) -> Result<()> {
    let most = FRAME_FDS_MAX - FDS_OF_FRAME_MAX;
    if fds.len() <= most {
        return Ok(());
    }
    Err(Error::invalid(format!("a container can have no more than {most} mounts")))
}

/// A detached clone of a bind source, idmapped where it must be.
pub(super) fn open_source(source: &BindSource, pod_user: Option<&OwnedFd>) -> Result<OwnedFd> {
    let mount = mount::open_tree(Path::new(&source.path), source.recursive)?;
    if source.uid_mappings.is_empty() && source.gid_mappings.is_empty() {
        return Ok(mount);
    }
    let own;
    let userns = match pod_user {
        Some(user) => user.as_fd(),
        None => {
            own = ns::create_user(&id_maps(&source.uid_mappings), &id_maps(&source.gid_mappings))?;
            own.as_fd()
        }
    };
    let attributes = MountAttributes { recursive: source.recursive_idmap, ..Default::default() };
    mount::set_attributes(mount.as_fd(), attributes, None, Some(userns))?;
    Ok(mount)
}

fn id_maps(mappings: &[oci::LinuxIdMapping]) -> Vec<ns::IdMap> {
    mappings
        .iter()
        .map(|m| ns::IdMap { inside: m.container_id, outside: m.host_id, count: m.size })
        .collect()
}

// -- root filesystem and user

impl Inner {
    /// The root filesystem, and the images that are mounted in it.
    fn filesystems(
        &self,
        container: &Container,
        user_namespace: Option<&OwnedFd>,
        label: &str,
    ) -> Result<(OwnedFd, Volumes)> {
        let user = container.sandbox.config.namespaces.user.as_ref();
        let idmap = match (user, user_namespace) {
            (Some(user), Some(userns)) => Some(Idmap {
                userns: userns.as_fd(),
                root_uid: super::namespaces::host_root(&user.uids, "user")?,
                root_gid: super::namespaces::host_root(&user.gids, "group")?,
            }),
            (Some(_), None) => return Err(Error::internal("the shim has no user namespace")),
            (None, _) => None,
        };
        let how = MountAs { idmap: idmap.as_ref(), label };
        let layers = container.record.borrow().layers.clone();
        let snapshots = self.store.snapshotter();
        let snapshot = match snapshots.prepare(&container.id, &layers, how) {
            // It ran before, and goes on with what it wrote.
            Err(corten_store::Error::SnapshotExists(_)) => snapshots.remount(&container.id, how),
            prepared => prepared,
        };
        let root = snapshot.map_err(|error| Error::internal(error.to_string()))?.mount;
        Ok((root, self.open_volumes(container, how)?))
    }
}

/// Who the container runs as, by the image's own files.
fn resolve_in(root: &OwnedFd, container: &Container, image: &Image) -> Result<ResolvedUser> {
    let root =
        Root::from_fd(root.try_clone().map_err(|error| {
            Error::internal(format!("unable to duplicate a descriptor: {error}"))
        })?);
    let passwd = read_in(&root, "/etc/passwd")?;
    let group = read_in(&root, "/etc/group")?;
    resolve_user(&container.config.security.run_as, &image.config.user, &passwd, &group)
        .map_err(|error| Error::invalid(error.to_string()))
}

/// A small file of the image; empty where there is none.
fn read_in(root: &Root, path: &str) -> Result<Vec<u8>> {
    let problem =
        |why: String| Error::invalid(format!("unable to read {path} of the image: {why}"));
    // A FIFO in its place must not stop us.
    let file =
        match root.open_in(path.as_bytes(), OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
            Err(errno) => return Err(problem(errno.to_string())),
        };
    let mut bytes = Vec::new();
    let read = file.take(PASSWD_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| problem(error.to_string()))?;
    if bytes.len() > PASSWD_BYTES_MAX {
        return Err(problem(format!("it is longer than {PASSWD_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

// -- the OCI spec

impl Inner {
    fn oci_spec(
        &self,
        container: &Container,
        image: &Image,
        user: &ResolvedUser,
        labels: Option<Labels>,
    ) -> Result<oci::Spec> {
        let sandbox = &container.sandbox;
        let config = &container.config;
        let dir = self.journal.sandbox_dir(&sandbox.id);
        let in_dir = |name: &str| Some(dir.join(name).display().to_string());
        let files = SandboxFiles {
            resolv_conf: in_dir("resolv.conf"),
            hostname: in_dir("hostname"),
            hosts: in_dir("hosts"),
            shm: (sandbox.config.namespaces.ipc != NamespaceMode::Node)
                .then(|| self.shm_name(container)),
        };
        let record = container.record.borrow().clone();
        let profile = localhost_profile(&config.security.seccomp)?;
        let settings = image_settings(image);
        let mounts = self.mount_facts(container)?;
        let devices = super::devices::requested(&config.devices)?;
        let hostname = self.node.hostname_of(&sandbox.config);
        let handler = self.handler_of(sandbox)?;
        let policy = self.node.policy_of(&handler.settings);
        container_spec(&ContainerInput {
            sandbox_id: sandbox.id.as_str(),
            sandbox: &sandbox.config,
            container: config,
            resources: &record.resources,
            image: &settings,
            user,
            policy: &policy,
            files: &files,
            namespaces: &self.namespace_paths(container)?,
            hostname: &hostname,
            rootfs: "rootfs",
            cgroup_path: &record.cgroup,
            mounts: &mounts,
            devices: &devices,
            seccomp_profile: profile.as_deref(),
            labels,
            pod_annotations: &handler.settings.pod_annotations,
            container_annotations: &handler.settings.container_annotations,
        })
        .map_err(|error| Error::invalid(error.to_string()))
    }

    /// Names of the namespaces that a container joins. The shim is handed
    /// descriptors; the names are for the spec.
    fn namespace_paths(&self, container: &Container) -> Result<NamespacePaths> {
        let sandbox = &container.sandbox;
        let shim = sandbox.record.borrow().shim_pid.unwrap_or_default();
        let held = |name: &str| Some(format!("/proc/{shim}/fd/{name}"));
        let options = &sandbox.config.namespaces;
        let own_net = options.network != NamespaceMode::Node;
        let pid = match &container.config.security.namespaces.pid {
            NamespaceMode::Pod => Some(sandbox.id.to_string()),
            NamespaceMode::Target(id) => Some(self.target(container, id)?),
            NamespaceMode::Container | NamespaceMode::Node => None,
        };
        Ok(NamespacePaths {
            user: options.user.as_ref().and_then(|_| held("user")),
            net: sandbox.record.borrow().netns.as_ref().map(|path| path.display().to_string()),
            ipc: if options.ipc == NamespaceMode::Node { None } else { held("ipc") },
            uts: if own_net { held("uts") } else { None },
            pid,
        })
    }

    /// The running container of the pod whose PID namespace is joined.
    fn target(&self, container: &Container, id: &str) -> Result<String> {
        let target = self.table.find_container(&container.sandbox.namespace, id)?;
        if target.sandbox.id != container.sandbox.id {
            return Err(Error::invalid(format!("target container {id:?} is in another pod")));
        }
        super::exec::check_running(&target)?;
        Ok(target.id.to_string())
    }

    fn save_spec(&self, container: &Container, spec: &oci::Spec) -> Result<()> {
        let path =
            self.journal.container_dir(&container.sandbox.id, &container.id).join("spec.json");
        let problem = |error: std::io::Error| {
            Error::internal(format!("unable to write {}: {error}", path.display()))
        };
        let bytes = serde_json::to_vec(spec).map_err(|error| problem(error.into()))?;
        std::fs::write(&path, bytes).map_err(problem)
    }

    /// The OCI spec of a container, as it was written when it was made.
    pub(super) fn load_spec(&self, container: &Container) -> Result<oci::Spec> {
        let path =
            self.journal.container_dir(&container.sandbox.id, &container.id).join("spec.json");
        let problem = |error: std::io::Error| {
            Error::internal(format!("unable to read {}: {error}", path.display()))
        };
        let bytes = std::fs::read(&path).map_err(problem)?;
        serde_json::from_slice(&bytes).map_err(|error| problem(error.into()))
    }

    /// What is at the sources of a container's mounts.
    fn mount_facts(&self, container: &Container) -> Result<Vec<MountFact>> {
        let mounts = &container.config.mounts;
        let propagates = mounts.iter().any(|mount| mount.propagation != MountPropagation::Private);
        // Reading the mount table costs with its length; few need it.
        let table = if propagates { mount::mount_list()? } else { Vec::new() };
        mounts
            .iter()
            .enumerate()
            .map(|(index, request)| {
                if request.image.is_some() {
                    let source = self.volume_name(container, index);
                    return Ok(MountFact { source, ..MountFact::default() });
                }
                let source = host_path(&request.host_path, request.create_host_path)?;
                let on = mount_of(&table, &source);
                Ok(MountFact {
                    shared: on.is_some_and(|mount| mount.propagation.contains("shared:")),
                    slave: on.is_some_and(|mount| mount.propagation.contains("master:")),
                    source: source.display().to_string(),
                })
            })
            .collect()
    }
}

/// A bind source with its links resolved; it must exist.
fn host_path(path: &str, create: bool) -> Result<PathBuf> {
    if !Path::new(path).is_absolute() {
        return Err(Error::invalid(format!("the host path {path:?} of a mount is not absolute")));
    }
    let resolved = match std::fs::canonicalize(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && create => {
            std::fs::create_dir_all(path).and_then(|()| std::fs::canonicalize(path))
        }
        resolved => resolved,
    };
    resolved
        .map_err(|error| Error::invalid(format!("unable to mount the host path {path:?}: {error}")))
}

/// The mount that a path lies on: the longest mount point that begins it, and
/// the last of those.
fn mount_of<'a>(table: &'a [mount::Mount], path: &Path) -> Option<&'a mount::Mount> {
    table
        .iter()
        .filter(|mount| path.starts_with(&mount.target))
        .max_by_key(|mount| mount.target.as_os_str().len())
}

fn localhost_profile(profile: &Profile) -> Result<Option<Vec<u8>>> {
    let Profile::Localhost(path) = profile else { return Ok(None) };
    let failed =
        |why: String| Error::invalid(format!("unable to read the seccomp profile {path:?}: {why}"));
    if !Path::new(path).is_absolute() {
        return Err(failed("its path is not absolute".into()));
    }
    let read = super::bounded::read(Path::new(path), SECCOMP_PROFILE_BYTES_MAX);
    read.map(Some).map_err(|error| failed(error.to_string()))
}

fn image_settings(image: &Image) -> ImageSettings {
    let config = &image.config;
    ImageSettings {
        env: config.env.clone(),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        working_dir: config.working_dir.clone(),
        user: config.user.clone(),
        stop_signal: config.stop_signal.clone(),
        volumes: config.volumes.clone(),
    }
}
