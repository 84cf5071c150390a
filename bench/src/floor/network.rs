//! A machine's network of its own with a bridge, and pods on it.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use corten_kernel::launch::NamespaceKind;
use corten_kernel::netlink::{Family, NamespaceSet, Socket, route};
use corten_kernel::ns;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const BRIDGE: &str = "floor0";
const PREFIX: u8 = 16;

/// The calling thread's network namespace, with a bridge in it.
pub struct Network {
    /// The namespace.
    home: OwnedFd,
    socket: Socket,
    bridge: u32,
}

impl Network {
    /// Makes the bridge.
    pub fn make() -> Result<Self> {
        let mut socket = Socket::open(Family::Route)?;
        socket.request(vec![route::create_bridge(BRIDGE, mac(1), None)])?;
        let bridge = route::link_index(&mut socket, BRIDGE)?.context("the bridge vanished")?;
        let home = ns::own(NamespaceKind::Net)?;
        socket.request(vec![
            route::link_up(bridge),
            route::add_address(bridge, address(1), PREFIX),
        ])?;
        Ok(Self { home, socket, bridge })
    }

    /// Gives a pod its link, addresses and routes.
    pub fn connect(&mut self, pod: &NamespaceSet, number: u16) -> Result<()> {
        let name = format!("floor-{number}");
        let pair = route::VethPair {
            name: &name,
            master: self.bridge,
            mtu: None,
            peer_namespace: pod.net.as_fd(),
            peer_name: "eth0",
            peer_mac: mac(number),
        };
        self.socket.request(vec![route::create_veth(&pair), route::hairpin(&name)])?;
        // There and back: a thread of its own would cost more.
        let inside = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(pod.net.as_fd(), inside)?;
        let socket = Socket::open(Family::Route);
        move_into_link_name_space(self.home.as_fd(), inside)?;
        let mut socket = socket?;
        let index = route::link_index(&mut socket, "eth0")?.context("the pod has no link")?;
        Ok(socket.request(vec![
            route::link_up(index),
            route::add_address(index, address(number), PREFIX),
            route::default_route(index, address(1)),
        ])?)
    }
}

fn address(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 88, high, low).into()
}

fn mac(number: u16) -> route::Mac {
    let [high, low] = number.to_be_bytes();
    [2, 0xc0, 10, 88, high, low]
}
