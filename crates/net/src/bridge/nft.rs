//! nf_tables messages: tables, chains, rules, maps and their elements.
//!
//! Only what the bridge needs. A rule is a row of expressions that load
//! registers, compare them and act; registers are numbered in 4-byte units
//! from 8 (16-byte units from 1), as the kernel does.

use std::net::IpAddr;

use corten_kernel::netlink::Message;

use crate::IpNet;

/// `NFPROTO_INET`: the table sees IPv4 and IPv6.
const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
/// `NFPROTO_BRIDGE`: the table sees what bridges pass on.
const NFPROTO_BRIDGE: u8 = 7;
const NFPROTO_IPV6: u8 = 10;

const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;

const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_DELRULE: u16 = 8;
const NFT_MSG_NEWSET: u16 = 9;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_GETSETELEM: u16 = 13;
const NFT_MSG_DELSETELEM: u16 = 14;

/// Attributes inside a list are all of this type.
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_DATA_VALUE: u16 = 1;
const NFT_SET_MAP: u32 = 0x8;

/// The first register, 16 bytes: keys are put together from here on.
pub(super) const KEY: u32 = 8;
/// The ninth register: what a map gives is put from here on.
pub(super) const VALUE: u32 = 16;

/// Types of keys and values as the `nft` program names them; the kernel only
/// keeps them. Concatenated types are put together in units of six bits.
mod datatype {
    pub const IPV4: u32 = 7;
    pub const IPV6: u32 = 8;
    pub const PROTOCOL: u32 = 12;
    pub const PORT: u32 = 13;
}

/// What a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Packets of IPv4 and IPv6 that this machine routes, or is an end of.
    Inet,
    /// Frames on all bridges.
    Bridge,
}

/// Where a chain hangs in the kernel's path of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hook {
    /// `nat` or `filter`.
    pub kind: &'static str,
    /// `NF_INET_…`.
    pub number: u32,
    /// Lower comes first.
    pub priority: i32,
}

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Version {
    pub(super) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Bytes of an address.
    pub(super) fn bytes(self) -> u32 {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }

    fn protocol(self) -> u8 {
        match self {
            Self::V4 => NFPROTO_IPV4,
            Self::V6 => NFPROTO_IPV6,
        }
    }

    fn datatype(self) -> u32 {
        match self {
            Self::V4 => datatype::IPV4,
            Self::V6 => datatype::IPV6,
        }
    }

    /// Where the source address lies in the header; the destination follows it.
    fn source_offset(self) -> u32 {
        match self {
            Self::V4 => 12,
            Self::V6 => 8,
        }
    }
}

/// One expression of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    /// Go on with packets of this IP version.
    Is(Version),
    /// Load the destination address into a register.
    LoadDestination(Version, u32),
    /// Load the transport protocol into a register.
    LoadProtocol(u32),
    /// Load the destination port into a register.
    LoadPort(u32),
    /// Go on where the source (or else the destination) lies in the network.
    InNetwork { source: bool, network: IpNet },
    /// Go on where the source (or else the destination) does not.
    NotInNetwork { source: bool, network: IpNet },
    /// Go on where the destination is an address of this machine.
    DestinationIsLocal,
    /// Go on where the packet comes in by the link.
    InputIs(String),
    /// Go on where the packet goes out by the link.
    OutputIs(String),
    /// Go on where the packet goes out by another link.
    OutputIsNot(String),
    /// Go on where the connection's destination was rewritten.
    WasRedirected,
    /// Look the key up; go on where it is there, with its value.
    Lookup(String),
    /// Rewrite the destination to the address and port that were looked up.
    Redirect(Version),
    /// Rewrite the source to that of the outgoing link.
    Masquerade,
    /// Go on where the packet comes in by a link whose name begins so.
    InputBegins(&'static str),
    /// Go on with a message of ICMPv6 of a type from the first to the last.
    Icmp6Within(u8, u8),
    /// Drop the packet.
    Drop,
}

impl Expression {
    fn write(&self, list: &mut Message) {
        match self {
            Self::Is(version) => {
                load_meta(list, 15, 8);
                compare(list, 8, 0, &[version.protocol()]);
            }
            Self::LoadDestination(version, register) => {
                let offset = version.source_offset() + version.bytes();
                load_payload(list, 1, offset, version.bytes(), *register);
            }
            Self::LoadProtocol(register) => load_meta(list, 16, *register),
            Self::LoadPort(register) => load_payload(list, 2, 2, 2, *register),
            Self::InNetwork { source, network } => in_network(list, *source, *network, 0),
            Self::NotInNetwork { source, network } => in_network(list, *source, *network, 1),
            Self::DestinationIsLocal => {
                // The type of the destination address; RTN_LOCAL is 2.
                expression(list, "fib", |data| {
                    data.big_endian(1, 8).big_endian(2, 3).big_endian(3, 2);
                });
                compare(list, 8, 0, &2u32.to_ne_bytes());
            }
            Self::InputIs(name) => compare_name(list, 6, name, 0),
            Self::OutputIs(name) => compare_name(list, 7, name, 0),
            Self::OutputIsNot(name) => compare_name(list, 7, name, 1),
            Self::WasRedirected => {
                // Status bit IPS_DST_NAT.
                expression(list, "ct", |data| {
                    data.big_endian(1, 8).big_endian(2, 2);
                });
                mask(list, 8, &0x20u32.to_ne_bytes());
                compare(list, 8, 1, &[0; 4]);
            }
            Self::Lookup(map) => expression(list, "lookup", |data| {
                data.text(1, map).big_endian(2, KEY).big_endian(3, VALUE);
            }),
            Self::Redirect(version) => redirect(list, *version),
            Self::Masquerade => expression(list, "masq", |_| {}),
            Self::InputBegins(prefix) => {
                load_meta(list, 6, 8);
                compare(list, 8, 0, prefix.as_bytes());
            }
            Self::Icmp6Within(first, last) => {
                load_meta(list, 16, 8);
                compare(list, 8, 0, &[58]);
                load_payload(list, 2, 0, 1, 8);
                compare(list, 8, 5, &[*first]);
                compare(list, 8, 3, &[*last]);
            }
            Self::Drop => expression(list, "immediate", |data| {
                data.big_endian(1, 0).nested(2, |value| {
                    value.nested(2, |verdict| {
                        verdict.big_endian(1, 0);
                    });
                });
            }),
        }
    }
}

fn expression(list: &mut Message, name: &str, fill: impl FnOnce(&mut Message)) {
    list.nested(NFTA_LIST_ELEM, |element| {
        element.text(1, name).nested(2, fill);
    });
}

fn load_meta(list: &mut Message, key: u32, register: u32) {
    expression(list, "meta", |data| {
        data.big_endian(1, register).big_endian(2, key);
    });
}

/// `base` 1 is the network header, 2 the transport header.
fn load_payload(list: &mut Message, base: u32, offset: u32, bytes: u32, register: u32) {
    expression(list, "payload", |data| {
        data.big_endian(1, register).big_endian(2, base).big_endian(3, offset).big_endian(4, bytes);
    });
}

/// `operator` 0 is equal, 1 is not equal, 3 is at most, 5 is at least.
fn compare(list: &mut Message, register: u32, operator: u32, value: &[u8]) {
    expression(list, "cmp", |data| {
        data.big_endian(1, register).big_endian(2, operator).nested(3, |wanted| {
            wanted.attribute(NFTA_DATA_VALUE, value);
        });
    });
}

fn compare_name(list: &mut Message, key: u32, name: &str, operator: u32) {
    let mut padded = [0u8; 16];
    let length = name.len().min(15);
    padded[..length].copy_from_slice(&name.as_bytes()[..length]);
    load_meta(list, key, 8);
    compare(list, 8, operator, &padded);
}

fn mask(list: &mut Message, register: u32, bits: &[u8]) {
    expression(list, "bitwise", |data| {
        data.big_endian(1, register).big_endian(2, register).big_endian(3, bits.len() as u32);
        data.nested(4, |value| {
            value.attribute(NFTA_DATA_VALUE, bits);
        });
        data.nested(5, |value| {
            value.attribute(NFTA_DATA_VALUE, &vec![0; bits.len()]);
        });
    });
}

fn in_network(list: &mut Message, source: bool, network: IpNet, operator: u32) {
    let version = Version::of(network.address);
    let offset = version.source_offset() + if source { 0 } else { version.bytes() };
    let all_ones = match version {
        Version::V4 => IpAddr::from([0xff; 4]),
        Version::V6 => IpAddr::from([0xff; 16]),
    };
    let bits = IpNet { address: all_ones, prefix: network.prefix }.network();
    load_payload(list, 1, offset, version.bytes(), 8);
    mask(list, 8, &octets(bits));
    compare(list, 8, operator, &octets(network.network()));
}

fn redirect(list: &mut Message, version: Version) {
    let port = VALUE + version.bytes() / 4;
    expression(list, "nat", |data| {
        // Destination NAT; address and port are both given.
        data.big_endian(1, 1).big_endian(2, version.protocol().into());
        data.big_endian(3, VALUE).big_endian(4, VALUE);
        data.big_endian(5, port).big_endian(6, port).big_endian(7, 3);
    });
}

/// The bytes of an address.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn message(command: u16, flags: u16) -> Message {
    message_in(Family::Inet, command, flags)
}

fn message_in(family: Family, command: u16, flags: u16) -> Message {
    let number = match family {
        Family::Inet => NFPROTO_INET,
        Family::Bridge => NFPROTO_BRIDGE,
    };
    Message::new(10 << 8 | command, flags, &[number, 0, 0, 0])
}

/// Asks for the table; ENOENT when there is none.
pub(super) fn get_table(table: &str) -> Message {
    let mut message = message(NFT_MSG_GETTABLE, 0).does("look up", format!("nft table {table}"));
    message.text(1, table);
    message
}

/// Makes the table where it is not there.
pub(super) fn add_table(family: Family, table: &str) -> Message {
    let mut message = message_in(family, NFT_MSG_NEWTABLE, NLM_F_CREATE)
        .does("make", format!("nft table {table}"));
    message.text(1, table).big_endian(2, 0);
    message
}

/// Makes a chain where it is not there.
pub(super) fn add_chain(family: Family, table: &str, chain: &str, hook: Hook) -> Message {
    let mut message = message_in(family, NFT_MSG_NEWCHAIN, NLM_F_CREATE)
        .does("make", format!("nft chain {table} {chain}"));
    message.text(1, table).text(3, chain).nested(4, |place| {
        place.big_endian(1, hook.number).big_endian(2, hook.priority as u32);
    });
    // Accept what no rule says anything about.
    message.big_endian(5, 1).text(7, hook.kind);
    message
}

/// Removes all rules of a chain.
pub(super) fn flush_chain(family: Family, table: &str, chain: &str) -> Message {
    let mut message =
        message_in(family, NFT_MSG_DELRULE, 0).does("empty", format!("nft chain {table} {chain}"));
    message.text(1, table).text(2, chain);
    message
}

/// Adds a rule at the end of a chain.
pub(super) fn add_rule(family: Family, table: &str, chain: &str, rule: &[Expression]) -> Message {
    let mut message = message_in(family, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND)
        .does("add", format!("a rule to nft chain {table} {chain}"));
    message.text(1, table).text(2, chain).nested(4, |list| {
        for expression in rule {
            expression.write(list);
        }
    });
    message
}

/// A map from a host port (and host address, where `bound`) to a pod's
/// address and port.
pub(super) fn add_map(table: &str, map: &str, version: Version, bound: bool, id: u32) -> Message {
    let mut key_type = datatype::PROTOCOL << 6 | datatype::PORT;
    let mut key_bytes = 8;
    if bound {
        key_type |= version.datatype() << 12;
        key_bytes += version.bytes();
    }
    let mut message =
        message(NFT_MSG_NEWSET, NLM_F_CREATE).does("make", format!("nft map {table} {map}"));
    message.text(1, table).text(2, map).big_endian(3, NFT_SET_MAP);
    message.big_endian(4, key_type).big_endian(5, key_bytes);
    message.big_endian(6, version.datatype() << 6 | datatype::PORT);
    message.big_endian(7, version.bytes() + 4).big_endian(10, id);
    message
}

/// Adds an element to a map; EEXIST when the key is taken.
pub(super) fn add_element(table: &str, map: &str, key: &[u8], value: &[u8]) -> Message {
    let mut message = message(NFT_MSG_NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL)
        .does("add", format!("an element to nft map {table} {map}"));
    element(&mut message, table, map, key, Some(value));
    message
}

/// Removes an element from a map; ENOENT when it is not there.
pub(super) fn delete_element(table: &str, map: &str, key: &[u8]) -> Message {
    let mut message = message(NFT_MSG_DELSETELEM, 0)
        .does("remove", format!("an element of nft map {table} {map}"));
    element(&mut message, table, map, key, None);
    message
}

/// Asks for all elements of a map.
pub(super) fn get_elements(table: &str, map: &str) -> Message {
    let mut message = message(NFT_MSG_GETSETELEM, 0).does("list", format!("nft map {table} {map}"));
    message.text(1, table).text(2, map);
    message
}

fn element(message: &mut Message, table: &str, map: &str, key: &[u8], value: Option<&[u8]>) {
    message.text(1, table).text(2, map).nested(3, |list| {
        list.nested(NFTA_LIST_ELEM, |element| {
            element.nested(1, |data| {
                data.attribute(NFTA_DATA_VALUE, key);
            });
            if let Some(value) = value {
                element.nested(2, |data| {
                    data.attribute(NFTA_DATA_VALUE, value);
                });
            }
        });
    });
}
