//! Namespaces of pods, made ahead of time.
//!
//! A network namespace costs more than a millisecond to make, and more under
//! load. A thread keeps a few sets ready; they are only descriptors, so a
//! daemon that dies leaves none behind.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use corten_base::{SandboxId, limits};
use corten_kernel::Errno;
use corten_kernel::netlink::{NamespaceSet, make_namespace_set};
use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;

use crate::Result;
use crate::error::FileContext;

/// How long the thread waits before it tries again to make a set.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How long the thread waits after a set was taken before it makes another:
/// until then the pod that took it is mostly made.
const REFILL_PAUSE: Duration = Duration::from_millis(50);

/// The namespaces of one pod. Descriptors keep them alive; the network one is
/// also mounted at `path`, until [`NamespacePool::release`].
#[derive(Debug)]
pub struct PodNamespaces {
    /// Network; `lo` is up.
    pub net: OwnedFd,
    /// IPC.
    pub ipc: OwnedFd,
    /// Host name.
    pub uts: OwnedFd,
    /// Where the network namespace is mounted: CNI plugins want a path.
    pub path: PathBuf,
}

/// Sets of namespaces that are ready to be taken.
#[derive(Debug, Clone)]
pub struct NamespacePool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    ready: Mutex<Receiver<NamespaceSet>>,
}

impl NamespacePool {
    /// Begins to fill a pool. Paths of network namespaces will be in
    /// `directory`, which is made when it is first needed.
    pub fn new(directory: PathBuf) -> Self {
        // One set waits in the hand of the thread, blocked on the full channel.
        let (sender, receiver) = sync_channel(limits::NETNS_POOL_MAX - 1);
        let started = std::thread::Builder::new()
            .name("netns-pool".to_owned())
            .stack_size(256 << 10)
            .spawn(move || fill(&sender));
        if let Err(error) = started {
            // Sets are then made when they are asked for.
            tracing::warn!(%error, "unable to start the thread that keeps namespaces ready");
        }
        Self { shared: Arc::new(Shared { directory, ready: Mutex::new(receiver) }) }
    }

    /// Takes a set of namespaces and mounts its network namespace at
    /// `<directory>/<sandbox>`; what was mounted there before is replaced.
    pub async fn take(&self, sandbox: &SandboxId) -> Result<PodNamespaces> {
        let path = self.path(sandbox);
        let ready = {
            let ready = self.shared.ready.lock().unwrap_or_else(PoisonError::into_inner);
            ready.try_recv()
        };
        match ready {
            // One mount takes less than the way to another thread and back.
            Ok(set) => pinned(set, path),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {
                tokio::task::spawn_blocking(move || pinned(make_namespace_set()?, path)).await?
            }
        }
    }

    /// Mounts a network namespace that was made elsewhere (a pod in a user
    /// namespace has to make its own) at `<directory>/<sandbox>`.
    pub async fn pin(&self, sandbox: &SandboxId, net: &OwnedFd) -> Result<PathBuf> {
        let path = self.path(sandbox);
        let net = net.try_clone().file("duplicate the descriptor of", &path)?;
        tokio::task::spawn_blocking(move || {
            pin(&net, &path)?;
            Ok(path)
        })
        .await?
    }

    /// Unmounts a sandbox's network namespace and removes its file. Nothing to
    /// do is success.
    pub fn release(&self, sandbox: &SandboxId) -> Result<()> {
        unpin(&self.path(sandbox))
    }

    /// Where the network namespace of a sandbox is mounted.
    pub fn path(&self, sandbox: &SandboxId) -> PathBuf {
        self.shared.directory.join(sandbox.as_str())
    }
}

/// Makes sets until the pool is dropped.
fn fill(sender: &SyncSender<NamespaceSet>) {
    let mut complained = false;
    loop {
        match make_namespace_set() {
            Ok(set) => {
                complained = false;
                match sender.try_send(set) {
                    Ok(()) => {}
                    Err(TrySendError::Disconnected(_)) => return,
                    Err(TrySendError::Full(set)) => {
                        if sender.send(set).is_err() {
                            return;
                        }
                        std::thread::sleep(REFILL_PAUSE);
                    }
                }
            }
            Err(error) => {
                if !complained {
                    tracing::warn!(%error, "no namespaces kept ready");
                }
                complained = true;
                std::thread::sleep(RETRY_PAUSE);
            }
        }
    }
}

fn pinned(set: NamespaceSet, path: PathBuf) -> Result<PodNamespaces> {
    pin(&set.net, &path)?;
    let NamespaceSet { net, ipc, uts } = set;
    Ok(PodNamespaces { net, ipc, uts, path })
}

fn pin(net: &OwnedFd, path: &Path) -> Result<()> {
    unpin(path)?;
    let flags = OFlags::CREATE | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let create = || rustix::fs::open(path, flags, Mode::RUSR);
    let file = match create() {
        Err(Errno::NOENT) => {
            if let Some(directory) = path.parent() {
                std::fs::create_dir_all(directory).file("make", directory)?;
            }
            create()
        }
        file => file,
    };
    file.file("make", path)?;
    let source = format!("/proc/self/fd/{}", net.as_raw_fd());
    rustix::mount::mount_bind(source.as_str(), path).file("mount a network namespace at", path)
}

fn unpin(path: &Path) -> Result<()> {
    loop {
        match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // Something is mounted below too.
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => break,
            Err(errno) => return Err(errno).file("unmount", path),
        }
    }
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno).file("remove", path),
    }
}
