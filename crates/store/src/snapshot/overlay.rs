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
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use corten_base::limits::IMAGE_LAYERS_MAX;
use corten_base::{ContainerId, Digest};
use corten_kernel::overlay::{self, Overlay, Upper};
use corten_kernel::rooted::Root;
use corten_kernel::{Errno, mount};
use rustix::fs::{CWD, FileType, Mode, OFlags, openat};

use super::chain::{Attributes, Chains};
use super::meter::{Measured, Meter};
use super::{Idmap, MountAs, Snapshot, Snapshotter};
use crate::error::{Error, IoContext, Result};
use crate::layer::{Layers, Lease};
use crate::tar;
use crate::trash::Trash;

const MAGIC: &str = "corten-snapshot 1";
/// Bytes of the file that describes a snapshot: a boot id, 500 digests, and
/// those of image volumes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Begins the line of a layer that is held, and not part of the snapshot.
const HELD: char = '+';

const DIRECTORY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The snapshots of a store.
pub(crate) struct Overlayfs {
    /// `<root>/snapshots`.
    dir: PathBuf,
    layers: Arc<Layers>,
    chains: Chains,
    trash: Arc<Trash>,
    boot_id: String,
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
        let chains = Chains::open(layers.clone())?;
        let dir = root.join("snapshots");
        let meter = Meter::new(dir.clone());
        let known = Mutex::default();
        let this = Self { dir, layers, chains, trash, boot_id, known, meter };
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

    fn lease_all(&self, layers: &[Digest]) -> Result<Vec<Lease>> {
        if layers.len() > IMAGE_LAYERS_MAX {
            return Err(Error::TooMuch {
                verb: "make a root file system",
                what: "the number of its layers",
                max: IMAGE_LAYERS_MAX as u64,
            });
        }
        let missing = |digest: &Digest| Error::NotFound { what: "layer", id: digest.to_string() };
        layers
            .iter()
            .map(|digest| self.layers.lease(digest).ok_or_else(|| missing(digest)))
            .collect()
    }

    /// Makes the directories of a new snapshot and mounts it.
    fn make(&self, path: &Path, layers: &[Digest], how: MountAs<'_>) -> Result<Snapshot> {
        let describe = || path.display().to_string();
        std::fs::create_dir(path)
            .and_then(|()| std::fs::create_dir(path.join("upper")))
            .and_then(|()| std::fs::create_dir(path.join("work")))
            .doing("create", describe)?;
        let mut text = format!("{MAGIC}\n{}\n", self.boot_id);
        for digest in layers {
            text += &format!("{digest}\n");
        }
        std::fs::write(path.join("snapshot"), text).doing("write", describe)?;
        let root = self.chains.root(layers)?;
        own(&path.join("upper"), root, how.idmap)?;
        self.mount(path, layers, how)
    }

    fn mount(&self, path: &Path, layers: &[Digest], how: MountAs<'_>) -> Result<Snapshot> {
        let upper = open_directory(&path.join("upper"))?;
        let work = open_directory(&path.join("work"))?;
        let upper = Upper { upper: upper.as_fd(), work: work.as_fd() };
        Ok(Snapshot { mount: self.mount_on(layers, Some(upper), how)? })
    }

    /// Mounts layers, bottom first, below an upper, or read-only.
    fn mount_on(
        &self,
        layers: &[Digest],
        upper: Option<Upper<'_>>,
        how: MountAs<'_>,
    ) -> Result<OwnedFd> {
        let MountAs { idmap, label } = how;
        let parent = open_directory(self.layers.dir())?;
        let parent = match idmap {
            Some(idmap) => overlay::idmapped_clone(parent.as_fd(), idmap.userns)?,
            None => parent,
        };
        let mut lower = Vec::with_capacity(layers.len() + 2);
        for name in self.chains.lower_names(layers, upper.is_none())? {
            let tree = openat(&parent, format!("{name}/tree"), DIRECTORY, Mode::empty())
                .doing("open layer", || name.clone())?;
            lower.push(tree);
        }
        let lower: Vec<BorrowedFd<'_>> = lower.iter().map(AsFd::as_fd).collect();
        let scratch = self.layers.temporary("mount");
        let context = [("context", Some(label))];
        let options = if label.is_empty() { &[][..] } else { &context };
        let request = Overlay { lower: &lower, upper, volatile: true, options, scratch: &scratch };
        let mounted = match overlay::mount(&request) {
            Err(error) if idmap.is_some() && error.errno == Errno::INVAL => {
                self.with_place(&parent, || overlay::mount(&request))
            }
            result => result,
        };
        Ok(mounted?)
    }

    /// Gives a mount a place while something is done with it that older kernels
    /// refuse without one. Its descriptors stay as they are.
    fn with_place<T>(
        &self,
        mount: impl AsFd,
        work: impl FnOnce() -> corten_kernel::Result<T>,
    ) -> corten_kernel::Result<T> {
        let place = self.layers.temporary("idmap");
        let failed = |error: std::io::Error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            corten_kernel::Error::new("create directory", place.display().to_string(), errno)
        };
        std::fs::create_dir(&place).map_err(failed)?;
        let done = overlay::attach(mount.as_fd(), &place).and_then(|_guard| work());
        let _ = std::fs::remove_dir(&place);
        done
    }

    /// A directory or file of a mount, as a mount of its own.
    fn part(&self, whole: OwnedFd, path: &str) -> Result<OwnedFd> {
        let root = Root::from_fd(whole);
        let describe = || format!("{path:?} in the image");
        let part = root.open_in(path.as_bytes(), OFlags::PATH).map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR => Error::NotFound { what: "path", id: describe() },
            errno => Error::Io { verb: "open", object: describe(), source: errno.into() },
        })?;
        let stat = rustix::fs::fstat(&part).doing("look at", describe)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && kind != FileType::RegularFile {
            return Err(Error::NotFound { what: "directory or file", id: describe() });
        }
        match mount::open_tree_at(part.as_fd(), false) {
            // Kernels before 6.15 clone no mount that has no place.
            Err(error) if error.errno == Errno::INVAL => {
                self.with_place(&root, || mount::open_tree_at(part.as_fd(), false))
            }
            cloned => cloned,
        }
        .map_err(Error::from)
    }
}

impl Snapshotter for Overlayfs {
    fn prepare(&self, id: &ContainerId, layers: &[Digest], how: MountAs<'_>) -> Result<Snapshot> {
        let leases = self.lease_all(layers)?;
        let known = Known { layers: layers.to_vec(), leases, damage: None };
        {
            let mut all = self.known();
            if all.contains_key(id) {
                return Err(Error::SnapshotExists(id.to_string()));
            }
            all.insert(id.clone(), known);
        }
        let path = self.path(id);
        self.make(&path, layers, how).inspect_err(|_| {
            // The error that is returned says more; a rest is swept by the next remove.
            let _ = self.remove(id);
        })
    }

    fn hold(&self, id: &ContainerId, layers: &[Digest]) -> Result<()> {
        use std::io::Write;
        let leases = self.lease_all(layers)?;
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
        self.mount(&path, &layers, how)
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
        let _leases = self.lease_all(layers)?;
        let whole = self.mount_on(layers, None, how)?;
        if sub_path.is_empty() { Ok(whole) } else { self.part(whole, sub_path) }
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

/// Gives the upper the attributes of the image's root: it is what `/` shows.
fn own(upper: &Path, root: Attributes, idmap: Option<&Idmap<'_>>) -> Result<()> {
    let describe = || upper.display().to_string();
    let (shift_uid, shift_gid) = idmap.map_or((0, 0), |map| (map.root_uid, map.root_gid));
    let uid = root.uid.saturating_add(shift_uid);
    let gid = root.gid.saturating_add(shift_gid);
    std::os::unix::fs::chown(upper, Some(uid), Some(gid)).doing("change the owner of", describe)?;
    rustix::fs::chmod(upper, Mode::from_raw_mode(root.mode)).doing("change the mode of", describe)
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    openat(CWD, path, DIRECTORY, Mode::empty()).doing("open", || path.display().to_string())
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
