//! What can go wrong in the store.

use std::io;
use std::path::PathBuf;

use corten_base::Digest;
use corten_kernel::Errno;

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the store: what was being done, to what, and why it failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another daemon works on this directory.
    #[error("unable to open store {}: it is in use by {holder}; stop that one first, or choose another root", .root.display())]
    InUse {
        /// The root directory.
        root: PathBuf,
        /// The process that holds it, as a person would name it.
        holder: String,
    },
    /// A system call failed.
    #[error("unable to {verb} {object}: {source}")]
    Io {
        /// What was being done.
        verb: &'static str,
        /// To what.
        object: String,
        /// What the system said.
        source: io::Error,
    },
    /// A system call of the kernel crate failed.
    #[error(transparent)]
    Kernel(#[from] corten_kernel::Error),
    /// The database of records failed.
    #[error("unable to {verb} the records of the store: {reason}")]
    Records {
        /// What was being done.
        verb: &'static str,
        /// What the database said.
        reason: String,
    },
    /// There is no such thing here.
    #[error("no {what} {id} in the store")]
    NotFound {
        /// Blob, layer or snapshot.
        what: &'static str,
        /// Its digest or id.
        id: String,
    },
    /// What is on the disk is not what was written.
    #[error("{what} {id} is damaged: {reason}; it must be fetched or made again")]
    Damaged {
        /// Blob, layer or snapshot.
        what: &'static str,
        /// Its digest or id.
        id: String,
        /// How that was noticed.
        reason: String,
    },
    /// The unpacked bytes are not those that the image promises.
    #[error("unable to unpack layer {expected}: its content has digest {actual}")]
    WrongDiffId {
        /// What the image's configuration says.
        expected: Digest,
        /// What was read.
        actual: Digest,
    },
    /// The archive cannot be unpacked: malformed, hostile, truncated or too large.
    #[error("unable to unpack layer: {reason}")]
    BadArchive {
        /// What is wrong, with the entry's name where there is one.
        reason: String,
    },
    /// The caller's reader failed while a layer was being unpacked.
    #[error("unable to read layer: {0}")]
    Source(io::Error),
    /// There is one already.
    #[error("snapshot {0} exists already")]
    SnapshotExists(String),
    /// More than a limit allows.
    #[error("unable to {verb}: {what} is limited to {max}")]
    TooMuch {
        /// What was being done.
        verb: &'static str,
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        max: u64,
    },
}

impl Error {
    /// Whether the disk (or the quota) is full.
    pub fn is_no_space(&self) -> bool {
        let full = |errno: Errno| errno == Errno::NOSPC || errno == Errno::DQUOT;
        match self {
            Self::Io { source, .. } => Errno::from_io_error(source).is_some_and(full),
            Self::Kernel(error) => full(error.errno),
            _ => false,
        }
    }

    /// Whether the content itself is wrong, so that fetching it again from the
    /// same place is of no use.
    pub fn is_bad_content(&self) -> bool {
        matches!(self, Self::WrongDiffId { .. } | Self::BadArchive { .. })
    }

    pub(crate) fn bad_archive(reason: impl Into<String>) -> Self {
        Self::BadArchive { reason: reason.into() }
    }
}

/// Adds what was being done to an error of the system.
pub(crate) trait IoContext<T> {
    fn doing<O: Into<String>>(self, verb: &'static str, object: impl FnOnce() -> O) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn doing<O: Into<String>>(self, verb: &'static str, object: impl FnOnce() -> O) -> Result<T> {
        self.map_err(|source| Error::Io { verb, object: object().into(), source })
    }
}

impl<T> IoContext<T> for std::result::Result<T, Errno> {
    fn doing<O: Into<String>>(self, verb: &'static str, object: impl FnOnce() -> O) -> Result<T> {
        self.map_err(|errno| Error::Io { verb, object: object().into(), source: errno.into() })
    }
}
