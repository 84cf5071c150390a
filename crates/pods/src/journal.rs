//! Where records are written: at once into the volatile state directory, and
//! soon after, in batches, into the durable store.
//!
//! ```text
//! <state>/sandboxes/<id>/record                  the sandbox
//! <state>/sandboxes/<id>/{resolv.conf,hosts,hostname}
//! <state>/sandboxes/<id>/shim.sock               where its shim listens
//! <state>/sandboxes/<id>/exits                   exits, written by the shim
//! <state>/sandboxes/<id>/containers/<id>/record  a container
//! <state>/sandboxes/<id>/containers/<id>/spec.json
//! ```

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use corten_base::{ContainerId, SandboxId};
use corten_store::{Batch, Store};
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, Result};
use crate::record;
use crate::table::{Container, Sandbox};

/// Table of sandboxes in the durable store.
pub const SANDBOXES: &str = "sandboxes";
/// Table of containers in the durable store.
pub const CONTAINERS: &str = "containers";

/// What the task that commits is told.
enum Note {
    /// One change of the durable store.
    Change {
        table: &'static str,
        key: String,
        /// None deletes.
        value: Option<Vec<u8>>,
    },
    /// Somebody wants to know when all before is committed.
    Flush(oneshot::Sender<()>),
}

/// Writes records. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    state_dir: Arc<PathBuf>,
    notes: mpsc::UnboundedSender<Note>,
}

impl Journal {
    /// A journal in this state directory; starts the task that commits.
    pub fn open(state_dir: &Path, store: Arc<Store>) -> Result<Self> {
        let sandboxes = state_dir.join("sandboxes");
        make_dir(&sandboxes)?;
        let (notes, receiver) = mpsc::unbounded_channel();
        tokio::spawn(commit_all(receiver, store));
        Ok(Self { state_dir: Arc::new(state_dir.to_owned()), notes })
    }

    /// The directory of all sandboxes.
    pub fn sandboxes_dir(&self) -> PathBuf {
        self.state_dir.join("sandboxes")
    }

    /// The directory of a sandbox.
    pub fn sandbox_dir(&self, id: &SandboxId) -> PathBuf {
        self.sandboxes_dir().join(id.as_str())
    }

    /// The directory of a container.
    pub fn container_dir(&self, sandbox: &SandboxId, id: &ContainerId) -> PathBuf {
        self.sandbox_dir(sandbox).join("containers").join(id.as_str())
    }

    /// Makes a sandbox's directory, for its first record.
    pub fn make_sandbox_dir(&self, id: &SandboxId) -> Result<()> {
        make_dir(&self.sandbox_dir(id).join("containers"))
    }

    /// Makes a container's directory, for its first record.
    pub fn make_container_dir(&self, sandbox: &SandboxId, id: &ContainerId) -> Result<()> {
        make_dir(&self.container_dir(sandbox, id))
    }

    /// Writes a sandbox's record as it is now.
    pub fn save_sandbox(&self, sandbox: &Sandbox) -> Result<()> {
        let _turn = sandbox.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = record::encode(&*sandbox.record.borrow())?;
        record::write(&self.sandbox_dir(&sandbox.id).join("record"), &bytes)?;
        self.change(SANDBOXES, sandbox.id.as_str(), Some(bytes));
        Ok(())
    }

    /// Writes a container's record as it is now.
    pub fn save_container(&self, container: &Container) -> Result<()> {
        let _turn = container.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = record::encode(&*container.record.borrow())?;
        let dir = self.container_dir(&container.sandbox.id, &container.id);
        record::write(&dir.join("record"), &bytes)?;
        self.change(CONTAINERS, container.id.as_str(), Some(bytes));
        Ok(())
    }

    /// Forgets what only the durable store still knows.
    pub fn forget_durable(&self, table: &'static str, key: &str) {
        self.change(table, key, None);
    }

    /// Forgets a sandbox: its directory, then its durable record.
    pub fn forget_sandbox(&self, id: &SandboxId) -> Result<()> {
        remove_dir(&self.sandbox_dir(id))?;
        self.change(SANDBOXES, id.as_str(), None);
        Ok(())
    }

    /// Forgets a container: its directory, then its durable record.
    pub fn forget_container(&self, sandbox: &SandboxId, id: &ContainerId) -> Result<()> {
        remove_dir(&self.container_dir(sandbox, id))?;
        self.change(CONTAINERS, id.as_str(), None);
        Ok(())
    }

    fn change(&self, table: &'static str, key: &str, value: Option<Vec<u8>>) {
        // The task ends only with the process, and then nothing can be saved.
        let _ = self.notes.send(Note::Change { table, key: key.to_owned(), value });
    }

    /// Waits until everything that was written so far is committed.
    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        let _ = self.notes.send(Note::Flush(done));
        let _ = wait.await;
    }
}

/// How long changes are gathered before they are committed. A pod's life makes
/// about twenty; each commit syncs the disk twice, beside other pods' work.
const GATHER: Duration = Duration::from_millis(100);
/// Changes in one commit.
const BATCH_MAX: usize = 1024;

/// Commits what has gathered, as one batch each time: one fsync serves many
/// changes, and many pods.
async fn commit_all(mut notes: mpsc::UnboundedReceiver<Note>, store: Arc<Store>) {
    let mut gathered = Vec::new();
    while notes.recv_many(&mut gathered, BATCH_MAX).await > 0 {
        gather(&mut notes, &mut gathered).await;
        let mut batch = Batch::default();
        // Dropped after the commit, which is the answer.
        let mut waiting = Vec::new();
        for note in gathered.drain(..) {
            match note {
                Note::Change { table, key, value: Some(value) } => batch.put(table, key, value),
                Note::Change { table, key, value: None } => batch.delete(table, key),
                Note::Flush(done) => waiting.push(done),
            }
        }
        let store = store.clone();
        match tokio::task::spawn_blocking(move || store.commit(batch)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "unable to commit records; they are in the state directory only");
            }
            Err(error) => tracing::error!(%error, "the commit of records panicked"),
        }
    }
}

/// For root alone: an environment may hold secrets.
/// Takes what comes within the time for it, unless somebody waits.
async fn gather(notes: &mut mpsc::UnboundedReceiver<Note>, gathered: &mut Vec<Note>) {
    let end = tokio::time::Instant::now() + GATHER;
    while gathered.len() < BATCH_MAX
        && !gathered.iter().any(|note| matches!(note, Note::Flush(_)))
        && tokio::time::timeout_at(end, notes.recv_many(gathered, BATCH_MAX))
            .await
            .is_ok_and(|count| count > 0)
    {}
}

fn make_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| Error::internal(format!("unable to create {}: {error}", path.display())))
}

fn remove_dir(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::internal(format!("unable to remove {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}
