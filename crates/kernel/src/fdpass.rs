//! SEQPACKET sockets on paths: whole datagrams, descriptors with them.
//!
//! All sockets made here are non-blocking and close-on-exec; whoever holds one
//! waits for it with its own event loop.

use std::ffi::OsStr;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use corten_base::limits::FRAME_FDS_MAX;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::{Context, Result};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 16;

/// Bytes of control data for one frame's descriptors.
const CONTROL_BYTES: usize = rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX));

/// Listens on `path`, which must not exist yet. Paths of any length work.
pub fn listen(path: &Path) -> Result<OwnedFd> {
    listen_as(SocketType::SEQPACKET, path)
}

fn listen_as(kind: SocketType, path: &Path) -> Result<OwnedFd> {
    let listen = || {
        let socket = new_socket(kind)?;
        with_address(path, |address| rustix::net::bind(&socket, address))?;
        rustix::net::listen(&socket, BACKLOG).map(|()| socket)
    };
    listen().context("listen on", || path.display().to_string())
}

/// The same for a stream, as the console sockets of OCI runtimes are.
/// [`accept`] and [`recv`] work on it, where each message is awaited.
pub fn listen_stream(path: &Path) -> Result<OwnedFd> {
    listen_as(SocketType::STREAM, path)
}

/// Connects to the socket at `path`. Paths of any length work.
pub fn connect(path: &Path) -> Result<OwnedFd> {
    let connect = || {
        let socket = new_socket(SocketType::SEQPACKET)?;
        with_address(path, |address| rustix::net::connect(&socket, address)).map(|()| socket)
    };
    connect().context("connect to", || path.display().to_string())
}

/// Accepts one waiting connection; `EAGAIN` when there is none.
pub fn accept(listener: BorrowedFd<'_>) -> std::result::Result<OwnedFd, Errno> {
    rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
}

/// Two connected sockets.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .context("make", || "a pair of sockets")
}

/// Sends one datagram with descriptors. `EAGAIN` when the peer is slow,
/// `EPIPE` (and no signal) when it is gone, `EINVAL` for more than
/// [`FRAME_FDS_MAX`] descriptors or an empty datagram, which would look like
/// the end of the connection.
pub fn send(
    socket: BorrowedFd<'_>,
    frame: &[u8],
    fds: &[BorrowedFd<'_>],
) -> std::result::Result<(), Errno> {
    if frame.is_empty() || fds.len() > FRAME_FDS_MAX {
        return Err(Errno::INVAL);
    }
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let sent = retry(|| rustix::net::sendmsg(socket, &[IoSlice::new(frame)], &mut control, flags))?;
    // A SEQPACKET socket takes a datagram whole or not at all.
    if sent == frame.len() { Ok(()) } else { Err(Errno::MSGSIZE) }
}

/// Receives one datagram: its length, 0 at the end of the connection. Its
/// descriptors (close-on-exec) are added to `fds`. A datagram that is longer
/// than `buffer`, or brings more than `fds_max` descriptors, is dropped with
/// its descriptors: `EMSGSIZE`.
pub fn recv(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
    fds_max: usize,
) -> std::result::Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = retry(|| {
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)
    })?;
    let before = fds.len();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let cut = received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    if cut || fds.len() - before > fds_max {
        fds.truncate(before);
        return Err(Errno::MSGSIZE);
    }
    Ok(received.bytes)
}

fn retry<T>(
    mut call: impl FnMut() -> std::result::Result<T, Errno>,
) -> std::result::Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

fn new_socket(kind: SocketType) -> std::result::Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)
}

/// A socket's address holds 107 bytes of path. Where the path is longer, it is
/// named through a descriptor of its directory.
fn with_address<T>(
    path: &Path,
    call: impl FnOnce(&SocketAddrUnix) -> std::result::Result<T, Errno>,
) -> std::result::Result<T, Errno> {
    match SocketAddrUnix::new(path) {
        Ok(address) => call(&address),
        Err(Errno::NAMETOOLONG) => {
            let parent = path.parent().ok_or(Errno::INVAL)?;
            let name: &OsStr = path.file_name().ok_or(Errno::INVAL)?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory = rustix::fs::open(parent, flags, Mode::empty())?;
            let mut short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
            short.push(name);
            call(&SocketAddrUnix::new(&short)?)
        }
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_datagram_arrives_whole_with_its_descriptors() {
        let (a, b) = pair().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        send(a.as_fd(), b"hello", &[write.as_fd(), write.as_fd()]).unwrap();
        drop(write);
        let (mut buffer, mut fds) = ([0; 16], Vec::new());
        assert_eq!(recv(b.as_fd(), &mut buffer, &mut fds, FRAME_FDS_MAX), Ok(5));
        assert_eq!((&buffer[..5], fds.len()), (&b"hello"[..], 2));
        assert!(rustix::io::fcntl_getfd(&fds[0]).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        rustix::io::write(&fds[1], b"x").unwrap();
        assert_eq!(rustix::io::read(&read, &mut buffer), Ok(1));
        assert_eq!(recv(b.as_fd(), &mut buffer, &mut fds, 1), Err(Errno::AGAIN));
        drop(a);
        assert_eq!(recv(b.as_fd(), &mut buffer, &mut fds, 1), Ok(0));
        assert_eq!(send(b.as_fd(), b"x", &[]), Err(Errno::PIPE));
    }

    #[test]
    fn what_is_too_large_is_dropped() {
        let (a, b) = pair().unwrap();
        let (mut buffer, mut fds) = ([0; 4], Vec::new());
        send(a.as_fd(), b"hello", &[a.as_fd()]).unwrap();
        assert_eq!(recv(b.as_fd(), &mut buffer, &mut fds, 9), Err(Errno::MSGSIZE));
        send(a.as_fd(), b"1234", &[a.as_fd(), a.as_fd()]).unwrap();
        assert_eq!(recv(b.as_fd(), &mut buffer, &mut fds, 1), Err(Errno::MSGSIZE));
        assert!(fds.is_empty());
        let many = vec![a.as_fd(); FRAME_FDS_MAX];
        send(a.as_fd(), b"1234", &many).unwrap();
        assert_eq!(recv(b.as_fd(), &mut buffer, &mut fds, FRAME_FDS_MAX), Ok(4));
        assert_eq!(fds.len(), FRAME_FDS_MAX);
        let many = vec![a.as_fd(); FRAME_FDS_MAX + 1];
        assert_eq!(send(a.as_fd(), b"1234", &many), Err(Errno::INVAL));
    }

    #[test]
    fn long_paths_work() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = temporary.path().join("d".repeat(200));
        std::fs::create_dir(&directory).unwrap();
        for name in ["short".to_owned(), "s".repeat(70)] {
            let path = directory.join(name);
            let listener = listen(&path).unwrap();
            assert_eq!(accept(listener.as_fd()).unwrap_err(), Errno::AGAIN);
            let client = connect(&path).unwrap();
            let server = accept(listener.as_fd()).unwrap();
            send(client.as_fd(), b"x", &[]).unwrap();
            let mut buffer = [0; 4];
            assert_eq!(recv(server.as_fd(), &mut buffer, &mut Vec::new(), 0), Ok(1));
            assert_eq!(listen(&path).unwrap_err().errno, Errno::ADDRINUSE);
        }
    }
}
