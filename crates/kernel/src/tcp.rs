//! Connecting by TCP without waiting, for who waits elsewhere.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::{Context, Result};

/// Begins to connect, in the network namespace of this thread. The socket is
/// non-blocking; it becomes writable when [`outcome`] knows more.
pub fn begin(address: SocketAddr) -> Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let begin = || {
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
            Err(errno) => Err(errno),
        }
    };
    begin().context("connect to", || address.to_string())
}

/// What became of a connection, once its socket is writable.
pub fn outcome(socket: impl AsFd) -> std::result::Result<(), Errno> {
    sockopt::socket_error(socket)?
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    fn connect(address: SocketAddr) -> std::result::Result<(), Errno> {
        let socket = begin(address).map_err(|error| error.errno)?;
        crate::stream::wait_writable(&socket);
        outcome(&socket)
    }

    #[test]
    fn a_listener_is_reached_and_nobody_is_not() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(connect(address), Ok(()));
        // A port that is taken, and at which nobody listens: one that was given
        // back may be another's, and a child of another test may still have it.
        let (family, kind) = (AddressFamily::INET, SocketType::STREAM);
        let taken = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::bind(&taken, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = rustix::net::getsockname(&taken).unwrap().try_into().unwrap();
        assert_eq!(connect(address), Err(Errno::CONNREFUSED));
    }
}
