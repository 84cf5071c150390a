//! One daemon per store.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, IoContext, Result};

/// How long another holder of the lock is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(5);

/// Bytes of the lock file that are read to name its holder.
const HOLDER_BYTES_MAX: u64 = 200;

/// The lock of a store, held. It ends with the descriptor, so with the process:
/// a crash leaves nothing to clean.
#[derive(Debug)]
pub struct Claim {
    pub(crate) root: PathBuf,
    file: std::fs::File,
}

/// Takes the lock of a store.
pub(crate) fn take(root: &Path) -> Result<Claim> {
    let path = root.join("lock");
    let file = std::fs::OpenOptions::new()
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
    Ok(Claim { root: root.to_owned(), file })
}

impl Claim {
    /// Writes down who has it. A disk that is busy takes its time.
    pub(crate) fn sign(&mut self) -> Result<()> {
        let name = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
        let holder = format!("process {} ({})\n", std::process::id(), name.trim());
        self.file
            .set_len(0)
            .and_then(|()| self.file.write_all(holder.as_bytes()))
            .doing("write", || self.root.join("lock").display().to_string())
    }
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
