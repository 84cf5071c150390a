//! What can go wrong with images.

use corten_store::Error as StoreError;

/// Results of everything but pulls.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of this crate, pulls apart.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// TLS could not be set up.
    #[error("unable to set up TLS: {0}")]
    Tls(String),
    /// A record could not be written.
    #[error("unable to write the record of image {id}: {reason}")]
    Record {
        /// The image.
        id: String,
        /// Why.
        reason: String,
    },
    /// One more name than an image may have.
    #[error(
        "unable to name an image: it has {} names already; remove some",
        corten_base::limits::IMAGE_NAMES_MAX
    )]
    TooManyNames,
    /// A blocking task was lost.
    #[error("unable to finish work on images: {0}")]
    Lost(String),
}

/// What kind of failure a pull had: what a client can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PullErrorKind {
    /// The registry does not have it.
    NotFound,
    /// The registry wants other credentials.
    Unauthorized,
    /// The registry cannot be reached, or answers with an error: try later.
    Unavailable,
    /// What it sent is not an image that can be used: trying again is of no use.
    Invalid,
    /// The configuration of the registry's hosts is wrong.
    Config,
    /// The disk of the store is full.
    DiskFull,
    /// Everyone who wanted it has left.
    Cancelled,
    /// The registry stopped sending.
    Timeout,
    /// The store or the daemon failed.
    Internal,
}

/// Why a pull, a load or a save failed. Shared by all who wait for it. Holds no credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PullError {
    /// For machines.
    pub kind: PullErrorKind,
    /// For people: what was being done, where, and what was the answer.
    pub message: String,
}

impl PullError {
    pub(crate) fn new(kind: PullErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(PullErrorKind::Invalid, message)
    }

    /// The same, after the words that say what it was part of.
    pub(crate) fn within(self, what: impl std::fmt::Display) -> Self {
        Self { kind: self.kind, message: format!("{what}: {}", self.message) }
    }
}

impl From<StoreError> for PullError {
    fn from(error: StoreError) -> Self {
        let kind = if error.is_no_space() {
            PullErrorKind::DiskFull
        } else if error.is_bad_content() {
            PullErrorKind::Invalid
        } else {
            PullErrorKind::Internal
        };
        Self::new(kind, error.to_string())
    }
}

impl From<Error> for PullError {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(error) => error.into(),
            other => Self::new(PullErrorKind::Internal, other.to_string()),
        }
    }
}
