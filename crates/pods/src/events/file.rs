//! Events in the state directory, for the next daemon.
//!
//! ```text
//! CRTNEVT1  first bytes
//! u64       number of the first event that nobody has heard
//! u64       number of the first event that there could be in the file
//! (u32 length, JSON) ...
//! ```
//!
//! What follows the last whole record was being written when the daemon was
//! killed, and counts as not told. A file that cannot be written is reported
//! once; events then live in memory alone.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use corten_base::limits::EVENTS_FILE_BYTES_MAX;
use corten_base::{ContainerId, Namespace, SandboxId};
use serde::{Deserialize, Serialize};

use super::{EventKind, PodEvent};

const MAGIC: &[u8; 8] = b"CRTNEVT1";
/// Where the number of the first unheard event is.
const HEARD_OFFSET: u64 = 8;
const HEADER_BYTES: usize = 24;

/// An event as it is written down: who it was about, not how that one was.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    pub sequence: u64,
    pub at_ns: i64,
    pub kind: EventKind,
    pub container: Option<ContainerId>,
    pub identity: Identity,
}

/// Who a pod is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub sandbox: SandboxId,
    pub namespace: Namespace,
    pub name: String,
    pub uid: String,
    pub pod_namespace: String,
    pub attempt: u32,
    pub solo: bool,
    pub created_at_ns: i64,
}

/// The file.
pub(super) struct EventFile {
    path: PathBuf,
    file: Option<File>,
    bytes: usize,
    heard: u64,
    next: u64,
}

impl EventFile {
    /// Opens or makes the file: it and the events in it.
    pub fn open(path: &Path, first: u64) -> (Self, Vec<Kept>) {
        let mut bytes = Vec::new();
        let read = File::open(path)
            .and_then(|file| file.take(EVENTS_FILE_BYTES_MAX as u64).read_to_end(&mut bytes));
        let found = match read {
            Ok(_) => parse(&bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "unable to read the events of an earlier daemon");
                None
            }
        };
        let mut this =
            Self { path: path.to_owned(), file: None, bytes: 0, heard: first, next: first };
        let Some(Parsed { heard, start, kept, length }) = found else {
            this.rewrite(first, Vec::new());
            return (this, Vec::new());
        };
        this.heard = heard;
        this.next = kept.last().map_or(start, |event| event.sequence + 1);
        this.bytes = length;
        // Goes on where the whole records end.
        let opened = OpenOptions::new().write(true).open(path).and_then(|mut file| {
            file.set_len(length as u64)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        });
        match opened {
            Ok(file) => this.file = Some(file),
            Err(error) => this.check(Err(error)),
        }
        (this, kept)
    }

    /// The number of the next event.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The number of the first event that nobody has heard.
    pub fn heard(&self) -> u64 {
        self.heard
    }

    /// Everything before this number was heard by somebody.
    pub fn mark_heard(&mut self, next: u64) {
        if next <= self.heard {
            return;
        }
        self.heard = next;
        let written =
            self.file.as_ref().map(|file| file.write_all_at(&next.to_le_bytes(), HEARD_OFFSET));
        self.check(written.transpose().map(drop));
    }

    /// Writes an event down. When the file is full it is written anew, with
    /// the newest of `kept`, which are all there are.
    pub fn append<'a>(
        &mut self,
        event: &PodEvent,
        kept: impl DoubleEndedIterator<Item = &'a Arc<PodEvent>>,
    ) {
        self.next = event.sequence + 1;
        let Some(record) = encode(&Kept::of(event)) else { return };
        if self.bytes + record.len() <= EVENTS_FILE_BYTES_MAX {
            self.bytes += record.len();
            let written = self.file.as_mut().map(|file| file.write_all(&record));
            return self.check(written.transpose().map(drop));
        }
        let mut newest: Vec<Vec<u8>> = Vec::new();
        let mut bytes = 0;
        for event in kept.rev() {
            let Some(record) = encode(&Kept::of(event)) else { break };
            bytes += record.len();
            if bytes > EVENTS_FILE_BYTES_MAX / 2 {
                break;
            }
            newest.push(record);
        }
        newest.reverse();
        self.rewrite(self.next - newest.len() as u64, newest);
    }

    /// A new file with these records, in the place of the old one.
    fn rewrite(&mut self, start: u64, records: Vec<Vec<u8>>) {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.heard.to_le_bytes());
        bytes.extend_from_slice(&start.to_le_bytes());
        bytes.extend(records.into_iter().flatten());
        self.bytes = bytes.len();
        let temporary = self.path.with_extension("new");
        let written = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| {
                file.write_all(&bytes)?;
                std::fs::rename(&temporary, &self.path)?;
                Ok(file)
            });
        match written {
            Ok(file) => self.file = Some(file),
            Err(error) => self.check(Err(error)),
        }
    }

    fn check(&mut self, written: std::io::Result<()>) {
        if let Err(error) = written {
            tracing::error!(path = %self.path.display(), %error, "unable to write an event down; until the daemon is restarted, events are kept in memory only");
            self.file = None;
            // A file that lacks events would give their numbers away again.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Kept {
    fn of(event: &PodEvent) -> Self {
        let sandbox = &event.sandbox;
        Self {
            sequence: event.sequence,
            at_ns: event.at_ns,
            kind: event.kind,
            container: event.container.clone(),
            identity: Identity {
                sandbox: sandbox.id.clone(),
                namespace: sandbox.namespace.clone(),
                name: sandbox.config.name.clone(),
                uid: sandbox.config.uid.clone(),
                pod_namespace: sandbox.config.namespace.clone(),
                attempt: sandbox.config.attempt,
                solo: sandbox.config.solo,
                created_at_ns: sandbox.created_at_ns,
            },
        }
    }
}

fn encode(event: &Kept) -> Option<Vec<u8>> {
    let json = serde_json::to_vec(event).ok()?;
    let length = u32::try_from(json.len()).ok()?;
    Some([&length.to_le_bytes()[..], &json].concat())
}

/// What a file says.
struct Parsed {
    heard: u64,
    start: u64,
    /// The whole records, and where they end.
    kept: Vec<Kept>,
    length: usize,
}

fn parse(bytes: &[u8]) -> Option<Parsed> {
    let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    if bytes.get(..8)? != MAGIC {
        return None;
    }
    let (heard, start) = (number(8)?, number(16)?);
    let mut rest = bytes.get(HEADER_BYTES..)?;
    let mut kept: Vec<Kept> = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let Some(json) = after.get(..u32::from_le_bytes(*length) as usize) else { break };
        let Ok(event) = serde_json::from_slice(json) else { break };
        kept.push(event);
        rest = &after[json.len()..];
    }
    Some(Parsed { heard, start, kept, length: bytes.len() - rest.len() })
}
