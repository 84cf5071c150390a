//! The bridge's packet rules: masquerading, host ports, and a guard.

use corten_kernel::Errno;
use corten_kernel::netlink::{Message, Socket};

use super::nft::{self, Expression, Family, Hook, KEY, Version};
use crate::{IpNet, Result};

const NF_INET_PRE_ROUTING: u32 = 0;
const NF_INET_LOCAL_OUT: u32 = 3;
const NF_INET_POST_ROUTING: u32 = 4;

/// Before connection tracking.
const PRIORITY_RAW: i32 = -300;
const PRIORITY_DESTINATION: i32 = -100;
const PRIORITY_SOURCE: i32 = 100;

const GUARD: &str = "guard";
const FROM_OUTSIDE: &str = "from-outside";
const FROM_HOST: &str = "from-host";
const LEAVING: &str = "leaving";

/// The name of a map of host ports.
pub(super) fn map_name(version: Version, bound: bool) -> &'static str {
    match (version, bound) {
        (Version::V4, false) => "ports4",
        (Version::V6, false) => "ports6",
        (Version::V4, true) => "bound4",
        (Version::V6, true) => "bound6",
    }
}

/// All maps: version, and whether the key has a host address.
pub(super) const MAPS: [(Version, bool); 4] =
    [(Version::V4, true), (Version::V4, false), (Version::V6, true), (Version::V6, false)];

/// Whether the table is there.
pub(super) fn present(socket: &mut Socket, table: &str) -> Result<bool> {
    match socket.query(nft::get_table(table), false) {
        Ok(_) => Ok(true),
        Err(error) if error.errno == Errno::NOENT => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Puts the rules in place, all at once. Elements of the maps stay, so that
/// host ports work on while a daemon restarts.
pub(super) fn apply(
    socket: &mut Socket,
    table: &str,
    bridge: &str,
    subnets: &[IpNet],
) -> Result<()> {
    let mut messages = vec![nft::add_table(Family::Inet, table)];
    for (id, (version, bound)) in (1..).zip(MAPS) {
        messages.push(nft::add_map(table, map_name(version, bound), version, bound, id));
    }
    let destination = Hook { kind: "nat", number: 0, priority: PRIORITY_DESTINATION };
    let chains = [
        (GUARD, Hook { kind: "filter", number: NF_INET_PRE_ROUTING, priority: PRIORITY_RAW }),
        (FROM_OUTSIDE, Hook { number: NF_INET_PRE_ROUTING, ..destination }),
        (FROM_HOST, Hook { number: NF_INET_LOCAL_OUT, ..destination }),
        (LEAVING, Hook { kind: "nat", number: NF_INET_POST_ROUTING, priority: PRIORITY_SOURCE }),
    ];
    for (chain, hook) in chains {
        messages.push(nft::add_chain(Family::Inet, table, chain, hook));
        messages.push(nft::flush_chain(Family::Inet, table, chain));
    }
    rules(&mut messages, table, bridge, subnets);
    Ok(socket.transaction(messages)?)
}

/// Keeps to itself what every new pod says to all others by itself: that it
/// listens to its own multicast groups (which a bridge without snooping has no
/// use for), and a question for routers (of which there are none but us). Each
/// would be copied to every pod, and take the machine longer than all else of a
/// pod where there are a thousand.
pub(super) fn quieten(socket: &mut Socket, table: &str, links: &'static str) -> Result<()> {
    /// `NF_BR_PRE_ROUTING`
    const HOOK: u32 = 0;
    let hook = Hook { kind: "filter", number: HOOK, priority: PRIORITY_RAW };
    let mut messages = vec![
        nft::add_table(Family::Bridge, table),
        nft::add_chain(Family::Bridge, table, GUARD, hook),
        nft::flush_chain(Family::Bridge, table, GUARD),
    ];
    // Reports of listeners, those that end, questions for routers; then reports
    // of the second version.
    for (first, last) in [(131, 133), (143, 143)] {
        let rule = [
            Expression::InputBegins(links),
            Expression::Icmp6Within(first, last),
            Expression::Drop,
        ];
        messages.push(nft::add_rule(Family::Bridge, table, GUARD, &rule));
    }
    Ok(socket.transaction(messages)?)
}

fn rules(messages: &mut Vec<Message>, table: &str, bridge: &str, subnets: &[IpNet]) {
    let loopback = IpNet { address: [127, 0, 0, 0].into(), prefix: 8 };
    let mut add = |chain: &str, rule: &[Expression]| {
        messages.push(nft::add_rule(Family::Inet, table, chain, rule));
    };
    // The bridge accepts loopback addresses for the sake of host ports on
    // 127.0.0.1; a pod that sends to such an address is up to no good.
    add(
        GUARD,
        &[
            Expression::InputIs(bridge.to_owned()),
            Expression::Is(Version::V4),
            Expression::InNetwork { source: false, network: loopback },
            Expression::Drop,
        ],
    );
    for subnet in subnets {
        let version = Version::of(subnet.address);
        for chain in [FROM_OUTSIDE, FROM_HOST] {
            add(chain, &host_ports(version, true));
            add(chain, &host_ports(version, false));
        }
        let from = |network| {
            vec![Expression::Is(version), Expression::InNetwork { source: true, network }]
        };
        let onto = || Expression::OutputIs(bridge.to_owned());
        let mut out = from(*subnet);
        out.extend([Expression::OutputIsNot(bridge.to_owned()), Expression::Masquerade]);
        add(LEAVING, &out);
        // A pod that reaches a pod by a host port must get the answer from the
        // host, or it would not know the sender.
        let mut back = from(*subnet);
        back.extend([onto(), Expression::WasRedirected, Expression::Masquerade]);
        add(LEAVING, &back);
        if version == Version::V4 {
            let mut local = from(loopback);
            local.extend([onto(), Expression::Masquerade]);
            add(LEAVING, &local);
        }
    }
}

/// Redirects what is for a host port.
fn host_ports(version: Version, bound: bool) -> Vec<Expression> {
    let mut rule = vec![Expression::Is(version)];
    let mut register = KEY;
    if bound {
        rule.push(Expression::LoadDestination(version, register));
        register += version.bytes() / 4;
    } else {
        rule.push(Expression::DestinationIsLocal);
        if version == Version::V6 {
            // The kernel routes no answer to ::1 from a link. Left alone, a
            // client is refused at once and goes on to 127.0.0.1.
            let network = IpNet { address: std::net::Ipv6Addr::LOCALHOST.into(), prefix: 128 };
            rule.push(Expression::NotInNetwork { source: false, network });
        }
    }
    rule.push(Expression::LoadProtocol(register));
    rule.push(Expression::LoadPort(register + 1));
    rule.push(Expression::Lookup(map_name(version, bound).to_owned()));
    rule.push(Expression::Redirect(version));
    rule
}
