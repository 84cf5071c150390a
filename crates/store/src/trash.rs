//! Deletion in the background.
//!
//! What is to go is renamed into `trash`, which is quick, and deleted by one
//! thread. A crash leaves it there, and the next start takes it up again.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use corten_kernel::rooted;

use crate::error::{IoContext, Result};

/// How long the worker rests before it deletes again: what was thrown away is
/// mostly a container's, and its pod goes next. Both want the processor.
const REST: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Trash {
    dir: PathBuf,
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// The store is being closed: leave the rest to the next start.
    stop: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    names: VecDeque<OsString>,
    /// The worker is deleting one.
    busy: bool,
    /// Somebody waits for the end.
    hurry: bool,
    next: u64,
}

impl Trash {
    /// Takes up what an earlier daemon left.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let dir = root.join("trash");
        let mut queue = Queue::default();
        let list = || dir.display().to_string();
        for entry in std::fs::read_dir(&dir).doing("list", list)? {
            let name = entry.doing("list", list)?.file_name();
            let number = name.to_str().and_then(|name| name.parse::<u64>().ok());
            queue.next = queue.next.max(number.map_or(0, |number| number.saturating_add(1)));
            queue.names.push_back(name);
        }
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let worker = std::thread::Builder::new()
            .name("trash".into())
            .spawn({
                let (shared, dir) = (shared.clone(), dir.clone());
                move || delete_all(&shared, &dir)
            })
            .doing("start", || "the thread that deletes")?;
        Ok(Self { dir, shared, worker: Some(worker) })
    }

    /// Deletes a file or tree in the background; it has left its place when
    /// this returns. What is not there is gone already.
    pub(crate) fn discard(&self, path: &Path) -> Result<()> {
        let name = {
            let mut queue = self.shared.queue();
            queue.next += 1;
            OsString::from((queue.next - 1).to_string())
        };
        match std::fs::rename(path, self.dir.join(&name)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            result => result.doing("delete", || path.display().to_string())?,
        }
        self.shared.queue().names.push_back(name);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Deletes everything in a directory.
    pub(crate) fn discard_all_in(&self, dir: &Path) -> Result<()> {
        let list = || dir.display().to_string();
        for entry in std::fs::read_dir(dir).doing("list", list)? {
            self.discard(&entry.doing("list", list)?.path())?;
        }
        Ok(())
    }

    pub(crate) fn wait_until_empty(&self) {
        let mut queue = self.shared.queue();
        queue.hurry = true;
        self.shared.changed.notify_all();
        while queue.busy || !queue.names.is_empty() {
            queue = self.shared.wait(queue);
        }
        queue.hurry = false;
    }
}

impl Drop for Trash {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Under the lock, so that the worker cannot miss it between look and wait.
        drop(self.shared.queue());
        self.shared.changed.notify_all();
        if let Some(worker) = self.worker.take() {
            // A panic there was reported by the panic hook.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner)
    }

    /// The next name, or None when the store is closed.
    fn next(&self) -> Option<OsString> {
        let mut queue = self.queue();
        queue.busy = false;
        self.changed.notify_all();
        let mut rested = !queue.names.is_empty();
        loop {
            if self.stop.load(Ordering::SeqCst) {
                return None;
            }
            if !queue.names.is_empty() && !rested && !queue.hurry {
                rested = true;
                let rest = |queue: &mut Queue| !queue.hurry && !self.stop.load(Ordering::SeqCst);
                let waited = self.changed.wait_timeout_while(queue, REST, rest);
                queue = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            if let Some(name) = queue.names.pop_front() {
                queue.busy = true;
                return Some(name);
            }
            queue = self.wait(queue);
        }
    }
}

fn delete_all(shared: &Shared, dir: &Path) {
    while let Some(name) = shared.next() {
        // What cannot be deleted now (a mount still in it) stays in the trash,
        // and the next start tries again; nobody waits for an answer.
        let _ = rooted::remove_tree(dir, &name, &shared.stop);
    }
}
