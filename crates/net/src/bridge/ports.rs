//! Host ports: one map element for each, and who has which.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use corten_kernel::Errno;
use corten_kernel::netlink::{Attributes, Socket};
use corten_spec::request::{PortMapping, Protocol};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use super::nft::{self, Version, octets};
use super::rules::{MAPS, map_name};
use crate::error::protocol_name;
use crate::{Error, Result};

/// Bytes of `struct nfgenmsg`.
const HEADER_BYTES: usize = 4;

/// A host port that leads to a pod, as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element {
    version: Version,
    /// Host address; none for all of them.
    host: Option<IpAddr>,
    protocol: u8,
    port: u16,
    /// Address of the pod.
    pub(super) pod: IpAddr,
    pod_port: u16,
}

impl Element {
    /// The elements that a mapping needs for a pod with these addresses.
    pub(super) fn of(mapping: &PortMapping, pod: &[IpAddr]) -> Result<Vec<Self>> {
        let bad = |reason: String| Error::BadPort {
            port: mapping.host_port,
            protocol: protocol_name(mapping.protocol),
            reason,
        };
        if mapping.container_port == 0 {
            return Err(bad("the container port is missing".to_owned()));
        }
        let host: Option<IpAddr> = match mapping.host_ip.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| bad(format!("{text:?} is no address")))?),
        };
        let matching = |address: &&IpAddr| host.is_none_or(|h| h.is_ipv4() == address.is_ipv4());
        let elements: Vec<Self> = pod
            .iter()
            .filter(matching)
            .map(|address| Self {
                version: Version::of(*address),
                host: host.filter(|host| !host.is_unspecified()),
                protocol: protocol_number(mapping.protocol),
                port: mapping.host_port,
                pod: *address,
                pod_port: mapping.container_port,
            })
            .collect();
        if elements.is_empty() {
            let reason = format!("the pod has no address of the family of {}", mapping.host_ip);
            return Err(bad(reason));
        }
        Ok(elements)
    }

    /// Whether both want the same packets.
    fn conflicts(&self, other: &Self) -> bool {
        self.version == other.version
            && self.protocol == other.protocol
            && self.port == other.port
            && (self.host == other.host || self.host.is_none() || other.host.is_none())
    }

    fn map(&self) -> &'static str {
        map_name(self.version, self.host.is_some())
    }

    fn key(&self) -> Vec<u8> {
        let mut key = self.host.map(octets).unwrap_or_default();
        key.extend([self.protocol, 0, 0, 0]);
        key.extend(self.port.to_be_bytes());
        key.extend([0, 0]);
        key
    }

    fn value(&self) -> Vec<u8> {
        let mut value = octets(self.pod);
        value.extend(self.pod_port.to_be_bytes());
        value.extend([0, 0]);
        value
    }

    fn parse(version: Version, bound: bool, element: Attributes<'_>) -> Option<Self> {
        let key = element.inside(1)?.get(1)?;
        let value = element.inside(2)?.get(1)?;
        let address_bytes = version.bytes() as usize;
        let (host, key) = match bound {
            true => (Some(address(key.get(..address_bytes)?)?), key.get(address_bytes..)?),
            false => (None, key),
        };
        let port = |bytes: &[u8]| Some(u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?));
        Some(Self {
            version,
            host,
            protocol: *key.first()?,
            port: port(key.get(4..)?)?,
            pod: address(value.get(..address_bytes)?)?,
            pod_port: port(value.get(address_bytes..)?)?,
        })
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

/// All host ports that the kernel has in our table; none without the table.
pub(super) fn list(socket: &mut Socket, table: &str) -> Result<Vec<Element>> {
    let mut elements = Vec::new();
    for (version, bound) in MAPS {
        let replies = match socket.query(nft::get_elements(table, map_name(version, bound)), true) {
            Err(error) if error.errno == Errno::NOENT => continue,
            replies => replies?,
        };
        for reply in &replies {
            let Some(list) = reply.attributes(HEADER_BYTES).inside(3) else { continue };
            let parse = |(_, bytes)| Element::parse(version, bound, Attributes(bytes));
            elements.extend(list.filter_map(parse));
        }
    }
    Ok(elements)
}

/// Adds the elements of one pod, all or none. `owner` names who has a pod
/// address, or is none for an address that nobody has.
pub(super) fn add(
    socket: &mut Socket,
    table: &str,
    wanted: &[Element],
    owner: impl Fn(IpAddr) -> Option<String>,
) -> Result<()> {
    let existing = list(socket, table)?;
    let mut messages = Vec::new();
    for element in wanted {
        let mut known = false;
        for other in existing.iter().filter(|other| other.conflicts(element)) {
            if other == element {
                known = true;
            } else if let Some(owner) = owner(other.pod).filter(|_| other.pod != element.pod) {
                return Err(taken(element, owner));
            } else {
                // Left over from a pod that is no more.
                messages.push(nft::delete_element(table, other.map(), &other.key()));
            }
        }
        if !known {
            check_host(element)?;
            messages.push(nft::add_element(table, element.map(), &element.key(), &element.value()));
        }
    }
    for (index, element) in wanted.iter().enumerate() {
        if wanted[..index].iter().any(|other| other.conflicts(element)) {
            return Err(taken(element, "another mapping of the same pod".to_owned()));
        }
    }
    if messages.is_empty() {
        return Ok(());
    }
    Ok(socket.transaction(messages)?)
}

/// Removes the elements that `which` picks. Elements that are gone are fine.
pub(super) fn remove(
    socket: &mut Socket,
    table: &str,
    which: impl Fn(&Element) -> bool,
) -> Result<()> {
    let elements = list(socket, table)?;
    let mut deletions: Vec<_> = elements
        .iter()
        .filter(|element| which(element))
        .map(|element| nft::delete_element(table, element.map(), &element.key()))
        .collect();
    if deletions.is_empty() {
        return Ok(());
    }
    // All at once: a transaction waits for the clean-up after the one before,
    // which takes the kernel some 10 ms.
    match socket.transaction(deletions.clone()) {
        // Somebody else removed one of them meanwhile.
        Err(error) if error.errno == Errno::NOENT => {}
        removed => return Ok(removed?),
    }
    for deletion in deletions.drain(..) {
        match socket.transaction(vec![deletion]) {
            Err(error) if error.errno == Errno::NOENT => {}
            removed => removed?,
        }
    }
    Ok(())
}

/// A port that a process of the host listens on would be taken from it without
/// a word: refuse. (The port is not reserved afterwards.)
fn check_host(element: &Element) -> Result<()> {
    let (kind, protocol) = match element.protocol {
        6 => (SocketType::STREAM, ipproto::TCP),
        17 => (SocketType::DGRAM, ipproto::UDP),
        _ => return Ok(()),
    };
    let (family, any) = match element.version {
        Version::V4 => (AddressFamily::INET, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        Version::V6 => (AddressFamily::INET6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    };
    let probe = || -> rustix::io::Result<()> {
        let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol))?;
        if element.protocol == 6 {
            // Connections that are being closed are no reason to refuse.
            sockopt::set_socket_reuseaddr(&socket, true)?;
        }
        if element.version == Version::V6 {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        rustix::net::bind(&socket, &SocketAddr::new(element.host.unwrap_or(any), element.port))
    };
    match probe() {
        Err(Errno::ADDRINUSE) => Err(taken(element, "a process of this machine".to_owned())),
        Err(Errno::ADDRNOTAVAIL) if element.host.is_some() => Err(Error::BadPort {
            port: element.port,
            protocol: number_name(element.protocol),
            reason: format!(
                "this machine has no address {}",
                element.host.map(|host| host.to_string()).unwrap_or_default()
            ),
        }),
        // Whatever else keeps us from asking does not keep packets away.
        _ => Ok(()),
    }
}

fn taken(element: &Element, owner: String) -> Error {
    Error::PortTaken { port: element.port, protocol: number_name(element.protocol), owner }
}

fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

fn number_name(number: u8) -> &'static str {
    match number {
        6 => protocol_name(Protocol::Tcp),
        17 => protocol_name(Protocol::Udp),
        _ => protocol_name(Protocol::Sctp),
    }
}
