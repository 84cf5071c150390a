//! What can go wrong with a pod, as its clients need to tell it apart.

use std::fmt;

/// The class of an error: what a client may do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There is no such sandbox, container or image.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The request can never work.
    InvalidArgument,
    /// Not in this state: start of a running container, exec in a stopped one.
    FailedPrecondition,
    /// A limit is reached.
    ResourceExhausted,
    /// Something outside did not answer in time.
    DeadlineExceeded,
    /// Something outside is not there now (network not configured, registry).
    Unavailable,
    /// Not offered by this runtime.
    Unimplemented,
    /// Everything else.
    Internal,
}

/// An error of the engine: its class, and a sentence for people.
#[derive(Debug, Clone)]
pub struct Error {
    /// The class.
    pub kind: Kind,
    /// A word that the kubelet looks for at the beginning of what it is told;
    /// empty for none.
    pub reason: &'static str,
    message: String,
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with this sentence.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, reason: "", message: message.into() }
    }

    /// No `what` of that id.
    pub fn not_found(what: &str, id: &str) -> Self {
        Self::new(Kind::NotFound, format!("no {what} {id:?}"))
    }

    /// The request can never work.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidArgument, message)
    }

    /// Not in this state.
    pub fn precondition(message: impl Into<String>) -> Self {
        Self::new(Kind::FailedPrecondition, message)
    }

    /// Everything else.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// Puts what was being done before the sentence.
    #[must_use]
    pub fn during(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// Gives it a word that the kubelet looks for.
    #[must_use]
    pub fn because(mut self, reason: &'static str) -> Self {
        self.reason = reason;
        self
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<corten_kernel::Error> for Error {
    fn from(error: corten_kernel::Error) -> Self {
        Self::internal(error.to_string())
    }
}
