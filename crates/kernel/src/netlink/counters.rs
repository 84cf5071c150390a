//! What went through the links of another network namespace.
//!
//! Nobody enters it: the kernel is told of the namespace by a descriptor, gives
//! it a number, and lists its links by that number. So one socket serves all
//! pods, and none of them is held alive by it.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Attributes, Message, Reply, Socket};
use crate::Result;

const RTM_GETLINK: u16 = 18;
const RTM_NEWNSID: u16 = 88;
const RTM_GETNSID: u16 = 90;

const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
/// As the number asked for: any that is free.
const NSID_ANY: u32 = u32::MAX;

const IFLA_IFNAME: u16 = 3;
const IFLA_STATS64: u16 = 23;
const IFLA_TARGET_NETNSID: u16 = 46;

/// Bytes of `struct rtgenmsg`, padded.
const NAMESPACE_HEADER_BYTES: usize = 4;
/// Bytes of `struct ifinfomsg`.
const LINK_HEADER_BYTES: usize = 16;

/// A link and what went through it since it was made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkCounters {
    /// Name.
    pub name: String,
    /// `lo`.
    pub loopback: bool,
    /// What came in.
    pub received: Counters,
    /// What went out.
    pub sent: Counters,
}

/// One direction of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets that were damaged.
    pub errors: u64,
    /// Packets that were thrown away.
    pub dropped: u64,
}

/// The links of a network namespace. The socket (of rtnetlink) is in ours.
pub fn link_counters(socket: &mut Socket, netns: BorrowedFd<'_>) -> Result<Vec<LinkCounters>> {
    let number = namespace_number(socket, netns)?;
    let mut message = Message::new(RTM_GETLINK, 0, &[0; LINK_HEADER_BYTES])
        .does("list", "the links of a network namespace");
    message.number(IFLA_TARGET_NETNSID, number);
    Ok(socket.query(message, true)?.iter().filter_map(parse).collect())
}

/// The number that our namespace knows the other one by; it gets one.
fn namespace_number(socket: &mut Socket, netns: BorrowedFd<'_>) -> Result<u32> {
    let message = |kind| {
        let mut message = Message::new(kind, 0, &[0; NAMESPACE_HEADER_BYTES])
            .does("number", "a network namespace");
        message.number(NETNSA_FD, netns.as_raw_fd() as u32);
        message
    };
    let known = |socket: &mut Socket| -> Result<Option<u32>> {
        let replies = socket.query(message(RTM_GETNSID), false)?;
        let number = |reply: &Reply| reply.attributes(NAMESPACE_HEADER_BYTES).number(NETNSA_NSID);
        Ok(replies.first().and_then(number).filter(|number| *number != NSID_ANY))
    };
    if let Some(number) = known(socket)? {
        return Ok(number);
    }
    let mut new = message(RTM_NEWNSID);
    new.number(NETNSA_NSID, NSID_ANY);
    match socket.request(vec![new]) {
        // Somebody else was quicker.
        Err(error) if error.errno != crate::Errno::EXIST => return Err(error),
        Ok(()) | Err(_) => {}
    }
    known(socket)?
        .ok_or_else(|| crate::Error::new("number", "a network namespace", crate::Errno::NOENT))
}

fn parse(reply: &Reply) -> Option<LinkCounters> {
    let flags = u32::from_ne_bytes(reply.body.get(8..12)?.try_into().ok()?);
    let attributes: Attributes<'_> = reply.attributes(LINK_HEADER_BYTES);
    let stats = attributes.get(IFLA_STATS64)?;
    // struct rtnl_link_stats64: received and sent by turns.
    let field = |index: usize| -> Option<u64> {
        Some(u64::from_ne_bytes(stats.get(index * 8..index * 8 + 8)?.try_into().ok()?))
    };
    let direction = |offset: usize| -> Option<Counters> {
        Some(Counters {
            packets: field(offset)?,
            bytes: field(offset + 2)?,
            errors: field(offset + 4)?,
            dropped: field(offset + 6)?,
        })
    };
    Some(LinkCounters {
        name: attributes.text(IFLA_IFNAME)?,
        loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
        received: direction(0)?,
        sent: direction(1)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Family, in_network_namespace, make_namespace_set};
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    #[test]
    fn what_another_namespace_sent_is_counted() {
        let pod = make_namespace_set().unwrap();
        let mut socket = Socket::open(Family::Route).unwrap();
        let mut count = || {
            let links = link_counters(&mut socket, pod.net.as_fd()).unwrap();
            links.into_iter().find(|link| link.loopback).unwrap()
        };
        assert_eq!(count().name, "lo");
        let before = count();
        in_network_namespace(pod.net.as_fd(), || {
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            sender.send_to(&[0; 1000], "127.0.0.1:9").unwrap();
            Ok(())
        })
        .unwrap();
        let after = count();
        assert!(after.sent.bytes >= before.sent.bytes + 1000, "{after:?}");
        assert!(after.received.packets > before.received.packets, "{after:?}");
    }
}
