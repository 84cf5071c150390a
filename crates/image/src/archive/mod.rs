//! Images in archives: OCI image layouts, and what `docker save` writes.
//!
//! An archive is first spooled to a nameless file on the store's disk, so its
//! entries may come in any order, and nothing is left however it ends.
//!
//! Layers are kept unpacked and no compressed blob is kept, so archives are
//! made of the layers' directories. Such a layer mostly has another digest
//! than the one that was pulled, and with it the image another id. Made again
//! from what was loaded, an archive has the same layers and ids.

mod document;
mod load;
mod save;
mod spool;

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use corten_base::Reference;
use tokio::sync::mpsc;

use crate::image::Image;
use crate::pipe::{Piece, PipeReader, pipe};

pub(crate) use load::load;
pub(crate) use save::save;

const LAYOUT_FILE: &str = "oci-layout";
const INDEX_FILE: &str = "index.json";
const DOCKER_FILE: &str = "manifest.json";

/// How images are put into a tar archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// An OCI image layout.
    Oci,
    /// What `docker save` writes.
    Docker,
}

/// An image that was in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedImage {
    /// The image, as the namespace knows it now.
    pub image: Arc<Image>,
    /// Names that the archive gave it.
    pub references: Vec<Reference>,
}

/// The async end of [`archive_pipe`]. Dropped before [`ArchiveSender::finish`],
/// it makes the load fail: half an archive is none.
pub struct ArchiveSender(mpsc::Sender<Piece>);

impl ArchiveSender {
    /// Passes bytes on, waiting for room. False if nobody reads any more; the
    /// load knows why.
    pub async fn send(&self, bytes: Bytes) -> bool {
        bytes.is_empty() || self.0.send(Piece::Data(bytes)).await.is_ok()
    }

    /// Says that this was all.
    pub async fn finish(self) {
        // Nobody reads any more: then the load has ended already.
        let _ = self.0.send(Piece::End).await;
    }
}

/// A bounded pipe from an async client to [`crate::Images::load`].
pub fn archive_pipe() -> (ArchiveSender, ArchiveReader) {
    let (sender, reader) = pipe();
    (ArchiveSender(sender), ArchiveReader(reader))
}

/// The blocking end of [`archive_pipe`].
pub struct ArchiveReader(PipeReader);

impl Read for ArchiveReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}
