//! Tar archives, unpacked while they are hashed.
//!
//! What is accepted: ustar, old tar, PAX (global headers, too), GNU long names
//! and base-256 numbers, sparse files of GNU and of PAX 0.0, 0.1 and 1.0. A
//! name with `..` is refused. Links that lie on the way to an entry are
//! followed as if the layer were the whole world, as other engines do: an
//! absolute one begins at the layer's root and `..` stops there, so nothing is
//! made outside, whatever the archive says. Of several entries with one name
//! the last stays.

mod copy_in;
mod copy_out;
mod entry;
mod header;
mod layer;
mod make;
mod members;
mod pax;
mod sparse;
mod stream;
#[cfg(test)]
pub(crate) mod tests;
mod tree;
mod write;

pub use copy_in::{CopiedIn, CopyIn, Top, copy_in};
pub use copy_out::{CopyOut, copy_out};
pub(crate) use layer::pack;
pub use members::{TarContent, TarMember, members};
pub use write::{TarItem, TarKind, TarWriter};

use std::io::Read;
use std::path::Path;

use corten_base::Digest;
use corten_base::limits::{LAYER_BYTES_MAX, LAYER_ENTRIES_MAX};

use crate::error::{Error, Result};
use entry::Entries;
use stream::Stream;
use tree::Tree;

/// How much of an archive is accepted; tests set smaller ones.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Of file content, and of the size of a sparse file.
    pub(crate) bytes: u64,
    /// Implied directories included.
    pub(crate) entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: LAYER_BYTES_MAX, entries: LAYER_ENTRIES_MAX }
    }
}

/// What was unpacked.
#[derive(Debug)]
pub(crate) struct Summary {
    /// sha256 of the whole stream.
    pub(crate) digest: Digest,
    /// Bytes of file content.
    pub(crate) bytes: u64,
    /// Entries made.
    pub(crate) entries: u64,
    /// Parent directories that the archive left out.
    pub(crate) implied: Vec<Vec<u8>>,
}

/// Unpacks an archive into the empty directory `tree`, whose parent directory
/// is used for what is replaced on the way.
pub(crate) fn extract(reader: impl Read, tree: &Path, limits: &Limits) -> Result<Summary> {
    // Headers and padding come on top of content; nothing honest doubles it.
    let budget = limits.bytes.saturating_mul(2).saturating_add(1 << 20);
    let mut stream = Stream::new(reader, budget);
    let mut entries = Entries::new();
    let mut tree = Tree::open(tree, limits.entries)?;
    let mut bytes = 0u64;
    while let Some(entry) = entries.next(&mut stream)? {
        bytes = bytes.saturating_add(entry.data);
        if bytes > limits.bytes {
            return Err(Error::bad_archive(format!(
                "its files hold more than {} bytes",
                limits.bytes
            )));
        }
        make::make(&mut tree, &entry, &mut stream, limits)?;
        stream.skip_padding(entry.data)?;
    }
    let digest = stream.finish()?;
    let (entries, implied) = tree.finish()?;
    Ok(Summary { digest, bytes, entries, implied })
}
