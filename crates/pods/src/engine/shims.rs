//! What is done about a shim's process from outside.

use std::path::Path;
use std::time::Duration;

use corten_base::SandboxId;
use corten_kernel::process;
use rustix::process::{WaitId, WaitIdOptions};

use crate::error::{Error, Kind, Result};
use crate::watch::watch;

/// How long a killed shim may take to end.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// The pid of a sandbox's shim, looked for among all processes: a daemon that
/// was killed may have started it without writing that down.
pub fn find(id: &SandboxId) -> Option<i32> {
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(|pid| is_shim_of(*pid, id))
}

/// Waits for a shim to end; one that takes longer than `patience` is killed.
/// The pid is only believed if its command line names the sandbox: it may be
/// somebody else's by now.
pub async fn end(pid: i32, id: &SandboxId, patience: Duration) -> Result<()> {
    let Ok(pidfd) = process::pidfd_open(pid) else { return Ok(()) };
    if !is_shim_of(pid, id) {
        reap(&pidfd);
        return Ok(());
    }
    let pidfd = watch(pidfd, "a shim's process")?;
    if tokio::time::timeout(patience, pidfd.readable()).await.is_err() {
        let _ = process::pidfd_send_signal(pidfd.get_ref(), 9);
        if tokio::time::timeout(KILL_TIMEOUT, pidfd.readable()).await.is_err() {
            return Err(Error::new(
                Kind::DeadlineExceeded,
                format!(
                    "the shim {pid} of sandbox {id} was killed, but does not end: it hangs in the kernel, mostly because the disk of the pod's logs does not answer. It is tried again when the sandbox is stopped again"
                ),
            ));
        }
    }
    reap(pidfd.get_ref());
    Ok(())
}

/// Reaps a shim that is our child; that of an earlier daemon is init's.
fn reap(pidfd: &std::os::fd::OwnedFd) {
    use std::os::fd::AsFd;
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let _ = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options);
}

/// Whether `pid` is the shim of this sandbox. (A dead one has no command line.)
fn is_shim_of(pid: i32, id: &SandboxId) -> bool {
    let line = std::fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline"));
    line.is_ok_and(|line| line.split(|byte| *byte == 0).nth(1) == Some(id.as_str().as_bytes()))
}
