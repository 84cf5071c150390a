//! An archive on the disk, read in any order.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use corten_base::limits::{
    IMAGE_ARCHIVE_BYTES_MAX, IMAGE_ARCHIVE_ENTRIES_MAX, IMAGE_ARCHIVE_LINKS_MAX,
};
use corten_store::{Store, TarContent, members};

use crate::error::{PullError, PullErrorKind};
use crate::pipe::{inflate, source_failed};

/// An archive, inflated, in a file without a name.
pub(super) struct Spool {
    file: File,
    members: HashMap<Vec<u8>, TarContent>,
}

impl Spool {
    /// Takes in a whole archive: plain, or compressed by gzip or zstd.
    pub(super) fn fill(store: &Store, reader: impl Read) -> Result<Self, PullError> {
        let file = store.scratch_file()?;
        let mut tee = Tee { reader: inflate(reader).map_err(source_failed)?, file, failed: None };
        let found = members(&mut tee, IMAGE_ARCHIVE_ENTRIES_MAX, IMAGE_ARCHIVE_BYTES_MAX);
        if let Some(error) = tee.failed {
            return Err(not_spooled(&error));
        }
        let found = found.map_err(|error| match error {
            corten_store::Error::Source(error) => source_failed(error),
            corten_store::Error::BadArchive { reason } => PullError::invalid(reason),
            other => other.into(),
        })?;
        let members = found.into_iter().map(|member| (member.path, member.content)).collect();
        Ok(Self { file: tee.file, members })
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.members.contains_key(path.as_bytes())
    }

    /// A file of the archive, through the links that lead to it.
    pub(super) fn section(&self, path: &str) -> Result<Section<'_>, PullError> {
        let mut at = path.as_bytes().to_vec();
        for _ in 0..=IMAGE_ARCHIVE_LINKS_MAX {
            match self.members.get(&at) {
                None => {
                    return Err(PullError::invalid(format!("the archive lacks {path:?}")));
                }
                Some(TarContent::Data { offset, length }) => {
                    let (offset, end) = (*offset, *offset + *length);
                    return Ok(Section { file: &self.file, offset, end });
                }
                Some(TarContent::HardLink(target)) => at = target.clone(),
                Some(TarContent::Symlink(target)) => at = beside(&at, target),
            }
        }
        Err(PullError::invalid(format!("too many links lead to {path:?} in the archive")))
    }

    /// A small file.
    pub(super) fn read(&self, path: &str, max: usize) -> Result<Vec<u8>, PullError> {
        let section = self.section(path)?;
        if section.length() > max as u64 {
            return Err(PullError::invalid(format!(
                "{path:?} in the archive is larger than {max} bytes"
            )));
        }
        let mut bytes = Vec::new();
        let mut section = section;
        section.read_to_end(&mut bytes).map_err(|error| {
            PullError::new(PullErrorKind::Internal, format!("unable to read {path:?}: {error}"))
        })?;
        Ok(bytes)
    }
}

/// Where a link in `from` leads: never out of the archive, which has no outside.
fn beside(from: &[u8], target: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = from.split(|byte| *byte == b'/').collect();
    parts.pop();
    if target.starts_with(b"/") {
        parts.clear();
    }
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

/// A part of the spooled archive.
pub(super) struct Section<'a> {
    file: &'a File,
    offset: u64,
    end: u64,
}

impl Section<'_> {
    /// Bytes that are left.
    pub(super) fn length(&self) -> u64 {
        self.end - self.offset
    }
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let here = usize::try_from(self.length()).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.file.read_at(&mut buffer[..here], self.offset)?;
        if length == 0 && here > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += length as u64;
        Ok(length)
    }
}

/// Keeps what passes.
struct Tee<R> {
    reader: R,
    file: File,
    /// Why the file could not be written.
    failed: Option<io::Error>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        if let Err(error) = self.file.write_all(&buffer[..length]) {
            self.failed = Some(error);
            return Err(io::ErrorKind::Other.into());
        }
        Ok(length)
    }
}

fn not_spooled(error: &io::Error) -> PullError {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => PullErrorKind::DiskFull,
        _ => PullErrorKind::Internal,
    };
    PullError::new(kind, format!("unable to write the archive to the store's disk: {error}"))
}
