//! rtnetlink: the messages for links, addresses and routes.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Attributes, Message, Reply, Socket};
use crate::{Errno, Result};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;

const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const AF_INET6: u16 = 10;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 2;
const IFA_F_PERMANENT: u32 = 0x80;

const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RTN_UNICAST: u8 = 1;

/// Bytes of `struct ifinfomsg`.
const LINK_HEADER_BYTES: usize = 16;
/// Bytes of `struct ifaddrmsg`.
const ADDRESS_HEADER_BYTES: usize = 8;

/// Hardware address of a link.
pub type Mac = [u8; 6];

/// A link, as the kernel tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Number within its network namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// `veth`, `bridge`; empty for hardware and `lo`.
    pub kind: String,
    /// Administratively up.
    pub up: bool,
    /// Hardware address.
    pub mac: Option<Mac>,
}

/// A veth pair that is to be made: one end here, one inside a pod.
#[derive(Debug, Clone, Copy)]
pub struct VethPair<'a> {
    /// Name of this end.
    pub name: &'a str,
    /// Bridge that this end joins.
    pub master: u32,
    /// Bytes of the largest packet; none for the kernel's default.
    pub mtu: Option<u32>,
    /// Network namespace of the other end.
    pub peer_namespace: BorrowedFd<'a>,
    /// Name of the other end.
    pub peer_name: &'a str,
    /// Hardware address of the other end.
    pub peer_mac: Mac,
}

/// Makes both ends in one request; this one joins the bridge and is up, the
/// other one is down. Fails with EEXIST when either name is taken.
pub fn create_veth(pair: &VethPair<'_>) -> Message {
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    let mut message = Message::new(RTM_NEWLINK, flags, &link_header(0, true))
        .does("make", format!("the veth pair {} and {} in the pod", pair.name, pair.peer_name));
    message.text(IFLA_IFNAME, pair.name).number(IFLA_MASTER, pair.master);
    if let Some(mtu) = pair.mtu {
        message.number(IFLA_MTU, mtu);
    }
    message.nested(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, |data| {
            data.nested(VETH_INFO_PEER, |peer| {
                // The far end can only be set up once the pair exists.
                peer.raw(&link_header(0, false));
                peer.text(IFLA_IFNAME, pair.peer_name);
                peer.attribute(IFLA_ADDRESS, &pair.peer_mac);
                peer.number(IFLA_NET_NS_FD, pair.peer_namespace.as_raw_fd() as u32);
                if let Some(mtu) = pair.mtu {
                    peer.number(IFLA_MTU, mtu);
                }
            });
        });
    });
    message
}

/// Lets a bridge send a frame back out of the port that it came from: where
/// `br_netfilter` is active, a pod reaches its own host port that way.
pub fn hairpin(name: &str) -> Message {
    let mut message = Message::new(RTM_NEWLINK, 0, &link_header(0, false))
        .does("set hairpin mode of", format!("the link {name}"));
    message.text(IFLA_IFNAME, name).nested(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_SLAVE_KIND, "bridge").nested(IFLA_INFO_SLAVE_DATA, |data| {
            data.byte(IFLA_BRPORT_MODE, 1);
        });
    });
    message
}

/// Keeps the kernel from giving a link that is still down (or has no other end
/// yet) an IPv6 address of its own.
pub fn no_own_address(name: &str) -> Message {
    let mut message = Message::new(RTM_NEWLINK, 0, &link_header(0, false))
        .does("make", format!("the link {name} one without an IPv6 address of its own"));
    message.text(IFLA_IFNAME, name).nested(IFLA_AF_SPEC, |families| {
        families.nested(AF_INET6, |v6| {
            v6.byte(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
        });
    });
    message
}

/// Makes a bridge, up, with a hardware address that stays the same whatever
/// joins it. Fails with EEXIST when the name is taken.
pub fn create_bridge(name: &str, mac: Mac, mtu: Option<u32>) -> Message {
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    let mut message = Message::new(RTM_NEWLINK, flags, &link_header(0, true))
        .does("make", format!("the bridge {name}"));
    message.text(IFLA_IFNAME, name).attribute(IFLA_ADDRESS, &mac);
    if let Some(mtu) = mtu {
        message.number(IFLA_MTU, mtu);
    }
    message.nested(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, "bridge").nested(IFLA_INFO_DATA, |data| {
            data.byte(IFLA_BR_MCAST_SNOOPING, 0);
        });
    });
    message
}

/// Sets a link up.
pub fn link_up(index: u32) -> Message {
    Message::new(RTM_NEWLINK, 0, &link_header(index, true))
        .does("set up", format!("link number {index}"))
}

/// Deletes a link. Slow (13–26 ms): not for the way of a pod.
pub fn delete_link(name: &str) -> Message {
    let mut message = Message::new(RTM_DELLINK, 0, &link_header(0, false))
        .does("delete", format!("the link {name}"));
    message.text(IFLA_IFNAME, name);
    message
}

/// Gives a link an address, without duplicate address detection, which would
/// keep it unusable for a second. Adding it again changes nothing.
pub fn add_address(index: u32, address: IpAddr, prefix: u8) -> Message {
    let mut header = [0u8; ADDRESS_HEADER_BYTES];
    header[0] = family(address);
    header[1] = prefix;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &header)
        .does("add", format!("the address {address}/{prefix} to link number {index}"));
    let bytes = octets(address);
    message.attribute(IFA_LOCAL, &bytes).attribute(IFA_ADDRESS, &bytes);
    message.number(IFA_FLAGS, IFA_F_NODAD | IFA_F_PERMANENT);
    message
}

/// Adds (or replaces) the default route of the gateway's family.
pub fn default_route(index: u32, gateway: IpAddr) -> Message {
    let header = [
        family(gateway),
        0,
        0,
        0,
        RT_TABLE_MAIN,
        RTPROT_STATIC,
        RT_SCOPE_UNIVERSE,
        RTN_UNICAST,
        0,
        0,
        0,
        0,
    ];
    let mut message = Message::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &header)
        .does("add", format!("the default route by {gateway}"));
    message.attribute(RTA_GATEWAY, &octets(gateway)).number(RTA_OIF, index);
    message
}

/// The number of a link, or none when there is no such link.
pub fn link_index(socket: &mut Socket, name: &str) -> Result<Option<u32>> {
    Ok(link(socket, name)?.map(|link| link.index))
}

/// A link by its name, or none when there is no such link.
pub fn link(socket: &mut Socket, name: &str) -> Result<Option<Link>> {
    let mut message = Message::new(RTM_GETLINK, 0, &link_header(0, false))
        .does("look up", format!("the link {name}"));
    message.text(IFLA_IFNAME, name);
    match socket.query(message, false) {
        Ok(replies) => Ok(replies.first().and_then(parse_link)),
        Err(error) if error.errno == Errno::NODEV => Ok(None),
        Err(error) => Err(error),
    }
}

/// All links of the socket's network namespace.
pub fn links(socket: &mut Socket) -> Result<Vec<Link>> {
    let message =
        Message::new(RTM_GETLINK, 0, &link_header(0, false)).does("list", "network links");
    Ok(socket.query(message, true)?.iter().filter_map(parse_link).collect())
}

/// All addresses of the socket's network namespace: link, address, prefix.
pub fn addresses(socket: &mut Socket) -> Result<Vec<(u32, IpAddr, u8)>> {
    let message =
        Message::new(RTM_GETADDR, 0, &[0; ADDRESS_HEADER_BYTES]).does("list", "network addresses");
    Ok(socket.query(message, true)?.iter().filter_map(parse_address).collect())
}

fn parse_link(reply: &Reply) -> Option<Link> {
    let index = u32::from_ne_bytes(reply.body.get(4..8)?.try_into().ok()?);
    let flags = u32::from_ne_bytes(reply.body.get(8..12)?.try_into().ok()?);
    let attributes = reply.attributes(LINK_HEADER_BYTES);
    let kind = attributes.inside(IFLA_LINKINFO).and_then(|info| info.text(IFLA_INFO_KIND));
    Some(Link {
        index,
        name: attributes.text(IFLA_IFNAME)?,
        kind: kind.unwrap_or_default(),
        up: flags & libc::IFF_UP as u32 != 0,
        mac: attributes.get(IFLA_ADDRESS).and_then(|bytes| bytes.try_into().ok()),
    })
}

fn parse_address(reply: &Reply) -> Option<(u32, IpAddr, u8)> {
    let prefix = *reply.body.get(1)?;
    let index = u32::from_ne_bytes(reply.body.get(4..8)?.try_into().ok()?);
    let attributes: Attributes<'_> = reply.attributes(ADDRESS_HEADER_BYTES);
    let bytes = attributes.get(IFA_LOCAL).or_else(|| attributes.get(IFA_ADDRESS))?;
    let address = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    Some((index, address, prefix))
}

fn link_header(index: u32, up: bool) -> [u8; LINK_HEADER_BYTES] {
    let mut header = [0u8; LINK_HEADER_BYTES];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    if up {
        let flag = (libc::IFF_UP as u32).to_ne_bytes();
        header[8..12].copy_from_slice(&flag);
        header[12..16].copy_from_slice(&flag);
    }
    header
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Family, in_network_namespace, make_namespace_set};
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_pair_a_bridge_an_address_and_a_route() {
        let host = make_namespace_set().unwrap();
        let pod = make_namespace_set().unwrap();
        let mut socket =
            in_network_namespace(host.net.as_fd(), || Socket::open(Family::Route)).unwrap();
        let mut inside =
            in_network_namespace(pod.net.as_fd(), || Socket::open(Family::Route)).unwrap();
        assert!(link(&mut socket, "lo").unwrap().unwrap().up);
        assert_eq!(link_index(&mut socket, "nothing").unwrap(), None);

        let mac = [2, 0, 0, 0, 0, 1];
        socket.request(vec![create_bridge("br", mac, None)]).unwrap();
        let again = socket.request(vec![create_bridge("br", mac, None)]).unwrap_err();
        assert_eq!(again.errno, Errno::EXIST);
        let bridge = link(&mut socket, "br").unwrap().unwrap();
        assert_eq!((bridge.kind.as_str(), bridge.up, bridge.mac), ("bridge", true, Some(mac)));

        let pair = VethPair {
            name: "left",
            master: bridge.index,
            mtu: Some(1400),
            peer_namespace: pod.net.as_fd(),
            peer_name: "eth0",
            peer_mac: [2, 0, 0, 0, 0, 9],
        };
        socket.request(vec![create_veth(&pair)]).unwrap();
        let eth0 = link(&mut inside, "eth0").unwrap().unwrap();
        assert_eq!((eth0.kind.as_str(), eth0.up), ("veth", false));
        let address = "10.1.2.3".parse().unwrap();
        let add = || vec![link_up(eth0.index), add_address(eth0.index, address, 24)];
        inside.request(add()).unwrap();
        inside.request(add()).unwrap();
        inside.request(vec![default_route(eth0.index, "10.1.2.1".parse().unwrap())]).unwrap();
        let unreachable = default_route(eth0.index, "192.0.2.1".parse().unwrap());
        let error = inside.request(vec![unreachable]).unwrap_err().to_string();
        assert!(error.contains("default route by 192.0.2.1 (Nexthop"), "{error}");
        assert!(addresses(&mut inside).unwrap().contains(&(eth0.index, address, 24)));
        socket.request(vec![delete_link("left")]).unwrap();
        assert!(!links(&mut inside).unwrap().iter().any(|link| link.name == "eth0"));
    }
}
