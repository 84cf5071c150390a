//! The daemon, as the commands call it.

use std::io::ErrorKind;
use std::path::PathBuf;

use corten_api::corten::corten_client::CortenClient;
use corten_api::{ConnectError, DEFAULT_SOCKET};
use tonic::transport::Channel;

use crate::error::{Error, Result};
use crate::limits::MESSAGE_BYTES_MAX;

/// Which daemon, and whose things there.
#[derive(Debug, Clone)]
pub struct Place {
    /// The daemon's socket.
    pub socket: PathBuf,
    /// The namespace; empty for people's own.
    pub namespace: String,
}

/// The generated client.
pub type Calls = CortenClient<Channel>;

/// A connection to the daemon. Copies share it.
#[derive(Clone)]
pub struct Daemon {
    /// `calls()` gives one to call with.
    client: Calls,
    /// The namespace that every request names.
    pub namespace: String,
}

impl Place {
    /// Connects, or says what to do about it.
    pub async fn connect(&self) -> Result<Daemon> {
        match corten_api::connect(&self.socket).await {
            Ok(channel) => Ok(Daemon {
                client: Calls::new(channel)
                    .max_decoding_message_size(MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(MESSAGE_BYTES_MAX),
                namespace: self.namespace.clone(),
            }),
            Err(error) => {
                Err(Error::Unreachable { socket: self.socket.clone(), why: advice(&error) })
            }
        }
    }
}

impl Daemon {
    /// A client to call with: calls take it for themselves.
    pub fn calls(&self) -> Calls {
        self.client.clone()
    }

    /// The namespace, as a field of a request.
    pub fn space(&self) -> String {
        self.namespace.clone()
    }
}

fn advice(error: &ConnectError) -> String {
    match error.io() {
        Some(ErrorKind::PermissionDenied) => "this takes root: try it with sudo".to_owned(),
        Some(ErrorKind::NotFound) => {
            "there is no socket, so cortend does not run: start it with 'systemctl start cortend', \
             or name its socket with --host"
                .to_owned()
        }
        Some(ErrorKind::ConnectionRefused) => {
            "nobody listens there any more: start the daemon with 'systemctl restart cortend', and \
             see 'journalctl -u cortend' for why it ended"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

/// Reads `unix:///run/corten/corten.sock` or a path.
pub fn socket(text: &str) -> std::result::Result<PathBuf, String> {
    let path = match text.split_once("://") {
        None => text.strip_prefix("unix:").unwrap_or(text),
        Some(("unix", path)) => path,
        Some((scheme, _)) => {
            return Err(format!(
                "Corten listens on unix sockets only, not on {scheme}: give unix:///path, and \
                 reach another machine through ssh"
            ));
        }
    };
    if path.starts_with('/') {
        Ok(PathBuf::from(path))
    } else {
        Err("a socket is an absolute path, as in unix:///run/corten/corten.sock".to_owned())
    }
}

/// The daemon's socket, where nobody names another.
pub fn default_socket() -> PathBuf {
    PathBuf::from(DEFAULT_SOCKET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_unix_sockets() {
        for text in ["unix:///run/x.sock", "unix:/run/x.sock", "/run/x.sock"] {
            assert_eq!(socket(text).unwrap(), PathBuf::from("/run/x.sock"), "{text}");
        }
        assert!(socket("tcp://127.0.0.1:2375").unwrap_err().contains("ssh"));
        assert!(socket("unix://x.sock").is_err());
        assert!(socket("").is_err());
    }

    #[tokio::test]
    async fn without_a_daemon_it_says_what_to_do() {
        let place = |path: &str| Place { socket: path.into(), namespace: String::new() };
        let absent = place("/nonexistent/corten.sock").connect().await.err().unwrap();
        assert!(absent.to_string().contains("systemctl start cortend"), "{absent}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let refused = place(path.to_str().unwrap()).connect().await.err().unwrap();
        assert!(refused.to_string().contains("nobody listens"), "{refused}");
    }
}
