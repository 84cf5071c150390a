//! The socket that clients connect to.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Root and its group; nobody else runs containers.
const MODE: u32 = 0o660;

/// Why the socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody answers there.
    #[error(
        "unable to listen on {}: {holder} already does; stop that one first, or choose another \
         socket",
        .path.display()
    )]
    InUse {
        /// The socket.
        path: PathBuf,
        /// `process <pid>`, as far as the kernel tells.
        holder: String,
    },
    /// Something else is there.
    #[error("unable to listen on {}: it exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// A system call failed.
    #[error("unable to {verb} {}: {source}", .path.display())]
    System {
        /// What was being done.
        verb: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Listens on `path`; takes the place of a socket that nobody serves.
pub async fn listen(path: &Path) -> Result<UnixListener, Error> {
    let failed = |verb| move |source| Error::System { verb, path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(failed("make the directory of"))?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => {
            if let Ok(stream) = UnixStream::connect(path).await {
                return Err(Error::InUse { path: path.to_owned(), holder: holder(&stream) });
            }
            std::fs::remove_file(path).map_err(failed("remove the stale socket"))?;
        }
        Ok(_) => return Err(Error::NotASocket(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("look at")(error)),
    }
    // Bound under another name and given its mode there: at no instant can
    // anybody else connect.
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    let listener = UnixListener::bind(&fresh).map_err(failed("listen on"))?;
    std::fs::set_permissions(&fresh, Permissions::from_mode(MODE))
        .map_err(failed("set the mode of"))?;
    std::fs::rename(&fresh, path).map_err(failed("put in place"))?;
    Ok(listener)
}

fn holder(stream: &UnixStream) -> String {
    match stream.peer_cred().ok().and_then(|peer| peer.pid()) {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_respected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/corten.sock");
        let first = listen(&path).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        let error = listen(&path).await.unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        let _second = listen(&path).await.unwrap();
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_file_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("corten.sock");
        std::fs::write(&path, "mine").unwrap();
        assert!(matches!(listen(&path).await, Err(Error::NotASocket(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }
}
