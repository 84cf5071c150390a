//! What is done about a shim's process from outside.

use std::path::Path;
use std::time::Duration;

use corten_base::SandboxId;
use corten_kernel::process;
use rustix::process::{WaitId, WaitIdOptions};

use crate::error::{Error, Kind, Result};
use crate::watch::watch;

/// Waits for a shim to end; one that takes longer than `timeout` is killed.
/// The pid is only believed if its command line names the sandbox: it may be
/// somebody else's by now.
pub async fn end(pid: i32, id: &SandboxId, timeout: Duration) -> Result<()> {
    let Ok(pidfd) = process::pidfd_open(pid) else { return Ok(()) };
    if !is_shim_of(pid, id) {
        reap(&pidfd);
        return Ok(());
    }
    let pidfd = watch(pidfd, "a shim's process")?;
    if tokio::time::timeout(timeout, pidfd.readable()).await.is_err() {
        let _ = process::pidfd_send_signal(pidfd.get_ref(), 9);
        if tokio::time::timeout(timeout, pidfd.readable()).await.is_err() {
            return Err(Error::new(
                Kind::DeadlineExceeded,
                format!("the shim {pid} of sandbox {id} was killed, but does not end"),
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
