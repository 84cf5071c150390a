//! One daemon per store.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, IoContext, Result};

/// How long another holder of the lock is waited for.
const PATIENCE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(5);

/// Bytes of the lock file that are read to name its holder.
const HOLDER_BYTES_MAX: u64 = 200;

/// Takes the lock of a store, and writes down who has it. It ends with the
/// descriptor, so with the process: a crash leaves nothing to clean.
pub(crate) fn take(root: &Path) -> Result<OwnedFd> {
    let path = root.join("lock");
    let mut file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .doing("open", || path.display().to_string())?;
    match lock(&file) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            // Only for the message: a holder that has written nothing yet is «another process».
            let _ = file.take(HOLDER_BYTES_MAX).read_to_string(&mut holder);
            let holder = match holder.trim() {
                "" => "another process".to_owned(),
                name => name.to_owned(),
            };
            return Err(Error::InUse { root: root.to_owned(), holder });
        }
        Err(errno) => return Err(errno).doing("lock", || path.display().to_string()),
    }
    let name = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
    let holder = format!("process {} ({})\n", std::process::id(), name.trim());
    file.set_len(0)
        .and_then(|()| file.write_all(holder.as_bytes()))
        .doing("write", || path.display().to_string())?;
    Ok(file.into())
}

/// Tries for a while: a child that a daemon was about to launch when it was
/// killed has a copy of the descriptor until it comes to close it.
fn lock(file: &std::fs::File) -> std::result::Result<(), Errno> {
    let end = Instant::now() + PATIENCE;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < end => std::thread::sleep(PAUSE),
            outcome => return outcome,
        }
    }
}
