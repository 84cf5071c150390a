//! Starting a shim.
//!
//! It is started by the same launcher as containers, into the small mount
//! namespace that the daemon made for all shims (few mounts to copy, whatever
//! the host has; the program as a read-only bind, so that nothing that a
//! container does can change it).

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use corten_base::SandboxId;
use corten_kernel::cgroup::Cgroups;
use corten_kernel::launch::{
    self, CStrList, Child, FdIndex, Join, Launch, Memory, Message, NamespaceKind, Step,
};
use corten_kernel::{fdpass, ns};

use crate::error::{Error, Result};

/// Where the small mount namespace shows the shim's program.
const PROGRAM: &std::ffi::CStr = c"/corten-shim";

/// The program, ready to be started.
pub struct ShimProgram {
    /// The small mount namespace.
    mounts: OwnedFd,
    /// /dev/null, for its stdin and stdout.
    null: std::fs::File,
    cgroups: Arc<Cgroups>,
    /// The cgroup below which each shim gets its own (v2 only: on v1 every
    /// move costs a grace period, and shims stay with the daemon).
    cgroup: String,
}

/// A shim on its way.
pub struct Started {
    /// Its pid.
    pub pid: i32,
    /// Where it listens: one can connect already.
    pub socket: PathBuf,
    child: Child,
}

impl Started {
    /// Why it did not come to listen, if its launch failed; else the error
    /// that somebody has met who spoke to it.
    pub fn explain(&self, error: Error) -> Error {
        match self.child.read_message() {
            Ok(Some(Message::Failed { step, errno })) => {
                let errno = std::io::Error::from_raw_os_error(errno);
                Error::internal(format!("unable to start the shim: step {step}: {errno}"))
            }
            _ => error,
        }
    }
}

impl ShimProgram {
    /// Makes the mount namespace for the program at `path`.
    pub fn prepare(path: &Path, cgroups: Arc<Cgroups>, cgroup: String) -> Result<Self> {
        let program = std::fs::File::open(path).map_err(|error| {
            Error::internal(format!(
                "unable to open the shim {}: {error} (`shim` in the configuration says where it is)",
                path.display()
            ))
        })?;
        let mounts = ns::small_mount_namespace(program.as_fd())?;
        let null = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map_err(|error| Error::internal(format!("unable to open /dev/null: {error}")))?;
        Ok(Self { mounts, null, cgroups, cgroup })
    }

    /// Starts a shim that listens in `dir` and writes its exits there, in a
    /// cgroup of its own or in the daemon's. It is not waited for: what is sent
    /// to it is there when it looks.
    pub async fn start(
        self: &Arc<Self>,
        id: &SandboxId,
        dir: &Path,
        own_group: bool,
    ) -> Result<Started> {
        let (this, id, dir) = (self.clone(), id.clone(), dir.to_owned());
        tokio::task::spawn_blocking(move || this.start_now(&id, &dir, own_group))
            .await
            .map_err(|error| Error::internal(format!("starting a shim panicked: {error}")))?
    }

    fn start_now(&self, id: &SandboxId, dir: &Path, own_group: bool) -> Result<Started> {
        let socket = dir.join("shim.sock");
        let listener = fdpass::listen(&socket)?;
        let exits = dir.join("exits");
        let exits =
            std::fs::File::options().create(true).append(true).open(&exits).map_err(|error| {
                Error::internal(format!("unable to open {}: {error}", exits.display()))
            })?;
        let group = if own_group { self.own_group(id)? } else { None };
        let arguments = format!("corten-shim\0{id}\0");
        let steps = [
            Step::JoinNamespace { fd: FdIndex(0), kind: NamespaceKind::Mount },
            Step::NewNamespace { kind: NamespaceKind::Mount },
            Step::NewSession,
            Step::Exec {
                candidates: CStrList { count: 1, bytes: PROGRAM.to_bytes_with_nul() },
                args: CStrList { count: 2, bytes: arguments.as_bytes() },
                env: CStrList { count: 0, bytes: b"" },
            },
        ];
        let null = self.null.as_fd();
        let stderr = std::io::stderr();
        let child = launch::spawn(&Launch {
            steps: steps.iter().copied(),
            new_namespaces: &[],
            join: Join::Parents,
            fds: &[self.mounts.as_fd()],
            stdio: [null, null, stderr.as_fd()],
            inherit: &[listener.as_fd(), exits.as_fd()],
            memory: Memory::Lent,
            cgroup: group.as_ref().map(AsFd::as_fd),
            tasks: &[],
        })
        .map_err(|errno| Error::internal(format!("unable to start the shim of {id}: {errno}")))?;
        Ok(Started { pid: child.pid(), socket, child })
    }

    fn own_group(&self, id: &SandboxId) -> Result<Option<OwnedFd>> {
        if !self.cgroups.is_unified() {
            return Ok(None);
        }
        let path = format!("{}/{id}", self.cgroup);
        let group = self.cgroups.create(&path, &Default::default())?;
        Ok(group.entry()?.into)
    }

    /// Removes the cgroup of a shim that has ended.
    pub fn remove_group(&self, id: &SandboxId) -> Result<()> {
        if self.cgroups.is_unified() {
            self.cgroups.remove(&format!("{}/{id}", self.cgroup))?;
        }
        Ok(())
    }
}
