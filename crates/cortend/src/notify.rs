//! Tells systemd how the daemon is (`sd_notify`): one datagram to a socket
//! that systemd names in the environment.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where systemd listens.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// The daemon serves.
pub fn ready() {
    send("READY=1\nSTATUS=serving");
}

/// The daemon is on its way out.
pub fn stopping() {
    send("STOPPING=1\nSTATUS=finishing what was asked");
}

fn send(text: &str) {
    let Some(path) = std::env::var_os(VARIABLE) else { return };
    if let Err(error) = send_to(path.as_os_str().as_bytes(), text) {
        let path = String::from_utf8_lossy(&path.into_vec()).into_owned();
        tracing::warn!(path, %error, "unable to tell systemd how we are");
    }
}

/// A name that begins with `@` is in the abstract namespace.
fn send_to(path: &[u8], text: &str) -> std::io::Result<()> {
    let address = match path.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 100];
        let count = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }

    #[test]
    fn both_kinds_of_sockets_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        send_to(path.as_os_str().as_bytes(), "READY=1").unwrap();
        assert_eq!(received(&socket), "READY=1");

        let name = format!("corten-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        send_to(format!("@{name}").as_bytes(), "STOPPING=1").unwrap();
        assert_eq!(received(&socket), "STOPPING=1");
    }
}
