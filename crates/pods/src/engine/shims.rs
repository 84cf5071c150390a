//! What is done about a shim's process from outside.

use std::path::Path;
use std::time::{Duration, Instant};

use corten_base::SandboxId;
use corten_kernel::{Errno, process};

use crate::error::{Error, Kind, Result};

/// Waits for a shim to end; one that takes longer than `timeout` is killed.
/// The pid is only believed if its command line names the sandbox: it may be
/// somebody else's by now.
pub fn end(pid: i32, id: &SandboxId, timeout: Duration) -> Result<()> {
    if !is_shim_of(pid, id) {
        return Ok(());
    }
    let pidfd = match process::pidfd_open(pid) {
        Ok(pidfd) => pidfd,
        Err(error) if error.errno == Errno::SRCH => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let deadline = Instant::now() + timeout;
    if process::wait_ended(&pidfd, deadline)? {
        process::reap(&pidfd);
        return Ok(());
    }
    process::pidfd_send_signal(&pidfd, 9)?;
    if process::wait_ended(&pidfd, Instant::now() + timeout)? {
        process::reap(&pidfd);
        return Ok(());
    }
    Err(Error::new(
        Kind::DeadlineExceeded,
        format!("the shim {pid} of sandbox {id} was killed, but does not end"),
    ))
}

/// Whether `pid` is the shim of this sandbox.
pub fn is_shim_of(pid: i32, id: &SandboxId) -> bool {
    let line = std::fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline"));
    line.is_ok_and(|line| line.split(|byte| *byte == 0).nth(1) == Some(id.as_str().as_bytes()))
}
