//! What a pull tells while it goes on.

use corten_base::Digest;
use tokio::sync::watch;

/// Where a pull reports to. The newest state is always there; a slow reader
/// misses steps between, never the last one.
pub type ProgressSender = watch::Sender<PullProgress>;

/// A pull, as far as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PullProgress {
    /// Empty until the manifest is known. Bottom first.
    pub layers: Vec<LayerProgress>,
}

/// A layer of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerProgress {
    /// Of the blob at the registry.
    pub digest: Digest,
    /// Bytes fetched.
    pub bytes_done: u64,
    /// Bytes of the blob.
    pub bytes_total: u64,
    /// How far it is.
    pub state: LayerState,
}

/// How far a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerState {
    /// Others go first.
    Waiting,
    /// Fetched and unpacked at the same time.
    Fetching,
    /// All bytes are here; the last are being unpacked.
    Unpacking,
    /// Unpacked.
    Done,
    /// It was in the store already.
    Exists,
}
