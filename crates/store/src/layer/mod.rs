//! Layers: unpacked once, shared by all images that have them.

mod metadata;
mod unpack;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use corten_base::Digest;

pub(crate) use metadata::Metadata;
pub use unpack::{Unpack, UnpackedLayer};

use crate::blob::parse_hex;
use crate::error::{Error, IoContext, Result};
use crate::snapshot::extra_layers;
use crate::trash::Trash;

/// What [`crate::Store::begin_layer`] finds.
#[derive(Debug)]
pub enum LayerStart {
    /// The layer is there; no byte of it need be fetched.
    Present(Lease),
    /// It is the caller's to unpack; others who want it wait for that.
    Unpack(Unpack),
}

/// Keeps a layer from being collected while it is held: from its unpacking
/// until the image is recorded, and as long as a snapshot uses it.
#[derive(Debug)]
pub struct Lease {
    layers: Arc<Layers>,
    diff_id: Digest,
}

impl Lease {
    /// The layer's digest, of its uncompressed tar.
    pub fn diff_id(&self) -> &Digest {
        &self.diff_id
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.layers.state();
        if let Some(count) = state.leases.get_mut(&self.diff_id) {
            *count -= 1;
            if *count == 0 {
                state.leases.remove(&self.diff_id);
            }
        }
    }
}

/// The layers of a store.
#[derive(Debug)]
pub(crate) struct Layers {
    /// `<root>/layers`.
    dir: PathBuf,
    /// `<root>/ingest`.
    ingest: PathBuf,
    trash: Arc<Trash>,
    state: Mutex<State>,
    /// Something is no longer busy.
    changed: Condvar,
    /// Held while syncing, so that callers who come meanwhile share the next sync.
    publishing: Mutex<()>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Whole and durable, in `layers`.
    durable: HashMap<Digest, Sizes>,
    /// Unpacked, still in `ingest`.
    fresh: HashMap<Digest, Fresh>,
    /// Being unpacked.
    busy: HashSet<Digest>,
    /// Holders of leases.
    leases: HashMap<Digest, usize>,
}

/// Bytes of file content and number of entries.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    bytes: u64,
    entries: u64,
}

#[derive(Debug, Clone)]
struct Fresh {
    path: PathBuf,
    sizes: Sizes,
}

impl Layers {
    pub(crate) fn open(root: &Path, trash: Arc<Trash>) -> Result<Arc<Self>> {
        let dir = root.join("layers");
        let mut durable = HashMap::new();
        let list = || dir.display().to_string();
        for entry in std::fs::read_dir(&dir).doing("list", list)? {
            let path = entry.doing("list", list)?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(digest) = name.and_then(parse_hex) else { continue };
            match metadata::read_sizes(&path) {
                Ok(sizes) => {
                    durable.insert(digest, sizes);
                }
                // Damaged: not known, so it will be fetched again.
                Err(_) => trash.discard(&path)?,
            }
        }
        Ok(Arc::new(Self {
            dir,
            ingest: root.join("ingest"),
            trash,
            state: Mutex::new(State { durable, ..State::default() }),
            changed: Condvar::new(),
            publishing: Mutex::new(()),
            next: AtomicU64::new(0),
        }))
    }

    pub(crate) fn begin(self: &Arc<Self>, expected: Option<Digest>) -> Result<LayerStart> {
        if let Some(digest) = expected {
            let mut state = self.state();
            loop {
                if state.knows(&digest) {
                    return Ok(LayerStart::Present(self.lease_locked(&mut state, digest)));
                }
                if state.busy.insert(digest) {
                    break;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        Unpack::begin(self.clone(), expected).map(LayerStart::Unpack)
    }

    pub(crate) fn lease(self: &Arc<Self>, digest: &Digest) -> Option<Lease> {
        let mut state = self.state();
        state.knows(digest).then(|| self.lease_locked(&mut state, *digest))
    }

    fn lease_locked(self: &Arc<Self>, state: &mut State, diff_id: Digest) -> Lease {
        *state.leases.entry(diff_id).or_default() += 1;
        Lease { layers: self.clone(), diff_id }
    }

    /// The directory of a durable layer (with `tree` and `layer` in it).
    pub(crate) fn path(&self, digest: &Digest) -> Result<PathBuf> {
        if self.state().durable.contains_key(digest) {
            return Ok(self.dir.join(digest.hex()));
        }
        Err(Error::NotFound { what: "layer", id: digest.to_string() })
    }

    /// The directory of all durable layers.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A new path in `ingest`.
    pub(crate) fn temporary(&self, kind: &str) -> PathBuf {
        self.ingest.join(format!("{kind}-{}", self.next.fetch_add(1, Ordering::Relaxed)))
    }

    pub(crate) fn trash(&self) -> &Trash {
        &self.trash
    }

    /// Takes up an unpacked layer. If someone else was faster, theirs stays.
    fn finished(self: &Arc<Self>, diff_id: Digest, path: &Path, sizes: Sizes) -> Lease {
        let mut state = self.state();
        if !state.knows(&diff_id) {
            state.fresh.insert(diff_id, Fresh { path: path.to_owned(), sizes });
        }
        self.lease_locked(&mut state, diff_id)
    }

    /// Whether the layer at `path` was taken up (and is not a second copy).
    fn owns_path(&self, path: &Path) -> bool {
        self.state().fresh.values().any(|fresh| fresh.path == path)
    }

    fn not_busy(&self, digest: &Digest) {
        self.state().busy.remove(digest);
        self.changed.notify_all();
    }

    /// Syncs, and moves what is unpacked to where it is known after a crash.
    pub(crate) fn publish(&self, sync_needed: bool) -> Result<()> {
        let _turn = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh: Vec<(Digest, Fresh)> =
            self.state().fresh.iter().map(|(digest, fresh)| (*digest, fresh.clone())).collect();
        if fresh.is_empty() && !sync_needed {
            return Ok(());
        }
        let dir =
            std::fs::File::open(&self.dir).doing("open", || self.dir.display().to_string())?;
        rustix::fs::syncfs(&dir).doing("sync", || self.dir.display().to_string())?;
        for (digest, fresh) in &fresh {
            let place = self.dir.join(digest.hex());
            std::fs::rename(&fresh.path, &place)
                .doing("rename layer to", || place.display().to_string())?;
            let mut state = self.state();
            state.fresh.remove(digest);
            state.durable.insert(*digest, fresh.sizes);
        }
        dir.sync_all().doing("sync", || self.dir.display().to_string())
    }

    /// Discards what nobody uses. Under one lock, so that no lease is taken
    /// between the look and the rename; renames are quick.
    pub(crate) fn collect(&self, keep: &dyn Fn(&Digest) -> bool) -> Result<usize> {
        let _turn = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state();
        let known: Vec<Digest> = state.durable.keys().chain(state.fresh.keys()).copied().collect();
        let mut gone = HashSet::new();
        for digest in known {
            if state.leases.contains_key(&digest) || keep(&digest) {
                continue;
            }
            if let Some(fresh) = state.fresh.remove(&digest) {
                self.trash.discard(&fresh.path)?;
            } else {
                state.durable.remove(&digest);
                self.trash.discard(&self.dir.join(digest.hex()))?;
            }
            gone.insert(digest);
        }
        if !gone.is_empty() {
            for (path, layers) in extra_layers(&self.dir)? {
                if layers.iter().any(|digest| gone.contains(digest)) {
                    self.trash.discard(&path)?;
                }
            }
        }
        drop(state);
        Ok(gone.len())
    }

    /// Bytes and entries of all layers.
    pub(crate) fn usage(&self) -> (u64, u64) {
        let state = self.state();
        let all = || state.durable.values().chain(state.fresh.values().map(|fresh| &fresh.sizes));
        (all().map(|sizes| sizes.bytes).sum(), all().map(|sizes| sizes.entries).sum())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn knows(&self, digest: &Digest) -> bool {
        self.durable.contains_key(digest) || self.fresh.contains_key(digest)
    }
}
