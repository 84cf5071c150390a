//! The root file systems of containers.

mod build;
mod chain;
mod lanes;
mod meter;
mod overlay;
mod spare;
mod usage;

use std::io::{Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use corten_base::{ContainerId, Digest};

pub(crate) use chain::extra_layers;
pub use meter::Measured;
pub(crate) use overlay::Overlayfs;
pub use usage::Usage;

use crate::error::Result;

/// The user namespace that a container runs in. Every container of a pod has
/// the same, so the mount can be made before any of them.
#[derive(Debug, Clone, Copy)]
pub struct Idmap<'fd> {
    /// The namespace, whose map shifts the owners of the layers' files.
    pub userns: BorrowedFd<'fd>,
    /// The user on the host that is 0 inside.
    pub root_uid: u32,
    /// The group on the host that is 0 inside.
    pub root_gid: u32,
}

/// How a root file system, or a part of one, is mounted.
#[derive(Debug, Clone, Copy, Default)]
pub struct MountAs<'a> {
    /// In this user namespace; none for the host's.
    pub idmap: Option<&'a Idmap<'a>>,
    /// With this SELinux label on every file; empty for the files' own.
    pub label: &'a str,
}

/// A container's root file system, ready to be given a place.
#[derive(Debug)]
pub struct Snapshot {
    /// A detached mount, writable, volatile: what is written is worth nothing
    /// after a crash of the machine. It ends with its last descriptor or place.
    pub mount: OwnedFd,
}

/// Makes root file systems of layers. One implementation today, by overlayfs.
pub trait Snapshotter: Send + Sync {
    /// A new writable root file system on durable layers, bottom first. Its
    /// layers cannot be collected until it is removed.
    /// [`crate::Error::SnapshotExists`] if there is one: remove it first, or
    /// [`Snapshotter::remount`] it.
    fn prepare(&self, id: &ContainerId, layers: &[Digest], how: MountAs<'_>) -> Result<Snapshot>;

    /// Keeps more layers from being collected until the snapshot is removed:
    /// those of images that the container has as volumes.
    fn hold(&self, id: &ContainerId, layers: &[Digest]) -> Result<()>;

    /// Mounts the files of a container that ran before. The earlier mount must
    /// be gone. [`crate::Error::Damaged`] after a reboot, as its files were
    /// never synced.
    fn remount(&self, id: &ContainerId, how: MountAs<'_>) -> Result<Snapshot>;

    /// A read-only detached mount of durable layers, bottom first: an image
    /// volume. With `sub_path` of that directory or file only; links on the way
    /// are followed inside the image, and what is not there is
    /// [`crate::Error::NotFound`]. Somebody else keeps the layers.
    fn view(&self, layers: &[Digest], sub_path: &str, how: MountAs<'_>) -> Result<OwnedFd>;

    /// Writes what a container has written, as the archive of a layer above its
    /// own. It must not go on writing.
    fn write_changes(&self, id: &ContainerId, out: &mut dyn Write) -> Result<()>;

    /// A directory beside the files of a snapshot, which goes with it; made when
    /// it is first asked for.
    fn side(&self, id: &ContainerId) -> Result<PathBuf>;

    /// Gives a new snapshot what another container had written. It must not be
    /// mounted: [`Snapshotter::remount`] follows.
    fn read_changes(&self, id: &ContainerId, archive: &mut dyn Read) -> Result<()>;

    /// Throws away what was made ready for containers to come, so that its
    /// layers can be collected.
    fn drop_spares(&self);

    /// Forgets a snapshot; its files are deleted in the background. What is
    /// not there is removed already.
    fn remove(&self, id: &ContainerId) -> Result<()>;

    /// All snapshots, damaged ones included.
    fn list(&self) -> Vec<ContainerId>;

    /// What these containers have written, as it was last measured: nobody
    /// waits for a walk but for the first of each, and no longer than
    /// `patience` for all of them. `None` for what is not measured yet.
    fn usages(&self, ids: &[ContainerId], patience: Duration) -> Vec<Option<Measured>>;
}
