//! Images' content, layers, snapshots and records: one directory tree.
//!
//! ```text
//! <root>/lock                   held by the daemon that works here
//! <root>/records.redb           records (images, sandboxes, …) by table and key
//! <root>/blobs/<hex>            manifests and configurations, by their sha256
//! <root>/layers/<hex>/tree      an unpacked layer, by the sha256 of its tar
//! <root>/layers/<hex>/layer     its sizes, and the parents that the tar left out
//! <root>/layers/+<hex>/tree     attributes of left-out parents, for one chain of layers
//! <root>/snapshots/<id>/        a container's own files: upper, work, snapshot
//! <root>/ingest/<n>             being made, or made and not yet durable; swept at start
//! <root>/trash/<n>              being deleted in the background; taken up again at start
//! ```
//!
//! Whatever is in `layers` is whole and durable: a layer is unpacked in
//! `ingest`, and renamed into `layers` after the file system was synced
//! ([`Store::make_durable`], once per image). A record that names a layer is
//! committed after that, so an image that is known is there after a power cut.
//!
//! Every call may block: async callers use `spawn_blocking`. No lock is held
//! while bytes are moved.
#![forbid(unsafe_code)]

mod blob;
mod error;
mod layer;
mod lock;
mod records;
mod snapshot;
mod tar;
#[cfg(test)]
mod tests;
mod trash;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use corten_base::{ContainerId, Digest};

pub use error::{Error, Result};
pub use layer::{LayerStart, Lease, Unpack, UnpackedLayer};
pub use lock::Claim;
pub use records::Batch;
pub use snapshot::{Idmap, Measured, MountAs, Snapshot, Snapshotter, Usage};
pub use tar::{CopiedIn, CopyIn, CopyOut, Top, copy_in, copy_out};
pub use tar::{TarContent, TarItem, TarKind, TarMember, TarWriter, members};

use blob::Blobs;
use error::IoContext;
use layer::Layers;
use records::Records;
use trash::Trash;

/// What the content of the store takes of its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsInfo {
    /// The root of the store: a path on the file system that holds the images.
    pub mountpoint: PathBuf,
    /// Bytes of all layers and blobs, as recorded when they were written.
    pub used_bytes: u64,
    /// Files and directories of all layers and blobs.
    pub inodes: u64,
}

/// One directory tree with everything that outlives a daemon. Share it by `Arc`.
pub struct Store {
    root: PathBuf,
    records: Records,
    blobs: Blobs,
    layers: Arc<Layers>,
    snapshots: Box<dyn Snapshotter>,
    /// After what uses it, so that it ends last.
    trash: Arc<Trash>,
    _claim: Claim,
}

impl Store {
    /// Claims the store below `root`, making it if it is not there:
    /// [`Error::InUse`] if another process works there. This takes no time,
    /// which cannot be said of [`Store::open_claimed`].
    pub fn claim(root: &Path) -> Result<Claim> {
        make_dir(root)?;
        lock::take(root)
    }

    /// Opens the store below `root`, making it if it is not there, and sweeps
    /// what a crash left. [`Error::InUse`] if another process works there.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_claimed(Self::claim(root)?)
    }

    /// As [`Store::open`], when it was claimed already.
    pub fn open_claimed(mut claim: Claim) -> Result<Self> {
        claim.sign()?;
        let root = claim.root.clone();
        for dir in ["blobs", "layers", "snapshots", "lanes", "ingest", "trash"] {
            make_dir(&root.join(dir))?;
        }
        let trash = Arc::new(Trash::open(&root)?);
        trash.discard_all_in(&root.join("ingest"))?;
        let make_room = {
            let trash = trash.clone();
            move || trash.wait_until_empty()
        };
        let records = Records::open(&root.join("records.redb"), make_room)?;
        let blobs = Blobs::open(&root)?;
        let layers = Layers::open(&root, trash.clone())?;
        let snapshots = Box::new(snapshot::Overlayfs::open(&root, layers.clone(), trash.clone())?);
        Ok(Self { root, records, blobs, layers, snapshots, trash, _claim: claim })
    }

    /// The directory that this store was opened with.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A sentence for the log if the records were found damaged and moved
    /// aside at [`Store::open`].
    pub fn damage(&self) -> Option<&str> {
        self.records.damage.as_deref()
    }

    /// Every record of a table, by key, in the order of keys.
    pub fn load_all(&self, table: &str) -> Result<Vec<(String, Vec<u8>)>> {
        self.records.load_all(table)
    }

    /// Writes and deletes records; returns when they are durable. Commits of
    /// several threads share an fsync.
    pub fn commit(&self, batch: Batch) -> Result<()> {
        self.records.commit(batch)
    }

    /// Keeps a manifest or configuration. Durable after [`Store::make_durable`].
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest> {
        self.blobs.put(bytes)
    }

    /// A manifest or configuration; verified, so that damage is noticed:
    /// [`Error::Damaged`] or [`Error::NotFound`] mean «fetch it again».
    pub fn blob(&self, digest: &Digest) -> Result<Vec<u8>> {
        self.blobs.read(digest)
    }

    /// Begins a layer. `expected` is its diffID as the image's configuration
    /// promises it; with it, the layer is found if it is there, and of several
    /// callers one unpacks while the others wait here for its result.
    pub fn begin_layer(&self, expected: Option<Digest>) -> Result<LayerStart> {
        self.layers.begin(expected)
    }

    /// A lease on a durable or just unpacked layer, if it is there.
    pub fn layer(&self, diff_id: &Digest) -> Option<Lease> {
        self.layers.lease(diff_id)
    }

    /// Writes a durable layer as a tar, and returns its digest and length. The
    /// same layer gives the same bytes; they are rarely those that it was
    /// unpacked from. Unpacked again, they give the same bytes once more. The
    /// caller keeps a lease. An error of `out` is in [`Error::Io`].
    pub fn write_layer(
        &self,
        diff_id: &Digest,
        out: &mut dyn std::io::Write,
    ) -> Result<(Digest, u64)> {
        let layer = self.layers.path(diff_id)?;
        let implied = layer::Metadata::read(&layer)?.implied;
        tar::pack(&layer.join("tree"), &implied, out)
    }

    /// A file without a name on the store's disk, gone with its descriptor.
    pub fn scratch_file(&self) -> Result<std::fs::File> {
        let path = self.layers.temporary("scratch");
        let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.doing("create", || path.display().to_string())?;
        std::fs::remove_file(&path).doing("delete", || path.display().to_string())?;
        Ok(file)
    }

    /// Makes everything durable that was unpacked or put before this call.
    /// One sync of the file system, none if there is nothing new.
    pub fn make_durable(&self) -> Result<()> {
        let blobs_were_put = self.blobs.take_unsynced();
        self.layers.publish(blobs_were_put).inspect_err(|_| self.blobs.mark_unsynced())
    }

    /// Deletes, in the background, layers and blobs for which `keep` says no,
    /// and that no [`Lease`] and no snapshot uses. `keep` is asked for blobs
    /// and diffIDs alike; it must answer from memory and not call the store.
    /// Returns how many went.
    pub fn collect(&self, keep: impl Fn(&Digest) -> bool) -> Result<usize> {
        self.snapshots.drop_spares();
        Ok(self.layers.collect(&keep)? + self.blobs.collect(&keep)?)
    }

    /// The root file systems of containers.
    pub fn snapshotter(&self) -> &dyn Snapshotter {
        self.snapshots.as_ref()
    }

    /// See [`Snapshotter::prepare`].
    pub fn prepare_snapshot(
        &self,
        id: &ContainerId,
        layers: &[Digest],
        how: MountAs<'_>,
    ) -> Result<Snapshot> {
        self.snapshots.prepare(id, layers, how)
    }

    /// See [`Snapshotter::remove`].
    pub fn remove_snapshot(&self, id: &ContainerId) -> Result<()> {
        self.snapshots.remove(id)
    }

    /// See [`Snapshotter::view`].
    pub fn view(&self, layers: &[Digest], sub_path: &str, how: MountAs<'_>) -> Result<OwnedFd> {
        self.snapshots.view(layers, sub_path, how)
    }

    /// What the images take of the disk. Nothing is walked: sizes were recorded.
    pub fn fs_info(&self) -> FsInfo {
        let (layer_bytes, layer_inodes) = self.layers.usage();
        let (blob_bytes, blob_inodes) = self.blobs.usage();
        FsInfo {
            mountpoint: self.root.clone(),
            used_bytes: layer_bytes + blob_bytes,
            inodes: layer_inodes + blob_inodes,
        }
    }

    /// Waits until the background deletion has nothing left to do.
    pub fn wait_for_deletions(&self) {
        self.trash.wait_until_empty();
    }
}

/// Makes a directory that only root may enter: layers hold setuid programs.
fn make_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .doing("create directory", || path.display().to_string())
}
