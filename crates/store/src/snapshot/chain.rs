//! What a chain of layers needs beyond the layers themselves.
//!
//! A tar may leave out parent directories: `opt/app/run` without `opt`. In
//! the unpacked layer such a parent exists with default attributes, and in an
//! overlay it would hide those of the layers below (`/tmp` would lose 1777).
//! Layers are shared, so they cannot be corrected for one image. Where the
//! layers below say something else, a small extra layer on top holds the
//! right attributes: `layers/+<digest of the chain>/tree`.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use corten_base::Digest;
use corten_kernel::rooted::Root;
use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};

use crate::error::{IoContext, Result};
use crate::layer::{Layers, Metadata};

/// Chains that are remembered.
const CHAINS_MAX: usize = 1024;
/// Empty layers: overlay wants two lowers, or one below an upper.
const EMPTY: [&str; 2] = ["+empty-0", "+empty-1"];

/// Mode and owner of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes {
    /// Permission bits, with set-id and sticky.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// What a left-out parent gets.
const DEFAULT: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0 };

/// What is known about a chain of layers.
#[derive(Debug, Clone, Copy)]
struct Chain {
    root: Attributes,
    /// There is an extra layer.
    corrected: bool,
}

/// All chains that were asked for.
pub(super) struct Chains {
    layers: Arc<Layers>,
    /// By the digest of the digests.
    known: Mutex<HashMap<Digest, Chain>>,
}

impl Chains {
    pub(super) fn open(layers: Arc<Layers>) -> Result<Self> {
        for name in EMPTY {
            let empty = layers.dir().join(name).join("tree");
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(DEFAULT.mode)
                .create(&empty)
                .doing("create directory", || empty.display().to_string())?;
        }
        Ok(Self { layers, known: Mutex::default() })
    }

    /// The attributes of the root directory.
    pub(super) fn root(&self, layers: &[Digest]) -> Result<Attributes> {
        Ok(self.get(layers)?.root)
    }

    /// Names in the directory of layers, the topmost first.
    pub(super) fn lower_names(&self, layers: &[Digest], read_only: bool) -> Result<Vec<String>> {
        let mut names = Vec::with_capacity(layers.len() + 2);
        if self.get(layers)?.corrected {
            names.push(extra_name(&key(layers)));
        }
        names.extend(layers.iter().rev().map(Digest::hex));
        let least = if read_only { 2 } else { 1 };
        let missing = EMPTY.iter().take(usize::saturating_sub(least, names.len()));
        names.extend(missing.map(|name| (*name).to_owned()));
        Ok(names)
    }

    fn get(&self, layers: &[Digest]) -> Result<Chain> {
        let key = key(layers);
        // The extra layer goes when one of the layers is collected.
        let extra = || self.layers.dir().join(extra_name(&key)).exists();
        if let Some(chain) = self.known().get(&key).copied()
            && (!chain.corrected || extra())
        {
            return Ok(chain);
        }
        let chain = self.work_out(layers, &key)?;
        let mut known = self.known();
        if known.len() >= CHAINS_MAX {
            known.clear();
        }
        known.insert(key, chain);
        Ok(chain)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Chain>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work_out(&self, layers: &[Digest], key: &Digest) -> Result<Chain> {
        let mut opened = Vec::with_capacity(layers.len());
        let mut asked = BTreeSet::new();
        for digest in layers.iter().rev() {
            let path = self.layers.path(digest)?;
            let implied: BTreeSet<Vec<u8>> = Metadata::read(&path)?.implied.into_iter().collect();
            asked.extend(implied.iter().cloned());
            opened.push(Layer { root: Root::open(&path.join("tree"))?, implied });
        }
        let root = effective(&opened, b"")?.unwrap_or(DEFAULT);
        let mut corrections = Vec::new();
        for path in asked.iter().filter(|path| !path.is_empty()) {
            match effective(&opened, path)? {
                Some(found) if found != DEFAULT => corrections.push(path.clone()),
                _ => {}
            }
        }
        let corrected = !corrections.is_empty() || (root != DEFAULT && asked.contains(&b""[..]));
        if corrected {
            self.write_extra(layers, key, root, &opened, &corrections)?;
        }
        Ok(Chain { root, corrected })
    }

    /// Makes the extra layer, beside and then renamed into place.
    fn write_extra(
        &self,
        layers: &[Digest],
        key: &Digest,
        root: Attributes,
        opened: &[Layer],
        corrections: &[Vec<u8>],
    ) -> Result<()> {
        let place = self.layers.dir().join(extra_name(key));
        if place.exists() {
            return Ok(());
        }
        let temporary = self.layers.temporary("chain");
        let tree = temporary.join("tree");
        std::fs::create_dir_all(&tree).doing("create", || tree.display().to_string())?;
        let text: String = layers.iter().map(|digest| format!("{digest}\n")).collect();
        std::fs::write(temporary.join("chain"), text)
            .doing("write", || temporary.display().to_string())?;
        apply(&tree, root)?;
        for path in corrections {
            for end in ends(path) {
                let place = tree.join(to_path(&path[..end]));
                // An ancestor may have been made for an earlier one.
                if std::fs::create_dir(&place).is_ok() {
                    apply(&place, effective(opened, &path[..end])?.unwrap_or(DEFAULT))?;
                }
            }
        }
        match std::fs::rename(&temporary, &place) {
            // Another thread was faster; both made the same.
            Err(_) if place.exists() => self.layers.trash().discard(&temporary),
            result => result.doing("rename to", || place.display().to_string()),
        }
    }
}

/// Layers of which an extra layer was made, for the collector.
pub(crate) fn extra_layers(dir: &Path) -> Result<Vec<(PathBuf, Vec<Digest>)>> {
    let mut found = Vec::new();
    let list = || dir.display().to_string();
    for entry in std::fs::read_dir(dir).doing("list", list)? {
        let path = entry.doing("list", list)?.path();
        let Ok(text) = std::fs::read_to_string(path.join("chain")) else { continue };
        found.push((path, text.lines().filter_map(|line| line.parse().ok()).collect()));
    }
    Ok(found)
}

/// One layer, looked at.
struct Layer {
    root: Root,
    implied: BTreeSet<Vec<u8>>,
}

/// The attributes that a directory has in the whole of the layers (topmost
/// first): those of the first layer that names it. None if none does.
fn effective(layers: &[Layer], path: &[u8]) -> Result<Option<Attributes>> {
    for layer in layers {
        match look(layer, path)? {
            Look::Named(attributes) => return Ok(Some(attributes)),
            Look::Hidden => return Ok(None),
            Look::Absent => {}
        }
    }
    Ok(None)
}

/// What one layer says about a directory.
enum Look {
    Named(Attributes),
    /// Nothing, and the layers below do not show through.
    Hidden,
    /// Nothing.
    Absent,
}

fn look(layer: &Layer, path: &[u8]) -> Result<Look> {
    let describe = || String::from_utf8_lossy(path).into_owned();
    // The ancestors, the directory itself last; the root is the empty path.
    let steps = std::iter::once(0).chain(ends(path));
    for end in steps {
        let step = &path[..end];
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let fd = match layer.root.open_beneath(step, flags) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::NOENT) => return Ok(Look::Absent),
            Err(errno) => return Err(errno).doing("look at", describe),
        };
        let file = std::fs::File::from(fd);
        let metadata = file.metadata().doing("look at", describe)?;
        if !metadata.is_dir() {
            return Ok(Look::Hidden);
        }
        if step == path && !layer.implied.contains(path) {
            let mode = metadata.mode() & 0o7777;
            return Ok(Look::Named(Attributes { mode, uid: metadata.uid(), gid: metadata.gid() }));
        }
        if is_opaque(&layer.root, step) {
            return Ok(Look::Hidden);
        }
    }
    Ok(Look::Absent)
}

fn is_opaque(root: &Root, path: &[u8]) -> bool {
    let Ok(fd) = root.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY) else { return false };
    let mut value = [0u8; 8];
    matches!(
        rustix::fs::fgetxattr(&fd, c"trusted.overlay.opaque", &mut value),
        Ok(length) if &value[..length] == b"y"
    )
}

/// Where the prefixes of a path end that name its ancestors and itself.
fn ends(path: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    slashes.chain((!path.is_empty()).then_some(path.len()))
}

fn apply(path: &Path, attributes: Attributes) -> Result<()> {
    let describe = || path.display().to_string();
    std::os::unix::fs::chown(path, Some(attributes.uid), Some(attributes.gid))
        .doing("change the owner of", describe)?;
    rustix::fs::chmod(path, Mode::from_raw_mode(attributes.mode))
        .doing("change the mode of", describe)
}

fn to_path(bytes: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

fn key(layers: &[Digest]) -> Digest {
    let mut hash = Sha256::new();
    for digest in layers {
        hash.update(digest.as_bytes());
    }
    Digest::from_sha256(hash.finalize().into())
}

fn extra_name(key: &Digest) -> String {
    format!("+{}", key.hex())
}
