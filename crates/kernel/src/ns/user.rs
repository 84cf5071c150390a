//! User namespaces, and namespaces that belong to them.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::{NamespaceSet, flags, of_process};
use crate::launch::NamespaceKind;
use crate::{Context, Error, Result, sys};

/// A range of ids: `inside..inside+count` are `outside..` of the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMap {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// A new user namespace with these maps.
pub fn create_user(uids: &[IdMap], gids: &[IdMap]) -> Result<OwnedFd> {
    NamespaceSet::create_in_user(uids, gids, &[])?
        .user
        .ok_or_else(|| Error::new("make", "a user namespace", Errno::CHILD))
}

impl NamespaceSet {
    /// A new user namespace with these maps, and namespaces of these kinds
    /// (net, ipc, uts, mount, cgroup) that belong to it.
    pub fn create_in_user(uids: &[IdMap], gids: &[IdMap], kinds: &[NamespaceKind]) -> Result<Self> {
        make(uids, gids, kinds)
    }
}

fn make(uids: &[IdMap], gids: &[IdMap], kinds: &[NamespaceKind]) -> Result<NamespaceSet> {
    let flags = libc::CLONE_NEWUSER | flags(kinds)?;
    // The namespaces are those of a child that does nothing but wait to be
    // seen. It is not to be looked into meanwhile.
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("make", || "a pipe")?;
    let mask = sys::block_signals().context("block", || "signals")?;
    // SAFETY: the child makes bare system calls and exits.
    let forked = unsafe { sys::fork(flags as u64, libc::SIGCHLD, None) };
    if let Ok(None) = forked {
        drop(writer);
        wait_for_end(&reader);
    }
    sys::restore_signals(mask);
    let (pid, pidfd) = match forked.context("make", || "a user namespace")? {
        Some(made) => made,
        None => return Err(Error::new("make", "a user namespace", Errno::CHILD)),
    };
    let made = read(pid, uids, gids, kinds);
    drop(writer);
    let reaped = loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            other => break other,
        }
    };
    reaped.context("reap", || "the child of a user namespace")?;
    made
}

/// The child: until the parent closes its end, or dies.
fn wait_for_end(reader: &OwnedFd) -> ! {
    let mut byte = [0u8; 1];
    while rustix::io::read(reader, &mut byte) == Err(Errno::INTR) {}
    sys::exit(0)
}

fn read(pid: i32, uids: &[IdMap], gids: &[IdMap], kinds: &[NamespaceKind]) -> Result<NamespaceSet> {
    write_map(pid, "uid_map", uids)?;
    write_map(pid, "gid_map", gids)?;
    let mut set = NamespaceSet::collect(kinds, |kind| of_process(pid, kind))?;
    set.user = Some(of_process(pid, NamespaceKind::User)?);
    Ok(set)
}

fn write_map(pid: i32, file: &str, map: &[IdMap]) -> Result<()> {
    let text: String = map
        .iter()
        .map(|range| format!("{} {} {}\n", range.inside, range.outside, range.count))
        .collect();
    // One write: the kernel takes a map once.
    std::fs::write(format!("/proc/{pid}/{file}"), text)
        .context("write", || format!("{file} of a user namespace"))
}
