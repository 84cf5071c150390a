//! Knowing when CNI configuration changes, without looking again and again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::net::unix::pipe;

/// How long a directory must be quiet before it is read again: files are
/// written in pieces, and half of one must not make another one win.
const QUIET: Duration = Duration::from_millis(100);
/// However busy it is, it is read again after so many quiet waits.
const WAITS_MAX: usize = 20;

/// Watches directories that need not exist yet.
#[derive(Debug)]
pub(super) struct Watch {
    directories: Vec<PathBuf>,
    /// Not a pipe, but read like one: tokio has no safe type for other files.
    queue: pipe::Receiver,
}

impl Watch {
    /// Begins to watch.
    pub fn new(directories: Vec<PathBuf>) -> std::io::Result<Self> {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let watch = Self { directories, queue: pipe::Receiver::from_owned_fd_unchecked(queue)? };
        watch.arm();
        Ok(watch)
    }

    /// Waits until something changed and it is quiet again.
    pub async fn changed(&self) -> std::io::Result<()> {
        self.event().await?;
        for _ in 0..WAITS_MAX {
            match tokio::time::timeout(QUIET, self.event()).await {
                Ok(event) => event?,
                Err(_) => break,
            }
        }
        // What appeared may have to be watched, and may be full already: the
        // caller reads after this.
        self.arm();
        Ok(())
    }

    async fn event(&self) -> std::io::Result<()> {
        self.queue.readable().await?;
        // What the events are does not matter.
        let mut events = [0; 4096];
        loop {
            match self.queue.try_read(&mut events) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Watches each directory, or where it is missing the nearest one above.
    /// Watching one twice changes nothing.
    fn arm(&self) {
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        for directory in &self.directories {
            let mut place: Option<&Path> = Some(directory);
            while let Some(path) = place {
                match inotify::add_watch(&self.queue, path, flags) {
                    Ok(_) => break,
                    Err(Errno::NOENT | Errno::NOTDIR) => place = path.parent(),
                    Err(errno) => {
                        let path = path.display();
                        tracing::warn!(%path, error = %errno, "unable to watch for changes");
                        break;
                    }
                }
            }
        }
    }
}
