//! Snapshots by overlayfs.
//!
//! ```text
//! snapshots/<id>/snapshot   the boot it was written in, and its layers, bottom first
//! snapshots/<id>/upper      what the container has written
//! snapshots/<id>/work       the kernel's
//! snapshots/<id>/side       what else belongs to the container, if anything
//! ```
//!
//! Overlay itself cannot be idmapped. For a user namespace the directory of
//! all layers is cloned once with owners shifted, every lower is opened in
//! that clone, and the upper belongs to the user that is root inside.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use corten_base::{ContainerId, Digest};

use super::build::Builder;
use super::lanes::Lanes;
use super::meter::{Measured, Meter};
use super::spare::{Place, Spare};
use super::{MountAs, Snapshot, Snapshotter};
use crate::error::{Error, IoContext, Result};
use crate::layer::{Layers, Lease};
use crate::tar;
use crate::trash::Trash;

pub(super) const MAGIC: &str = "corten-snapshot 1";
/// Bytes of the file that describes a snapshot: a boot id, 500 digests, and
/// those of image volumes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Begins the line of a layer that is held, and not part of the snapshot.
const HELD: char = '+';

/// The snapshots of a store.
pub(crate) struct Overlayfs {
    /// `<root>/snapshots`.
    dir: PathBuf,
    layers: Arc<Layers>,
    builder: Arc<Builder>,
    trash: Arc<Trash>,
    boot_id: String,
    /// The next container's, perhaps.
    spare: Arc<Place>,
    known: Mutex<HashMap<ContainerId, Known>>,
    meter: Meter,
}

/// One snapshot.
#[derive(Default)]
struct Known {
    /// Bottom first.
    layers: Vec<Digest>,
    /// Keep layers from being collected, also those that are only held.
    leases: Vec<Lease>,
    /// Why it cannot be mounted again.
    damage: Option<String>,
}

impl Overlayfs {
    pub(crate) fn open(root: &Path, layers: Arc<Layers>, trash: Arc<Trash>) -> Result<Self> {
        let boot_id_path = "/proc/sys/kernel/random/boot_id";
        let boot_id =
            std::fs::read_to_string(boot_id_path).doing("read", || boot_id_path)?.trim().to_owned();
        let lanes = Lanes::open(root.join("lanes"), &trash)?;
        let builder = Builder::new(layers.clone(), trash.clone(), boot_id.clone(), lanes)?;
        let builder = Arc::new(builder);
        let spare = Arc::default();
        let dir = root.join("snapshots");
        let meter = Meter::new(dir.clone());
        let known = Mutex::default();
        let this = Self { dir, layers, builder, trash, boot_id, spare, known, meter };
        this.find_all()?;
        Ok(this)
    }

    /// Takes up the snapshots on the disk.
    fn find_all(&self) -> Result<()> {
        let list = || self.dir.display().to_string();
        for entry in std::fs::read_dir(&self.dir).doing("list", list)? {
            let path = entry.doing("list", list)?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            match name.and_then(|name| name.parse::<ContainerId>().ok()) {
                Some(id) => self.known().insert(id, self.find(&path)),
                None => {
                    self.trash.discard(&path)?;
                    None
                }
            };
        }
        Ok(())
    }

    fn find(&self, path: &Path) -> Known {
        let damaged = |reason: String| Known { damage: Some(reason), ..Known::default() };
        let Some(Written { boot_id, layers, held }) = read_file(path) else {
            return damaged("what was written about it is unreadable".into());
        };
        let used = layers.iter().chain(&held);
        let leases: Vec<Lease> = used.filter_map(|digest| self.layers.lease(digest)).collect();
        let damage = if boot_id != self.boot_id {
            Some("the machine was restarted since, and its files were never synced".to_owned())
        } else if leases.len() < layers.len() + held.len() {
            Some("a layer that it needs is gone".to_owned())
        } else {
            None
        };
        Known { layers, leases, damage }
    }

    fn path(&self, id: &ContainerId) -> PathBuf {
        self.dir.join(id.as_str())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<ContainerId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Overlayfs {
    /// The spare, or a new one.
    fn make(&self, path: &Path, layers: &[Digest], how: MountAs<'_>) -> Result<Snapshot> {
        let plain = how.idmap.is_none() && how.label.is_empty();
        let spare = if plain { self.spare.take(layers) } else { None };
        let (place, mount) = match spare {
            Some(Spare { dir, mount, .. }) => (dir, mount),
            None => self.builder.make(layers, how)?,
        };
        let made = std::fs::rename(&place, path).doing("create", || path.display().to_string());
        if plain {
            self.spare.want(layers, &self.builder);
        }
        made.inspect_err(|_| self.builder.discard(&place))?;
        Ok(Snapshot { mount })
    }
}

impl Drop for Overlayfs {
    fn drop(&mut self) {
        self.spare.close();
        self.drop_spares();
    }
}

impl Snapshotter for Overlayfs {
    fn prepare(&self, id: &ContainerId, layers: &[Digest], how: MountAs<'_>) -> Result<Snapshot> {
        let leases = self.builder.lease_all(layers)?;
        let known = Known { layers: layers.to_vec(), leases, damage: None };
        {
            let mut all = self.known();
            if all.contains_key(id) {
                return Err(Error::SnapshotExists(id.to_string()));
            }
            all.insert(id.clone(), known);
        }
        self.make(&self.path(id), layers, how).inspect_err(|_| {
            // The error that is returned says more; a rest is swept by the next remove.
            let _ = self.remove(id);
        })
    }

    fn drop_spares(&self) {
        self.spare.clear(&*self.builder);
    }

    fn hold(&self, id: &ContainerId, layers: &[Digest]) -> Result<()> {
        use std::io::Write;
        let leases = self.builder.lease_all(layers)?;
        let missing = || Error::NotFound { what: "snapshot", id: id.to_string() };
        if !self.known().contains_key(id) {
            return Err(missing());
        }
        let path = self.path(id).join("snapshot");
        let describe = || path.display().to_string();
        let mut file = std::fs::File::options().append(true).open(&path).doing("open", describe)?;
        let mut text = String::new();
        for digest in layers {
            text += &format!("{HELD}{digest}\n");
        }
        let length = file.metadata().doing("look at", describe)?.len();
        if length + text.len() as u64 > FILE_BYTES_MAX {
            return Err(Error::TooMuch {
                verb: "keep the layers of image volumes",
                what: "the text that names them, in bytes,",
                max: FILE_BYTES_MAX,
            });
        }
        file.write_all(text.as_bytes()).doing("write", describe)?;
        self.known().get_mut(id).ok_or_else(missing)?.leases.extend(leases);
        Ok(())
    }

    fn remount(&self, id: &ContainerId, how: MountAs<'_>) -> Result<Snapshot> {
        let layers = {
            let known = self.known();
            let found = known
                .get(id)
                .ok_or_else(|| Error::NotFound { what: "snapshot", id: id.to_string() })?;
            if let Some(reason) = &found.damage {
                let (id, reason) = (id.to_string(), reason.clone());
                return Err(Error::Damaged { what: "snapshot", id, reason });
            }
            found.layers.clone()
        };
        let path = self.path(id);
        // The kernel marks the work directory of a volatile mount and refuses
        // it for ever. In the same boot nothing was lost: what was not synced
        // is still in memory.
        let work = path.join("work");
        self.trash.discard(&work)?;
        std::fs::create_dir(&work).doing("create", || work.display().to_string())?;
        self.builder.mount(&path, &layers, how)
    }

    fn write_changes(&self, id: &ContainerId, out: &mut dyn Write) -> Result<()> {
        tar::pack(&self.path(id).join("upper"), &[], out).map(drop)
    }

    fn side(&self, id: &ContainerId) -> Result<PathBuf> {
        let side = self.path(id).join("side");
        match std::fs::create_dir(&side) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(error).doing("create", || side.display().to_string())
            }
            Ok(()) | Err(_) => Ok(side),
        }
    }

    fn read_changes(&self, id: &ContainerId, archive: &mut dyn Read) -> Result<()> {
        let upper = self.path(id).join("upper");
        tar::extract(archive, &upper, &tar::Limits::default()).map(drop)
    }

    fn view(&self, layers: &[Digest], sub_path: &str, how: MountAs<'_>) -> Result<OwnedFd> {
        let _leases = self.builder.lease_all(layers)?;
        let whole = self.builder.mount_on(layers, None, how)?;
        if sub_path.is_empty() { Ok(whole) } else { self.builder.part(whole, sub_path) }
    }

    fn remove(&self, id: &ContainerId) -> Result<()> {
        self.trash.discard(&self.path(id))?;
        self.known().remove(id);
        self.meter.forget(id);
        Ok(())
    }

    fn list(&self) -> Vec<ContainerId> {
        self.known().keys().cloned().collect()
    }

    fn usages(&self, ids: &[ContainerId], patience: Duration) -> Vec<Option<Measured>> {
        self.meter.usages(ids, patience)
    }
}

/// What is written about a snapshot.
struct Written {
    boot_id: String,
    /// Its own layers, bottom first.
    layers: Vec<Digest>,
    /// Layers that its container uses besides.
    held: Vec<Digest>,
}

fn read_file(snapshot: &Path) -> Option<Written> {
    use std::io::Read;
    let mut text = String::new();
    let file = std::fs::File::open(snapshot.join("snapshot")).ok()?;
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    let mut lines = text.strip_prefix(MAGIC)?.strip_prefix('\n')?.lines();
    let boot_id = lines.next()?.to_owned();
    let (mut layers, mut held) = (Vec::new(), Vec::new());
    for line in lines {
        match line.strip_prefix(HELD) {
            Some(digest) => held.push(digest.parse().ok()?),
            None => layers.push(line.parse().ok()?),
        }
    }
    Some(Written { boot_id, layers, held })
}
