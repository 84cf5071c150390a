//! One pod, made and taken away by the kernel alone.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use corten_kernel::cgroup::{self, Cgroups, Entry};
use corten_kernel::launch::{
    CStrList, Child, Join, Launch, Memory, Message, MountAttributes, NamespaceKind, Step, spawn,
};
use corten_kernel::mount;
use corten_kernel::netlink::{NamespaceSet, make_namespace_set};
use corten_kernel::overlay::{self, Overlay, Upper};
use corten_kernel::process::{End, pidfd_send_signal, reap};
use corten_kernel::stream::pipe;
use corten_protocol::plan::PlanView;
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::network::Network;
use super::plan::{Bind, FILES, Plans};

/// The memory limit of the container.
pub const MEMORY_BYTES: i64 = 128 << 20;
/// What the kubelet gives to containers that asked for nothing special.
pub const OOM_SCORE_ADJ: i32 = 1000;
/// Likewise.
pub const CPU_SHARES: u64 = 102;

/// Bytes of a pod's /dev/shm.
const SHM_BYTES: &str = "67108864";
/// Where the mount namespace of pods' monitors shows their program.
const MONITOR: &std::ffi::CStr = c"/corten-shim";
const SIGKILL: i32 = 9;

/// The mount namespace that the floor lives in, as daemons do, and the small
/// one, with little to copy, that processes of pods begin in, as shims' do.
pub struct Mounts {
    /// Everything that the machine has.
    pub own: OwnedFd,
    /// Hardly anything.
    pub small: OwnedFd,
}

impl Mounts {
    /// Makes a process in the small one.
    fn spawn<'a>(
        &self,
        launch: &Launch<'a, impl Iterator<Item = Step<'a>> + Clone>,
    ) -> Result<Child> {
        // There and back: a thread of its own would cost more.
        let kind = Some(LinkNameSpaceType::Mount);
        move_into_link_name_space(self.small.as_fd(), kind)?;
        let child = spawn(launch);
        move_into_link_name_space(self.own.as_fd(), kind)?;
        Ok(child?)
    }
}

/// What pods are made with, all of it made before the first.
pub struct Stage {
    /// Directory of the root filesystems.
    pub data: PathBuf,
    /// Directory of volatile files, on a tmpfs as on a node.
    pub state: PathBuf,
    /// The image's only layer.
    pub layer: OwnedFd,
    /// /dev/null.
    pub null: File,
    /// The hierarchies.
    pub cgroups: Cgroups,
    /// The group of all pods.
    pub cgroup: String,
    /// The bridge.
    pub network: Network,
    /// Where processes are made.
    pub mounts: Mounts,
    /// The plans.
    pub plans: Plans,
}

/// A pod that was made: without a container.
pub struct Sandbox {
    number: u16,
    namespaces: NamespaceSet,
    shm: OwnedFd,
    monitor: Killed,
}

/// Its container, which runs or is about to.
pub struct Container {
    child: Option<Child>,
    process: Killed,
    entry: Entry,
    /// Ends of its streams, which a monitor would read for the log.
    _streams: [OwnedFd; 2],
    _log: File,
}

/// A child that does not outlive this value.
struct Killed {
    pid: i32,
    pidfd: OwnedFd,
    gone: bool,
}

impl Killed {
    fn new(child: &Child) -> Result<Self> {
        let pidfd = child.pidfd().try_clone_to_owned()?;
        Ok(Self { pid: child.pid(), pidfd, gone: false })
    }

    fn end(&mut self) -> Result<()> {
        if !std::mem::replace(&mut self.gone, true) {
            let _ = pidfd_send_signal(&self.pidfd, SIGKILL);
            reap(self.pid)?;
        }
        Ok(())
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

impl Stage {
    /// RunPodSandbox: namespaces, a monitor, /dev/shm, files, a link with
    /// addresses. The monitor comes to life while the rest is made.
    pub fn sandbox(&mut self, number: u16, ahead: Option<NamespaceSet>) -> Result<Sandbox> {
        let namespaces = match ahead {
            Some(namespaces) => namespaces,
            None => make_namespace_set()?,
        };
        let (child, _group) = self.monitor(number)?;
        let monitor = Killed::new(&child)?;
        let directory = self.state.join(number.to_string());
        std::fs::create_dir(&directory)?;
        for (name, text) in FILES.iter().zip(&self.plans.texts) {
            std::fs::write(directory.join(name), text)?;
        }
        let shm = shared_memory()?;
        self.network.connect(&namespaces, number)?;
        expect_closed(&child, "the monitor")?;
        Ok(Sandbox { number, namespaces, shm, monitor })
    }

    /// A process that outlives daemons: a small static program. It has a group
    /// of its own where the kernel lets it be born there.
    fn monitor(&self, number: u16) -> Result<(Child, Option<cgroup::Group>)> {
        let group = if self.cgroups.is_unified() {
            let path = format!("{}/monitor-{number}", self.cgroup);
            Some(self.cgroups.create(&path, &cgroup::Resources::default())?)
        } else {
            None
        };
        let into = group.as_ref().map(|group| group.entry()).transpose()?;
        let into = into.and_then(|entry| entry.into);
        let steps = [
            Step::NewSession,
            Step::Exec {
                candidates: CStrList { count: 1, bytes: MONITOR.to_bytes_with_nul() },
                args: CStrList { count: 2, bytes: b"sleep\x001000000\0" },
                env: CStrList { count: 0, bytes: b"" },
            },
        ];
        let null = self.null.as_fd();
        let child = self.mounts.spawn(&Launch {
            steps: steps.iter().copied(),
            new_namespaces: &[],
            join: Join::Parents,
            fds: &[],
            stdio: [null, null, null],
            inherit: &[],
            memory: Memory::Lent,
            cgroup: into.as_ref().map(AsFd::as_fd),
            tasks: &[],
        })?;
        Ok((child, group))
    }

    /// CreateContainer: cgroups, root filesystem, log; and the child is on its
    /// way through its mounts.
    pub fn create(&self, sandbox: &Sandbox, spare: Option<OwnedFd>) -> Result<Container> {
        let Sandbox { number, namespaces, shm, .. } = sandbox;
        let group = self.cgroups.create(&self.container_group(*number), &self.plans.resources)?;
        let entry = group.entry()?;
        let root = match spare {
            Some(root) => {
                std::fs::rename(self.place("spares", *number), self.place("snapshots", *number))?;
                root
            }
            None => self.root_filesystem(&self.place("snapshots", *number))?,
        };
        let directory = self.state.join(number.to_string());
        let files = FILES.map(|name| mount::open_tree(&directory.join(name), false));
        let [hostname, hosts, resolv_conf] = files;
        let files = [hostname?, hosts?, resolv_conf?];
        let log = File::options().create(true).append(true).open(self.place("logs", *number))?;
        let ((stdout, stdout_end), (stderr, stderr_end)) = (pipe()?, pipe()?);
        let mut fds = vec![root.as_fd()];
        fds.extend(self.plans.binds.iter().map(|bind| match bind {
            Bind::File(index) => files[*index].as_fd(),
            Bind::Shm => shm.as_fd(),
        }));
        fds.extend([namespaces.net.as_fd(), namespaces.ipc.as_fd(), namespaces.uts.as_fd()]);
        let cgroups = group.mounts()?;
        fds.extend(borrow(&cgroups));
        let plan = view(&self.plans.container)?;
        let child = self.mounts.spawn(&Launch {
            steps: plan.steps(),
            new_namespaces: &[NamespaceKind::Mount, NamespaceKind::Pid],
            join: Join::Parents,
            fds: &fds,
            stdio: [self.null.as_fd(), stdout_end.as_fd(), stderr_end.as_fd()],
            inherit: &[],
            memory: Memory::Copied,
            cgroup: entry.into.as_ref().map(AsFd::as_fd),
            tasks: &borrow(&entry.tasks),
        })?;
        let process = Killed::new(&child)?;
        let child = Some(child);
        Ok(Container { child, process, entry, _streams: [stdout, stderr], _log: log })
    }

    /// A root filesystem that is made ahead; it is the container's by a rename.
    pub fn spare(&self, number: u16) -> Result<OwnedFd> {
        self.root_filesystem(&self.place("spares", number))
    }

    /// A volatile overlay over the image's layer, with an upper of its own.
    fn root_filesystem(&self, path: &Path) -> Result<OwnedFd> {
        let (upper, work) = (path.join("upper"), path.join("work"));
        for directory in [path, &upper, &work] {
            std::fs::create_dir(directory)?;
        }
        let (upper, work) = (directory(&upper)?, directory(&work)?);
        Ok(overlay::mount(&Overlay {
            lower: &[self.layer.as_fd()],
            upper: Some(Upper { upper: upper.as_fd(), work: work.as_fd() }),
            volatile: true,
            options: &[],
            scratch: &self.data.join("scratch"),
        })?)
    }

    /// StartContainer: the child goes on to its command.
    pub fn start(&self, container: &mut Container) -> Result<()> {
        let child = container.child.take().context("a container is started once")?;
        match child.wait_message()? {
            Message::Created => {}
            other => bail!("the container is not made: {}", self.explain(other)),
        }
        child.release()?;
        match child.wait_message()? {
            Message::Closed => Ok(()),
            other => bail!("the container does not run: {}", self.explain(other)),
        }
    }

    fn explain(&self, message: Message) -> String {
        match (message, view(&self.plans.container)) {
            (Message::Failed { step, errno } | Message::Warning { step, errno }, Ok(plan)) => {
                format!(
                    "{}: {}",
                    plan.describe_step(step),
                    std::io::Error::from_raw_os_error(errno)
                )
            }
            (other, _) => format!("{other:?}"),
        }
    }

    /// ExecSync of `true`: in the container's namespaces and cgroups, with
    /// pipes that are read to their end.
    pub fn exec(&self, container: &Container) -> Result<()> {
        let ((stdout, stdout_end), (stderr, stderr_end)) = (pipe()?, pipe()?);
        let plan = view(&self.plans.exec)?;
        let child = spawn(&Launch {
            steps: plan.steps(),
            new_namespaces: &[],
            join: Join::Process { pidfd: container.process.pidfd.as_fd(), user: false },
            fds: &[],
            stdio: [self.null.as_fd(), stdout_end.as_fd(), stderr_end.as_fd()],
            inherit: &[],
            memory: Memory::Copied,
            cgroup: container.entry.into.as_ref().map(AsFd::as_fd),
            tasks: &borrow(&container.entry.tasks),
        })?;
        drop((stdout_end, stderr_end));
        let mut output = Vec::new();
        for stream in [stdout, stderr] {
            File::from(stream).read_to_end(&mut output)?;
        }
        match reap(child.pid())? {
            End::Exited(0) => Ok(()),
            other => bail!("`true` ended by {other:?}: {}", String::from_utf8_lossy(&output)),
        }
    }

    /// Stop and remove: kill, wait, cgroups, root filesystem (renamed; its
    /// files go later), monitor, files, and with the last descriptors the
    /// namespaces and the link.
    pub fn take_down(&self, sandbox: Sandbox, mut container: Container) -> Result<()> {
        let number = sandbox.number;
        if let Some(kill) = &container.entry.kill {
            rustix::io::write(kill, b"1")?;
        }
        container.process.end()?;
        drop(container);
        self.cgroups.remove(&self.container_group(number))?;
        std::fs::rename(self.place("snapshots", number), self.place("trash", number))?;
        let Sandbox { namespaces, shm, mut monitor, .. } = sandbox;
        monitor.end()?;
        drop((namespaces, shm));
        let directory = self.state.join(number.to_string());
        for name in FILES {
            std::fs::remove_file(directory.join(name))?;
        }
        std::fs::remove_dir(directory)?;
        if self.cgroups.is_unified() {
            self.cgroups.remove(&format!("{}/monitor-{number}", self.cgroup))?;
        }
        Ok(())
    }

    /// What the kubelet does before: the pod's cgroup.
    pub fn expect(&self, number: u16) -> Result<()> {
        Ok(self.cgroups.create(&self.pod_group(number), &cgroup::Resources::default()).map(drop)?)
    }

    /// What nobody waits for: the files of the container, its log, and what the
    /// kubelet removes.
    pub fn sweep(&self, number: u16) -> Result<()> {
        self.cgroups.remove(&self.pod_group(number))?;
        std::fs::remove_dir_all(self.place("trash", number))?;
        Ok(std::fs::remove_file(self.place("logs", number))?)
    }

    fn pod_group(&self, number: u16) -> String {
        format!("{}/{number}", self.cgroup)
    }

    fn container_group(&self, number: u16) -> String {
        format!("{}/{number}/main", self.cgroup)
    }

    /// What a pod has in a directory on disk.
    fn place(&self, directory: &str, number: u16) -> PathBuf {
        self.data.join(directory).join(number.to_string())
    }
}

fn view(bytes: &[u8]) -> Result<PlanView<'_>> {
    PlanView::parse(bytes).map_err(|error| anyhow::anyhow!("the plan is damaged: {error}"))
}

fn borrow(fds: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    fds.iter().map(AsFd::as_fd).collect()
}

fn expect_closed(child: &Child, what: &str) -> Result<()> {
    match child.wait_message()? {
        Message::Closed => Ok(()),
        other => bail!("{what} does not run: {other:?}"),
    }
}

/// The pod's /dev/shm.
fn shared_memory() -> Result<OwnedFd> {
    let options = [("source", "shm"), ("mode", "1777"), ("size", SHM_BYTES)];
    let set = mount::MOUNT_ATTR_NOSUID | mount::MOUNT_ATTR_NODEV | mount::MOUNT_ATTR_NOEXEC;
    let attributes = MountAttributes { set, ..MountAttributes::default() };
    Ok(mount::new_filesystem("tmpfs", &options, attributes)?)
}

/// A directory, to be named by its descriptor.
pub fn directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    opened.with_context(|| format!("unable to open {}", path.display()))
}
