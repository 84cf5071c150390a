//! Work in another network namespace, and the making of new ones.
//!
//! Namespaces belong to threads. Both are done on a thread of its own that
//! ends afterwards, so that no thread of the caller is ever in the wrong place.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::{Family, Socket, route};
use crate::{Context, Result};

/// The namespaces that the containers of a pod share from the beginning. They
/// live as long as a descriptor, a mount or a process holds them.
#[derive(Debug)]
pub struct NamespaceSet {
    /// Network; `lo` is up.
    pub net: OwnedFd,
    /// System V IPC and POSIX message queues.
    pub ipc: OwnedFd,
    /// Host name.
    pub uts: OwnedFd,
}

/// Makes a network, an IPC and a UTS namespace, with `lo` up.
pub fn make_namespace_set() -> Result<NamespaceSet> {
    on_own_thread(|| {
        let flags = UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
        // SAFETY: only `UnshareFlags::FILES` would be dangerous.
        unsafe { rustix::thread::unshare_unsafe(flags) }
            .context("make", || "network, IPC and UTS namespaces")?;
        own_loopback_up()?;
        Ok(NamespaceSet { net: own("net")?, ipc: own("ipc")?, uts: own("uts")? })
    })
}

/// Brings `lo` up in a network namespace that was made elsewhere.
pub fn loopback_up(netns: BorrowedFd<'_>) -> Result<()> {
    in_network_namespace(netns, own_loopback_up)
}

fn own_loopback_up() -> Result<()> {
    let mut socket = Socket::open(Family::Route)?;
    let index = route::link_index(&mut socket, "lo")?.unwrap_or(1);
    socket.request(vec![route::link_up(index)])
}

/// Runs `work` inside a network namespace.
pub fn in_network_namespace<T: Send>(
    netns: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    on_own_thread(|| {
        rustix::thread::move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))
            .context("enter", || "a network namespace")?;
        work()
    })
}

fn own(kind: &str) -> Result<OwnedFd> {
    let path = format!("/proc/thread-self/ns/{kind}");
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .context("open", || path.clone())
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("namespace".to_owned())
            .stack_size(256 << 10)
            .spawn_scoped(scope, work)
            .context("start", || "a thread for a namespace")?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
