//! What an archive holds and where: for archives that hold images.

use std::io::Read;

use super::entry::{Entries, Kind};
use super::stream::Stream;
use super::tree::clean;
use crate::error::{Error, Result};

/// A file of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarMember {
    /// Relative to the root, without `.` and empty parts.
    pub path: Vec<u8>,
    /// What is there.
    pub content: TarContent,
}

/// What a member of an archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TarContent {
    /// A file with these bytes of the archive.
    Data {
        /// From the first byte of the archive.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// A symbolic link, as it is written.
    Symlink(Vec<u8>),
    /// The same as the file with this path.
    HardLink(Vec<u8>),
}

/// Reads an archive to its end and tells where its files are; directories and
/// devices are passed over. More than `members_max` entries or `bytes_max`
/// bytes are refused.
pub fn members(reader: impl Read, members_max: usize, bytes_max: u64) -> Result<Vec<TarMember>> {
    let mut stream = Stream::unhashed(reader, bytes_max);
    let mut entries = Entries::new();
    let mut found = Vec::new();
    let mut count = 0;
    while let Some(entry) = entries.next(&mut stream)? {
        count += 1;
        if count > members_max {
            return Err(Error::bad_archive(format!("it has more than {members_max} entries")));
        }
        let content = match entry.kind {
            Kind::File(None) => {
                Some(TarContent::Data { offset: stream.offset(), length: entry.data })
            }
            Kind::Symlink(target) => Some(TarContent::Symlink(target)),
            Kind::HardLink(target) => Some(TarContent::HardLink(clean(&target)?)),
            Kind::File(Some(_)) => {
                return Err(Error::bad_archive("a sparse file cannot be a part of an image"));
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo | Kind::Directory => None,
        };
        stream.skip(entry.data)?;
        stream.skip_padding(entry.data)?;
        if let Some(content) = content {
            found.push(TarMember { path: clean(&entry.path)?, content });
        }
    }
    stream.drain()?;
    Ok(found)
}
