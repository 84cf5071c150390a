//! The bridge device itself, and the kernel settings that it needs.

use std::path::{Path, PathBuf};

use corten_kernel::netlink::{Socket, route};

use super::BridgeSettings;
use crate::error::FileContext;
use crate::{Error, IpNet, Result};

/// Finds or makes the bridge with its gateway addresses, and sets what the
/// kernel needs to forward. Returns the number of its link.
pub(super) fn prepare(
    socket: &mut Socket,
    settings: &BridgeSettings,
    subnets: &[IpNet],
) -> Result<u32> {
    let name = settings.name.as_str();
    let bridge = match route::link(socket, name)? {
        Some(link) => link,
        None => {
            let mac = gateway_mac(subnets);
            socket.request(vec![route::create_bridge(name, mac, settings.mtu)])?;
            let missing = || Error::Settings(format!("the bridge {name} vanished"));
            route::link(socket, name)?.ok_or_else(missing)?
        }
    };
    if bridge.kind != "bridge" {
        let kind = if bridge.kind.is_empty() { "device".to_owned() } else { bridge.kind };
        return Err(Error::NotABridge { name: name.to_owned(), kind });
    }
    let mut messages = vec![route::link_up(bridge.index)];
    for subnet in subnets {
        messages.push(route::add_address(bridge.index, subnet.host(1), subnet.prefix));
    }
    if subnets.iter().any(|subnet| subnet.address.is_ipv6()) {
        // The kernel makes one as well, but asks around for two seconds before
        // it uses it, and until then has no sender for the question where a pod
        // is: what comes from outside meanwhile does not reach the pod.
        let own = link_local(gateway_mac(subnets));
        messages.push(route::add_address(bridge.index, own, LINK_LOCAL_PREFIX));
    }
    socket.request(messages)?;
    for subnet in subnets {
        if subnet.address.is_ipv4() {
            // Lets a connection to 127.0.0.1 be sent to a pod; the rules keep
            // pods from making use of it.
            set(format!("ipv4/conf/{name}/route_localnet"), "1")?;
            set("ipv4/ip_forward", "1")?;
        } else {
            forward_ipv6()?;
        }
    }
    Ok(bridge.index)
}

/// Whether the kernel has IPv6 and it is switched on.
pub(super) fn has_ipv6() -> bool {
    let read = |key: &str| std::fs::read_to_string(path(key)).unwrap_or_default();
    let off = |key: &str| read(key).trim() != "0";
    !off("ipv6/conf/all/disable_ipv6") && !off("ipv6/conf/default/disable_ipv6")
}

/// A machine that forwards stops listening to routers, and would lose its own
/// default route: links that listen now are told to go on.
fn forward_ipv6() -> Result<()> {
    const FORWARDING: &str = "ipv6/conf/all/forwarding";
    if get(FORWARDING)? == "1" {
        return Ok(());
    }
    let directory = path("ipv6/conf");
    for entry in std::fs::read_dir(&directory).file("list", &directory)? {
        let name = entry.file("list", &directory)?.file_name();
        let key = format!("ipv6/conf/{}/accept_ra", name.to_string_lossy());
        if get(&key).is_ok_and(|value| value == "1") {
            set(key, "2")?;
        }
    }
    set(FORWARDING, "1")
}

/// Writes a setting of the calling thread's network namespace, unless it has
/// that value: it may then be read-only for us, and that is fine.
fn set(key: impl AsRef<Path>, value: &str) -> Result<()> {
    let key = key.as_ref();
    if get(key)? == value {
        return Ok(());
    }
    let path = path(key);
    std::fs::write(&path, value).file("write", path)
}

fn get(key: impl AsRef<Path>) -> Result<String> {
    let path = path(key);
    let text = std::fs::read_to_string(&path).file("read", path)?;
    Ok(text.trim().to_owned())
}

fn path(key: impl AsRef<Path>) -> PathBuf {
    Path::new("/proc/sys/net").join(key)
}

/// Hardware addresses follow from the IP address: a neighbour that remembers
/// an earlier pod of the same address is then still right.
pub(super) fn mac(address: std::net::IpAddr) -> route::Mac {
    let bytes = super::nft::octets(address);
    let mut mac = [2, if address.is_ipv4() { 0xc0 } else { 0xc1 }, 0, 0, 0, 0];
    mac[2..].copy_from_slice(&bytes[bytes.len() - 4..]);
    mac
}

/// Bits of a link's own IPv6 address that are the same on all links.
pub(super) const LINK_LOCAL_PREFIX: u8 = 64;

/// The address that every IPv6 link has by itself, as the kernel makes it of the
/// hardware address.
pub(super) fn link_local(mac: route::Mac) -> std::net::IpAddr {
    let [a, b, c, d, e, f] = mac;
    let half = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&[0xfe, 0x80]);
    bytes[8..].copy_from_slice(&half);
    bytes.into()
}

fn gateway_mac(subnets: &[IpNet]) -> route::Mac {
    subnets.first().map_or([2, 0xc0, 0, 0, 0, 1], |subnet| mac(subnet.host(1)))
}
