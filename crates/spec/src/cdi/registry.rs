//! The files of all vendors, and which of them counts for a device.

use std::collections::BTreeSet;

use super::document::{Document, Edits, Format};
use super::{DeviceName, is_kind};
use crate::error::{Error, Result};

/// What the vendors of a node have written.
#[derive(Debug, Default)]
pub struct Registry {
    files: Vec<File>,
    /// Files that nobody can use, and why.
    broken: Vec<String>,
}

#[derive(Debug)]
struct File {
    path: String,
    priority: usize,
    document: Document,
}

impl Registry {
    /// Adds a file. Of two that describe the same device, the one with the
    /// higher priority counts; with the same priority neither does. What cannot
    /// be read spoils only what nobody else describes.
    pub fn add(
        &mut self,
        path: &str,
        priority: usize,
        content: std::result::Result<&[u8], String>,
    ) {
        let Some(format) = Format::of(path) else { return };
        match content.and_then(|bytes| Document::parse(format, bytes)) {
            Ok(document) => self.files.push(File { path: path.to_owned(), priority, document }),
            Err(reason) => self.broken.push(format!("{path} ({reason})")),
        }
    }

    /// The edits that these devices ask for, in their order; those of a whole
    /// file come once, before those of its first device.
    pub(super) fn edits(&self, names: &[DeviceName]) -> Result<Vec<&Edits>> {
        let mut edits = Vec::new();
        let mut whole = BTreeSet::new();
        for name in names {
            let file = self.file_of(name)?;
            let device = file.document.devices.iter().find(|device| device.name == name.device);
            if whole.insert(&file.path) {
                edits.push(&file.document.container_edits);
            }
            edits.extend(device.map(|device| &device.container_edits));
        }
        Ok(edits)
    }

    fn file_of(&self, name: &DeviceName) -> Result<&File> {
        debug_assert!(is_kind(&name.kind));
        let describes = |file: &&File| {
            file.document.kind == name.kind
                && file.document.devices.iter().any(|device| device.name == name.device)
        };
        let fitting: Vec<&File> = self.files.iter().filter(describes).collect();
        let most = fitting.iter().map(|file| file.priority).max();
        let mut best = fitting.iter().filter(|file| Some(file.priority) == most);
        match (best.next(), best.next()) {
            (Some(only), None) => Ok(only),
            (Some(one), Some(other)) => Err(Error::Device {
                name: name.to_string(),
                reason: format!("both {} and {} describe it; remove one", one.path, other.path),
            }),
            (None, _) => Err(Error::Device { name: name.to_string(), reason: self.unknown() }),
        }
    }

    fn unknown(&self) -> String {
        let mut reason = "no CDI file of this node describes it".to_owned();
        if !self.broken.is_empty() {
            reason += &format!("; these could not be read: {}", self.broken.join(", "));
        }
        reason
    }
}
