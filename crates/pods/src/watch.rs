//! Descriptors watched by the async runtime.

use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

use crate::error::{Error, Result};

/// Watches a descriptor that we own; `what` is for the error.
pub fn watch(fd: OwnedFd, what: &str) -> Result<AsyncFd<OwnedFd>> {
    // `new` is deprecated since it also takes types that lie about what they
    // own. An `OwnedFd` does not, and the replacement is `unsafe`.
    #[allow(deprecated)]
    AsyncFd::new(fd).map_err(|error| Error::internal(format!("unable to watch {what}: {error}")))
}
