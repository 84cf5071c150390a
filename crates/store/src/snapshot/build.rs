//! Making root file systems: directories, and the mount over layers.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use corten_base::Digest;
use corten_base::limits::IMAGE_LAYERS_MAX;
use corten_kernel::overlay::{self, Overlay, Upper};
use corten_kernel::rooted::Root;
use corten_kernel::{Errno, mount};
use rustix::fs::{CWD, FileType, Mode, OFlags, openat};

use super::chain::{Attributes, Chains};
use super::lanes::Lanes;
use super::overlay::MAGIC;
use super::spare::{Maker, Spare};
use super::{Idmap, MountAs, Snapshot};
use crate::error::{Error, IoContext, Result};
use crate::layer::{Layers, Lease};
use crate::trash::Trash;

const DIRECTORY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Makes root file systems.
pub(super) struct Builder {
    layers: Arc<Layers>,
    chains: Chains,
    trash: Arc<Trash>,
    boot_id: String,
    lanes: Lanes,
}

impl Builder {
    pub(super) fn new(
        layers: Arc<Layers>,
        trash: Arc<Trash>,
        boot_id: String,
        lanes: Lanes,
    ) -> Result<Self> {
        let chains = Chains::open(layers.clone())?;
        Ok(Self { layers, chains, trash, boot_id, lanes })
    }

    pub(super) fn lease_all(&self, layers: &[Digest]) -> Result<Vec<Lease>> {
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

    /// Makes the directories of a new snapshot and mounts it. Where they lie,
    /// from where they are to be renamed.
    pub(super) fn make(&self, layers: &[Digest], how: MountAs<'_>) -> Result<(PathBuf, OwnedFd)> {
        let place = self.lanes.place();
        match self.make_at(&place, layers, how) {
            Ok(Snapshot { mount }) => Ok((place, mount)),
            Err(error) => {
                self.discard(&place);
                Err(error)
            }
        }
    }

    /// Deletes in the background what `make` made. What stays is thrown away
    /// when the next daemon starts.
    pub(super) fn discard(&self, place: &Path) {
        let _ = self.trash.discard(place);
    }

    fn make_at(&self, path: &Path, layers: &[Digest], how: MountAs<'_>) -> Result<Snapshot> {
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

    pub(super) fn mount(
        &self,
        path: &Path,
        layers: &[Digest],
        how: MountAs<'_>,
    ) -> Result<Snapshot> {
        let upper = open_directory(&path.join("upper"))?;
        let work = open_directory(&path.join("work"))?;
        let upper = Upper { upper: upper.as_fd(), work: work.as_fd() };
        Ok(Snapshot { mount: self.mount_on(layers, Some(upper), how)? })
    }

    /// Mounts layers, bottom first, below an upper, or read-only.
    pub(super) fn mount_on(
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
    pub(super) fn part(&self, whole: OwnedFd, path: &str) -> Result<OwnedFd> {
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

impl Maker for Builder {
    fn make_spare(&self, layers: &[Digest]) -> Option<Spare> {
        let leases = self.lease_all(layers).ok()?;
        // If it fails, whoever wanted it makes its own, and is told why.
        let (dir, mount) = self.make(layers, MountAs::default()).ok()?;
        Some(Spare { layers: layers.to_vec(), _leases: leases, dir, mount })
    }

    fn discard_spare(&self, spare: Spare) {
        drop(spare.mount);
        self.discard(&spare.dir);
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
