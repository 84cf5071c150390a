//! Durable records: small values by table and key, in `redb`.
//!
//! The seam is two calls, so that a journal can replace the database. Values
//! begin with a magic and a version of their owner's; the store does not look
//! into them. A commit has returned only when a power cut cannot take it away,
//! and commits that arrive together share one fsync: one thread writes, and
//! takes all that is waiting at a time.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use corten_base::limits::{RECORD_BYTES_MAX, RECORD_KEY_BYTES_MAX};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::error::{Error, Result};

/// Bytes of pages that the database keeps in memory.
const CACHE_BYTES: usize = 1 << 20;
/// Commits that may share one fsync.
const GROUP_MAX: usize = 256;

/// Changes that become durable together or not at all.
#[derive(Debug, Default, Clone)]
pub struct Batch {
    changes: Vec<Change>,
}

#[derive(Debug, Clone)]
struct Change {
    table: String,
    key: String,
    /// None deletes.
    value: Option<Vec<u8>>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a value, in place of an older one.
    pub fn put(&mut self, table: &str, key: impl Into<String>, value: Vec<u8>) {
        self.changes.push(Change { table: table.into(), key: key.into(), value: Some(value) });
    }

    /// Deletes a value; one that is not there is deleted already.
    pub fn delete(&mut self, table: &str, key: impl Into<String>) {
        self.changes.push(Change { table: table.into(), key: key.into(), value: None });
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// A commit under way, and who waits for it.
struct Request {
    batch: Batch,
    done: std::sync::mpsc::SyncSender<std::result::Result<(), String>>,
}

/// The records of a store.
pub(crate) struct Records {
    database: Arc<Mutex<Open>>,
    /// None once closed. A lock, because a sender is cloned for each commit.
    requests: Mutex<Option<Sender<Request>>>,
    writer: Option<std::thread::JoinHandle<()>>,
    /// What was wrong with the database that was found, and where it is now.
    pub(crate) damage: Option<String>,
}

impl Records {
    /// Opens the database, or makes an empty one. One that is damaged is moved
    /// aside: everything in it can be fetched or made again, and a node that
    /// does not start helps nobody. It is never repaired by guessing.
    ///
    /// `make_room` is called when the disk is full, and returns when there may
    /// be more space: a removal needs some before it gives any back.
    pub(crate) fn open(path: &Path, make_room: impl Fn() + Send + 'static) -> Result<Self> {
        let (database, damage) = match open_database(path) {
            Ok(database) => (database, None),
            Err(error) if is_damage(&error) => {
                let aside = move_aside(path)?;
                let damage = format!(
                    "the records of the store were damaged ({error}); they are now in {}, and the \
                     images will be pulled again",
                    aside.display()
                );
                (open_database(path).map_err(|e| failed("open", e))?, Some(damage))
            }
            Err(error) => return Err(failed("open", error)),
        };
        let database = Open { path: path.to_owned(), database: Some(database) };
        let database = Arc::new(Mutex::new(database));
        let (requests, receiver) = channel();
        let writer = std::thread::Builder::new()
            .name("records".into())
            .spawn({
                let database = database.clone();
                move || write_all(&database, &receiver, make_room)
            })
            .map_err(|error| failed("start the writer of", error))?;
        let requests = Mutex::new(Some(requests));
        Ok(Self { database, requests, writer: Some(writer), damage })
    }

    /// Every record of a table, by key.
    pub(crate) fn load_all(&self, table: &str) -> Result<Vec<(String, Vec<u8>)>> {
        let fail = |error: redb::Error| failed("read", error);
        let mut open = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let read = open.get().and_then(|database| Ok(database.begin_read()?)).map_err(fail)?;
        let definition: TableDefinition<&str, &[u8]> = TableDefinition::new(table);
        let table = match read.open_table(definition) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(fail(error.into())),
        };
        let mut all = Vec::new();
        for record in table.iter().map_err(|e| fail(e.into()))? {
            let (key, value) = record.map_err(|e| fail(e.into()))?;
            all.push((key.value().to_owned(), value.value().to_vec()));
        }
        Ok(all)
    }

    /// Returns when the batch is durable.
    pub(crate) fn commit(&self, batch: Batch) -> Result<()> {
        check(&batch)?;
        if batch.is_empty() {
            return Ok(());
        }
        let (done, answer) = sync_channel(1);
        let sender = self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        sender
            .and_then(|sender| sender.send(Request { batch, done }).ok())
            .ok_or_else(|| failed("write", "the writer has ended"))?;
        match answer.recv() {
            Ok(result) => result.map_err(|reason| failed("write", reason)),
            Err(_) => Err(failed("write", "the writer has ended")),
        }
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = self.writer.take() {
            // It ends when the channel is closed; a panic there was its last word.
            let _ = writer.join();
        }
    }
}

fn failed(verb: &'static str, reason: impl ToString) -> Error {
    Error::Records { verb, reason: reason.to_string() }
}

fn check(batch: &Batch) -> Result<()> {
    let verb = "write a record";
    for change in &batch.changes {
        if change.key.len() > RECORD_KEY_BYTES_MAX {
            return Err(Error::TooMuch {
                verb,
                what: "a key's length in bytes",
                max: RECORD_KEY_BYTES_MAX as u64,
            });
        }
        if change.value.as_ref().is_some_and(|value| value.len() > RECORD_BYTES_MAX) {
            return Err(Error::TooMuch {
                verb,
                what: "its length in bytes",
                max: RECORD_BYTES_MAX as u64,
            });
        }
    }
    Ok(())
}

fn open_database(path: &Path) -> std::result::Result<Database, redb::DatabaseError> {
    Database::builder().set_cache_size(CACHE_BYTES).create(path)
}

/// Damage of the file, as opposed to trouble with reaching it.
fn is_damage(error: &redb::DatabaseError) -> bool {
    match error {
        redb::DatabaseError::Storage(redb::StorageError::Corrupted(_))
        | redb::DatabaseError::RepairAborted => true,
        redb::DatabaseError::Storage(redb::StorageError::Io(error)) => matches!(
            error.kind(),
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof
        ),
        _ => false,
    }
}

/// Renames to the first free name beside it.
fn move_aside(path: &Path) -> Result<PathBuf> {
    let free = (1..10_000)
        .map(|n| path.with_extension(format!("damaged-{n}")))
        .find(|candidate| !candidate.exists())
        .ok_or_else(|| failed("move aside", "too many damaged databases are kept"))?;
    std::fs::rename(path, &free).map_err(|error| failed("move aside", error))?;
    Ok(free)
}

/// The database, which is opened anew after the disk failed it: until then it
/// takes nothing, also when the disk has space again.
struct Open {
    path: PathBuf,
    database: Option<Database>,
}

impl Open {
    fn get(&mut self) -> std::result::Result<&Database, redb::Error> {
        let database = match self.database.take() {
            Some(database) => database,
            None => open_database(&self.path)?,
        };
        Ok(self.database.insert(database))
    }

    fn write(&mut self, group: &[Request]) -> std::result::Result<(), redb::Error> {
        let outcome = self.get().and_then(|database| write_group(database, group));
        if let Err(redb::Error::Io(_) | redb::Error::PreviousIo) = &outcome {
            self.database = None;
        }
        outcome
    }
}

/// Whether the disk has no space left.
fn is_full(error: &redb::Error) -> bool {
    matches!(error, redb::Error::Io(error) if error.kind() == std::io::ErrorKind::StorageFull)
}

/// The writer: takes what is waiting and makes it durable with one commit.
fn write_all(open: &Mutex<Open>, requests: &Receiver<Request>, make_room: impl Fn()) {
    let write =
        |group: &[Request]| open.lock().unwrap_or_else(PoisonError::into_inner).write(group);
    while let Ok(first) = requests.recv() {
        let mut group = vec![first];
        while group.len() < GROUP_MAX {
            let Ok(next) = requests.try_recv() else { break };
            group.push(next);
        }
        let mut result = write(&group);
        if result.as_ref().is_err_and(is_full) {
            make_room();
            result = write(&group);
        }
        let result = result.map_err(|error| error.to_string());
        for request in group {
            // A caller that has gone does not want to know.
            let _ = request.done.send(result.clone());
        }
    }
}

fn write_group(database: &Database, group: &[Request]) -> std::result::Result<(), redb::Error> {
    let mut write = database.begin_write()?;
    // An unclean stop must not cost a walk of the whole file at the next start.
    write.set_quick_repair(true);
    for change in group.iter().flat_map(|request| &request.batch.changes) {
        let definition: TableDefinition<&str, &[u8]> = TableDefinition::new(&change.table);
        let mut table = write.open_table(definition)?;
        match &change.value {
            Some(value) => {
                table.insert(change.key.as_str(), value.as_slice())?;
            }
            None => {
                table.remove(change.key.as_str())?;
            }
        }
    }
    write.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Result<Records> {
        Records::open(path, || ())
    }

    #[test]
    fn what_is_committed_is_loaded_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records.redb");
        let records = open(&path).unwrap();
        assert!(records.load_all("images").unwrap().is_empty());
        let mut batch = Batch::new();
        batch.put("images", "a", b"one".to_vec());
        batch.put("images", "b", b"two".to_vec());
        batch.put("sandboxes", "a", b"other".to_vec());
        records.commit(batch).unwrap();
        let mut batch = Batch::new();
        batch.delete("images", "a");
        batch.delete("images", "not there");
        records.commit(batch).unwrap();
        drop(records);
        let records = open(&path).unwrap();
        assert_eq!(records.load_all("images").unwrap(), [("b".into(), b"two".to_vec())]);
        assert_eq!(records.load_all("sandboxes").unwrap(), [("a".into(), b"other".to_vec())]);
        assert!(records.damage.is_none());
    }

    #[test]
    fn commits_from_many_threads_all_arrive() {
        let dir = tempfile::tempdir().unwrap();
        let records = open(&dir.path().join("r")).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let records = &records;
                scope.spawn(move || {
                    for n in 0..20 {
                        let mut batch = Batch::new();
                        batch.put("t", format!("{thread}-{n}"), vec![1, 2, 3]);
                        records.commit(batch).unwrap();
                    }
                });
            }
        });
        assert_eq!(records.load_all("t").unwrap().len(), 160);
    }

    #[test]
    fn a_damaged_database_is_moved_aside_and_reported() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records.redb");
        std::fs::write(&path, vec![0x5a; 64 << 10]).unwrap();
        let records = open(&path).unwrap();
        assert!(records.load_all("images").unwrap().is_empty());
        let damage = records.damage.as_ref().unwrap();
        assert!(damage.contains("damaged-1"), "{damage}");
        assert!(path.with_extension("damaged-1").exists());
    }

    #[test]
    fn too_large_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let records = open(&dir.path().join("r")).unwrap();
        let mut batch = Batch::new();
        batch.put("t", "k", vec![0; RECORD_BYTES_MAX + 1]);
        assert!(records.commit(batch).unwrap_err().to_string().contains("limited"));
    }
}
