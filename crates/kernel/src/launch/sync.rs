//! The words between a child on its way and its parent: one SEQPACKET
//! datagram each, twelve bytes up, one byte down.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::process::Pid;

use super::Message;

/// A word of the child, as it goes over the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// The first word of a child that an intermediate made. What it is called
    /// among its parent's processes, the kernel says.
    Born,
    Created,
    HookPoint(u8),
    Warning {
        step: u32,
        errno: i32,
    },
    Failed {
        step: u32,
        errno: i32,
    },
    ConsoleMaster,
}

const LENGTH: usize = 12;

impl Word {
    fn encode(self) -> [u8; LENGTH] {
        let (kind, first, second): (u32, u32, i32) = match self {
            Word::Born => (1, 0, 0),
            Word::Created => (2, 0, 0),
            Word::HookPoint(point) => (3, u32::from(point), 0),
            Word::Warning { step, errno } => (4, step, errno),
            Word::Failed { step, errno } => (5, step, errno),
            Word::ConsoleMaster => (6, 0, 0),
        };
        let [a, b, c, d] = kind.to_ne_bytes();
        let [e, f, g, h] = first.to_ne_bytes();
        let [i, j, k, l] = second.to_ne_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l]
    }

    fn decode(bytes: [u8; LENGTH]) -> Option<Self> {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        let first = u32::from_ne_bytes([e, f, g, h]);
        let second = i32::from_ne_bytes([i, j, k, l]);
        Some(match u32::from_ne_bytes([a, b, c, d]) {
            1 => Word::Born,
            2 => Word::Created,
            3 => Word::HookPoint(first as u8),
            4 => Word::Warning { step: first, errno: second },
            5 => Word::Failed { step: first, errno: second },
            6 => Word::ConsoleMaster,
            _ => return None,
        })
    }
}

/// The two ends: parent's and child's.
pub(super) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Parent: from now on the kernel says who each word is from.
pub(super) fn name_senders(ours: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::net::sockopt::set_socket_passcred(ours, true)
}

/// What the parent hears.
pub(super) struct Heard {
    pub word: Word,
    /// The descriptor that came with it.
    pub fd: Option<OwnedFd>,
    /// Who said it, after [`name_senders`].
    pub pid: Option<Pid>,
}

/// Child: says a word. Allocates nothing.
pub(super) fn say(socket: BorrowedFd<'_>, word: Word) -> Result<(), Errno> {
    loop {
        match rustix::net::send(socket, &word.encode(), SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Child: sends the master of the console.
pub(super) fn send_master(socket: BorrowedFd<'_>, master: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [master];
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    let bytes = Word::ConsoleMaster.encode();
    rustix::net::sendmsg(socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The parent says: go on.
pub(super) const GO: u8 = 2;

/// Child: waits for this word of the parent; others are passed over. A parent
/// that is gone is an error.
pub(super) fn await_word(socket: BorrowedFd<'_>, word: u8) -> Result<(), Errno> {
    let mut byte = [0u8; 1];
    loop {
        match rustix::net::recv(socket, &mut byte[..], RecvFlags::empty()) {
            Ok((0, _)) => return Err(Errno::CONNRESET),
            Ok(_) if byte == [word] => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Parent: says a word to the child.
pub(super) fn tell(socket: BorrowedFd<'_>, word: u8) -> Result<(), Errno> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::send(socket, &[word], flags).map(drop)
}

/// Parent: one word; `Ok(None)` at the end, `Err(AGAIN)` when there is nothing
/// yet.
pub(super) fn listen(socket: BorrowedFd<'_>) -> Result<Option<Heard>, Errno> {
    let mut bytes = [0u8; LENGTH];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1), ScmCredentials(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        match rustix::net::recvmsg(socket, &mut parts, &mut ancillary, flags) {
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Ok(None),
            other => break other?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let (mut fd, mut pid) = (None, None);
    for message in ancillary.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(fds) => fd = fds.last().or(fd),
            RecvAncillaryMessage::ScmCredentials(sender) => pid = Some(sender.pid),
            _ => {}
        }
    }
    if received.bytes != LENGTH {
        return Err(Errno::PROTO);
    }
    let word = Word::decode(bytes).ok_or(Errno::PROTO)?;
    Ok(Some(Heard { word, fd, pid }))
}

/// Parent: the next message, or none if there is none yet.
pub(super) fn receive(socket: BorrowedFd<'_>) -> Result<Option<Message>, Errno> {
    let Heard { word, fd, .. } = match listen(socket) {
        Ok(Some(heard)) => heard,
        Ok(None) => return Ok(Some(Message::Closed)),
        Err(Errno::AGAIN) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    Ok(Some(match word {
        Word::Created => Message::Created,
        Word::HookPoint(point) => Message::HookPoint { point },
        Word::Warning { step, errno } => Message::Warning { step, errno },
        Word::Failed { step, errno } => Message::Failed { step, errno },
        Word::ConsoleMaster => Message::ConsoleMaster(fd.ok_or(Errno::PROTO)?),
        Word::Born => return Err(Errno::PROTO),
    }))
}
