//! Connects to the daemon's socket.

use std::path::Path;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

/// A daemon that is alive takes a connection at once; one that is being
/// restarted by systemd is back within this time.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Why the daemon cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The path cannot be written as an address.
    #[error("unable to connect to {path:?}: a socket's path must be UTF-8")]
    Path {
        /// As given.
        path: std::path::PathBuf,
    },
    /// Nobody answers there, or we may not.
    #[error("unable to connect to {path:?}: {}", cause(.source))]
    Connect {
        /// As given.
        path: std::path::PathBuf,
        /// What went wrong; [`ConnectError::io`] finds the system's error in it.
        source: tonic::transport::Error,
    },
}

impl ConnectError {
    /// The system's error: `NotFound` where there is no socket,
    /// `PermissionDenied` without root, `ConnectionRefused` without a daemon.
    pub fn io(&self) -> Option<std::io::ErrorKind> {
        let mut error: Option<&dyn std::error::Error> = match self {
            Self::Path { .. } => None,
            Self::Connect { source, .. } => Some(source),
        };
        while let Some(inner) = error {
            if let Some(io) = inner.downcast_ref::<std::io::Error>() {
                return Some(io.kind());
            }
            error = inner.source();
        }
        None
    }
}

/// The innermost cause says most: the outer ones are «transport error».
fn cause(error: &tonic::transport::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    innermost.to_string()
}

/// Connects to the daemon that listens on `socket`. The channel can be cloned
/// and used for both contracts; the generated clients take it by `new`.
pub async fn connect(socket: &Path) -> Result<Channel, ConnectError> {
    let path = socket.to_str().ok_or_else(|| ConnectError::Path { path: socket.to_path_buf() })?;
    let failed = |source| ConnectError::Connect { path: socket.to_path_buf(), source };
    Endpoint::from_shared(format!("unix:{path}"))
        .map_err(failed)?
        .connect_timeout(CONNECT_DEADLINE)
        .connect()
        .await
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_socket_is_said_plainly() {
        let error = connect(Path::new("/nonexistent/corten.sock")).await.unwrap_err();
        assert_eq!(error.io(), Some(std::io::ErrorKind::NotFound), "{error:?}");
        assert!(error.to_string().contains("No such file"), "{error}");
    }
}
