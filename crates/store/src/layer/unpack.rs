//! One layer being unpacked.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use corten_base::Digest;

use super::{Layers, Lease, Metadata, Sizes};
use crate::error::{Error, IoContext, Result};
use crate::tar;

/// A layer that is being unpacked. Dropped before [`Unpack::run`] has
/// succeeded, it leaves nothing, and the next who waits for it gets its turn.
#[derive(Debug)]
pub struct Unpack {
    layers: Arc<Layers>,
    expected: Option<Digest>,
    dir: PathBuf,
}

/// A layer that is unpacked. It can be used by snapshots after
/// [`crate::Store::make_durable`]; keep the lease until its image is recorded.
#[derive(Debug)]
pub struct UnpackedLayer {
    /// sha256 of the whole tar stream, as the image's configuration names it.
    pub diff_id: Digest,
    /// Bytes of file content.
    pub bytes: u64,
    /// Entries made.
    pub entries: u64,
    /// Keeps the layer from being collected.
    pub lease: Lease,
}

impl Unpack {
    pub(super) fn begin(layers: Arc<Layers>, expected: Option<Digest>) -> Result<Self> {
        let dir = layers.temporary("layer");
        // Made first, so that its drop frees the turn if this fails.
        let unpack = Self { layers, expected, dir };
        let tree = unpack.dir.join("tree");
        std::fs::create_dir(&unpack.dir)
            .and_then(|()| std::fs::create_dir(&tree))
            .doing("create directory", || tree.display().to_string())?;
        Ok(unpack)
    }

    /// Unpacks a tar stream, already decompressed, while hashing it; reads to
    /// the end, as trailing bytes belong to the digest. An error leaves
    /// nothing. The kind of an error of `reader` is kept in [`Error::Source`].
    pub fn run(self, reader: impl Read) -> Result<UnpackedLayer> {
        let summary = tar::extract(reader, &self.dir.join("tree"), &tar::Limits::default())?;
        let diff_id = summary.digest;
        if let Some(expected) = self.expected.filter(|expected| *expected != diff_id) {
            return Err(Error::WrongDiffId { expected, actual: diff_id });
        }
        let (bytes, entries) = (summary.bytes, summary.entries);
        Metadata { bytes, entries, implied: summary.implied }.write(&self.dir)?;
        let lease = self.layers.finished(diff_id, &self.dir, Sizes { bytes, entries });
        Ok(UnpackedLayer { diff_id, bytes, entries, lease })
    }
}

impl Drop for Unpack {
    fn drop(&mut self) {
        if !self.layers.owns_path(&self.dir) {
            // What stays here is swept at the next start.
            let _ = self.layers.trash().discard(&self.dir);
        }
        if let Some(expected) = &self.expected {
            self.layers.not_busy(expected);
        }
    }
}
