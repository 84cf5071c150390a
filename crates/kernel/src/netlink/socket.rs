//! A netlink socket: requests out, acknowledgements and dumps in.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::message::{Attributes, HEADER_BYTES, Message, NLM_F_ACK};
use crate::{Context, Error, Result};

/// The largest datagram that the kernel makes for us.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NFNL_SUBSYS_NFTABLES: u16 = 10;

/// Which part of the kernel a socket talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Links, addresses, routes.
    Route,
    /// nf_tables.
    Netfilter,
}

/// One message from the kernel: the family's header and the attributes.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The message type.
    pub kind: u16,
    /// What follows the netlink header.
    pub body: Vec<u8>,
}

impl Reply {
    /// The attributes that follow a fixed header of so many bytes.
    pub fn attributes(&self, header_bytes: usize) -> Attributes<'_> {
        Attributes(self.body.get(header_bytes..).unwrap_or(&[]))
    }
}

/// A netlink socket. It belongs for ever to the network namespace of the
/// thread that opened it, whatever thread uses it later.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open(family: Family) -> Result<Self> {
        let protocol = match family {
            Family::Route => None,
            Family::Netfilter => Some(netlink::NETFILTER),
        };
        let what = || format!("a netlink socket ({family:?})");
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )
        .context("open", what)?;
        // Both are there since Linux 4.12. CAP_ACK keeps our own bytes out of
        // the answers, EXT_ACK puts the kernel's explanation into them.
        for option in [libc::NETLINK_CAP_ACK, libc::NETLINK_EXT_ACK] {
            set_option(&fd, option).context("prepare", what)?;
        }
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0)).context("bind", what)?;
        Ok(Self { fd, sequence: 0, buffer: Vec::new() })
    }

    /// Sends requests in one datagram and sees each acknowledged. All are
    /// tried; the error is that of the first that failed.
    pub fn request(&mut self, mut messages: Vec<Message>) -> Result<()> {
        let first = self.sequence.wrapping_add(1);
        let mut datagram = Vec::new();
        for message in &mut messages {
            self.sequence = self.sequence.wrapping_add(1);
            datagram.extend_from_slice(message.finish(self.sequence, NLM_F_ACK));
        }
        self.send(&datagram)?;
        let mut failure = None;
        let wanted = messages.len();
        self.acknowledgements(wanted, |sequence, errno, text| {
            if errno != 0 && failure.is_none() {
                let index = sequence.wrapping_sub(first) as usize;
                failure = Some(explain(messages.get(index), errno, text));
            }
        })?;
        failure.map_or(Ok(()), Err)
    }

    /// Sends nf_tables requests as one transaction: all happen, or none.
    pub fn transaction(&mut self, mut messages: Vec<Message>) -> Result<()> {
        let edge = |kind| Message::new(kind, 0, &[0, 0, 0, NFNL_SUBSYS_NFTABLES as u8]);
        let first = self.sequence.wrapping_add(2);
        self.sequence = self.sequence.wrapping_add(1);
        let mut datagram = edge(NFNL_MSG_BATCH_BEGIN).finish(self.sequence, 0).to_vec();
        for message in &mut messages {
            self.sequence = self.sequence.wrapping_add(1);
            datagram.extend_from_slice(message.finish(self.sequence, NLM_F_ACK));
        }
        self.sequence = self.sequence.wrapping_add(1);
        datagram.extend_from_slice(edge(NFNL_MSG_BATCH_END).finish(self.sequence, 0));
        self.send(&datagram)?;
        let mut failure = None;
        let wanted = messages.len();
        let seen = self.acknowledgements(wanted, |sequence, errno, text| {
            if errno != 0 && failure.is_none() {
                let index = sequence.wrapping_sub(first) as usize;
                failure = Some(explain(messages.get(index), errno, text));
            }
        });
        failure.map_or(seen, Err)
    }

    /// Asks for one object, or for all that match when `NLM_F_DUMP` is wanted.
    pub fn query(&mut self, mut message: Message, dump: bool) -> Result<Vec<Reply>> {
        for _ in 0..8 {
            self.sequence = self.sequence.wrapping_add(1);
            let flags = if dump { NLM_F_DUMP } else { NLM_F_ACK };
            let datagram = message.finish(self.sequence, flags).to_vec();
            self.send(&datagram)?;
            if let Some(replies) = self.replies(&message)? {
                return Ok(replies);
            }
            // The table changed while it was being read: read it again.
        }
        Err(Error::new(message.verb, message.object, Errno::AGAIN))
    }

    /// Reads until the end of an answer; none when it was inconsistent.
    fn replies(&mut self, message: &Message) -> Result<Option<Vec<Reply>>> {
        let mut replies = Vec::new();
        let mut consistent = true;
        let sequence = self.sequence;
        loop {
            let received = self.receive()?;
            for raw in split(&self.buffer[..received]) {
                if raw.sequence != sequence {
                    continue;
                }
                consistent &= raw.flags & NLM_F_DUMP_INTR == 0;
                match raw.kind {
                    NLMSG_DONE => return Ok(consistent.then_some(replies)),
                    NLMSG_ERROR => {
                        let (errno, text) = raw.error();
                        if errno != 0 {
                            return Err(explain(Some(message), errno, text));
                        }
                        return Ok(consistent.then_some(replies));
                    }
                    kind => replies.push(Reply { kind, body: raw.body.to_vec() }),
                }
            }
        }
    }

    fn acknowledgements(
        &mut self,
        wanted: usize,
        mut each: impl FnMut(u32, i32, Option<String>),
    ) -> Result<()> {
        let mut seen = 0;
        while seen < wanted {
            let received = self.receive()?;
            for raw in split(&self.buffer[..received]) {
                if raw.kind == NLMSG_ERROR {
                    let (errno, text) = raw.error();
                    seen += 1;
                    each(raw.sequence, errno, text);
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, datagram: &[u8]) -> Result<()> {
        // Answers to an earlier request that failed half way are nobody's now.
        while self.receive().is_ok() {}
        loop {
            match rustix::net::send(&self.fd, datagram, SendFlags::empty()) {
                Err(Errno::INTR) => {}
                sent => {
                    return sent
                        .map(drop)
                        .context("send", || format!("{} bytes to netlink", datagram.len()));
                }
            }
        }
    }

    /// Reads one datagram. What the kernel has to say is there when `send`
    /// returns, so an empty queue is an error and not a reason to wait.
    fn receive(&mut self) -> Result<usize> {
        self.buffer.resize(DATAGRAM_BYTES_MAX, 0);
        loop {
            match rustix::net::recv(&self.fd, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Err(Errno::INTR) => {}
                received => {
                    return received
                        .map(|(bytes, _)| bytes)
                        .context("read", || "the answer of netlink");
                }
            }
        }
    }
}

fn set_option(fd: &OwnedFd, option: libc::c_int) -> rustix::io::Result<()> {
    let one: libc::c_int = 1;
    // SAFETY: the descriptor is open, and the pointer and the length describe
    // `one`, which lives until the call returns.
    let result = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const one).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

fn explain(message: Option<&Message>, errno: i32, text: Option<String>) -> Error {
    let (verb, mut object) = match message {
        Some(message) => (message.verb, message.object.clone()),
        None => ("commit", "a netlink transaction".to_owned()),
    };
    if let Some(text) = text {
        object = format!("{object} ({text})");
    }
    Error::new(verb, object, Errno::from_raw_os_error(errno))
}

/// One message as it lies in the buffer.
struct Raw<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

impl Raw<'_> {
    /// The errno (0 for success) and the kernel's explanation.
    fn error(&self) -> (i32, Option<String>) {
        let Some(code) = self.body.get(0..4).and_then(|bytes| bytes.try_into().ok()) else {
            return (libc::EPROTO, None);
        };
        let errno = i32::from_ne_bytes(code).saturating_neg();
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return (errno, None);
        }
        // After the code comes our own header, and our bytes if not capped.
        let mut skip = 4 + HEADER_BYTES;
        if self.flags & NLM_F_CAPPED == 0
            && let Some(length) = self.body.get(4..8).and_then(|bytes| bytes.try_into().ok())
        {
            skip = 4 + (u32::from_ne_bytes(length) as usize).next_multiple_of(4);
        }
        let text = Attributes(self.body.get(skip..).unwrap_or(&[])).text(NLMSGERR_ATTR_MSG);
        (errno, text)
    }
}

fn split(mut bytes: &[u8]) -> impl Iterator<Item = Raw<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.get(..HEADER_BYTES)?;
        let length = u32::from_ne_bytes(header[0..4].try_into().ok()?) as usize;
        let raw = Raw {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes(header[8..12].try_into().ok()?),
            body: bytes.get(HEADER_BYTES..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(raw)
    })
}
