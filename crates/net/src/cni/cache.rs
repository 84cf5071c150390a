//! What was asked of plugins, on disk: written before ADD, so that DEL can be
//! run after a crash at any moment, and with the configuration of that time.

use std::path::{Path, PathBuf};

use corten_base::{SandboxId, limits};

use super::config::read_bounded;
use crate::error::FileContext;
use crate::{CniRecord, Result};

/// The records of one node.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    directory: PathBuf,
}

impl Cache {
    pub fn new(directory: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&directory).file("make", &directory)?;
        Ok(Self { directory })
    }

    /// The record of a sandbox. One that cannot be read is none, with a
    /// warning: it must not keep the pod from ending.
    pub fn load(&self, sandbox: &SandboxId) -> Option<CniRecord> {
        let path = self.path(sandbox);
        let bytes = match read_bounded(&path, 2 * limits::CNI_CONFIG_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "unreadable CNI record");
                return None;
            }
        };
        serde_json::from_slice(&bytes)
            .inspect_err(|error| {
                tracing::warn!(path = %path.display(), %error, "broken CNI record");
            })
            .ok()
    }

    /// Writes the record of a sandbox, whole or not at all.
    pub fn store(&self, sandbox: &SandboxId, record: &CniRecord) -> Result<()> {
        let path = self.path(sandbox);
        let fresh = path.with_extension("new");
        let bytes = serde_json::to_vec(record).map_err(std::io::Error::other);
        bytes
            .and_then(|bytes| std::fs::write(&fresh, bytes))
            .and_then(|()| std::fs::rename(&fresh, &path))
            .file("write the CNI record", path)
    }

    /// Removes the record of a sandbox.
    pub fn remove(&self, sandbox: &SandboxId) -> Result<()> {
        let path = self.path(sandbox);
        remove_if_there(&path.with_extension("new"))?;
        remove_if_there(&path)
    }

    /// The sandboxes that have a record.
    pub fn sandboxes(&self) -> Result<Vec<SandboxId>> {
        let entries = std::fs::read_dir(&self.directory).file("list", &self.directory)?;
        let sandbox = |entry: std::fs::DirEntry| {
            entry.file_name().to_str()?.strip_suffix(".json")?.parse().ok()
        };
        Ok(entries.filter_map(|entry| sandbox(entry.ok()?)).collect())
    }

    fn path(&self, sandbox: &SandboxId) -> PathBuf {
        self.directory.join(format!("{sandbox}.json"))
    }
}

fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.file("remove", path),
    }
}
