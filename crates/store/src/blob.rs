//! Manifests and configurations: small files named by their digest.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use corten_base::Digest;
use corten_base::limits::IMAGE_CONFIG_BYTES_MAX;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, IoContext, Result};

/// The largest blob: a configuration. (Manifests are smaller.)
const BLOB_BYTES_MAX: usize = IMAGE_CONFIG_BYTES_MAX;

/// The blobs of a store.
pub(crate) struct Blobs {
    dir: PathBuf,
    ingest: PathBuf,
    known: Mutex<Known>,
    next: AtomicU64,
    /// Whether a blob may not be durable yet. Set at start, since an earlier
    /// daemon may have ended before its sync.
    unsynced: AtomicBool,
}

#[derive(Default)]
struct Known {
    sizes: HashMap<Digest, u64>,
    /// Put by this process, and not yet seen in use: their image is about to
    /// be recorded. What a failed pull leaves here is swept after a restart.
    fresh: HashSet<Digest>,
}

impl Blobs {
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let dir = root.join("blobs");
        let mut sizes = HashMap::new();
        let list = || dir.display().to_string();
        for entry in std::fs::read_dir(&dir).doing("list", list)? {
            let entry = entry.doing("list", list)?;
            let name = entry.file_name();
            let Some(digest) = name.to_str().and_then(parse_hex) else { continue };
            sizes.insert(digest, entry.metadata().doing("look at a blob of", list)?.len());
        }
        Ok(Self {
            dir,
            ingest: root.join("ingest"),
            known: Mutex::new(Known { sizes, fresh: HashSet::new() }),
            next: AtomicU64::new(0),
            unsynced: AtomicBool::new(true),
        })
    }

    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Digest> {
        if bytes.len() > BLOB_BYTES_MAX {
            return Err(Error::TooMuch {
                verb: "keep a manifest or configuration",
                what: "its size in bytes",
                max: BLOB_BYTES_MAX as u64,
            });
        }
        let digest = Digest::from_sha256(Sha256::digest(bytes).into());
        // One that is there but damaged is replaced.
        self.known().fresh.insert(digest);
        if self.read(&digest).is_ok() {
            return Ok(digest);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let temporary = self.ingest.join(format!("blob-{number}"));
        let path = self.path(&digest);
        let written = std::fs::write(&temporary, bytes)
            .doing("write", || temporary.display().to_string())
            .and_then(|()| {
                std::fs::rename(&temporary, &path).doing("rename to", || path.display().to_string())
            });
        if let Err(error) = written {
            // The error tells more than a failure to clean up after it would.
            let _ = std::fs::remove_file(&temporary);
            return Err(error);
        }
        self.known().sizes.insert(digest, bytes.len() as u64);
        self.unsynced.store(true, Ordering::SeqCst);
        Ok(digest)
    }

    pub(crate) fn read(&self, digest: &Digest) -> Result<Vec<u8>> {
        let path = self.path(digest);
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NotFound { what: "blob", id: digest.to_string() });
            }
            Err(error) => return Err(error).doing("open", || path.display().to_string()),
        };
        let mut bytes = Vec::new();
        file.take(BLOB_BYTES_MAX as u64 + 1)
            .read_to_end(&mut bytes)
            .doing("read", || path.display().to_string())?;
        if Digest::from_sha256(Sha256::digest(&bytes).into()) != *digest {
            let reason = "its content has another digest".to_owned();
            return Err(Error::Damaged { what: "blob", id: digest.to_string(), reason });
        }
        Ok(bytes)
    }

    /// Whether blobs were put since the last time, for the caller to sync.
    pub(crate) fn take_unsynced(&self) -> bool {
        self.unsynced.swap(false, Ordering::SeqCst)
    }

    /// The sync failed: the next one has to do it.
    pub(crate) fn mark_unsynced(&self) {
        self.unsynced.store(true, Ordering::SeqCst);
    }

    pub(crate) fn collect(&self, keep: &dyn Fn(&Digest) -> bool) -> Result<usize> {
        let mut known = self.known();
        let Known { sizes, fresh } = &mut *known;
        let mut gone = Vec::new();
        for digest in sizes.keys() {
            if keep(digest) {
                fresh.remove(digest);
            } else if !fresh.contains(digest) {
                gone.push(*digest);
            }
        }
        for digest in &gone {
            let path = self.path(digest);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).doing("delete", || path.display().to_string());
                }
                _ => sizes.remove(digest),
            };
        }
        Ok(gone.len())
    }

    /// Bytes and files.
    pub(crate) fn usage(&self) -> (u64, u64) {
        let known = self.known();
        (known.sizes.values().sum(), known.sizes.len() as u64)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }
}

/// A digest from its hexadecimal part.
pub(crate) fn parse_hex(hex: &str) -> Option<Digest> {
    format!("sha256:{hex}").parse().ok()
}
