//! The built-in bridge: networks for pods on a bare machine.
//!
//! One bridge device, a veth pair for each pod, leases in files and packet
//! rules, all made by netlink in this process. Nothing exists before the first
//! pod is attached, so a node that uses CNI never sees the bridge.
//!
//! A pod's link is never deleted here: that takes the kernel 13–26 ms, and the
//! end of the pod's network namespace does it anyway.

mod device;
mod lease;
mod nft;
mod ports;
mod rules;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use corten_base::SandboxId;
use corten_kernel::netlink::{Family, Socket, in_network_namespace, route};
use corten_kernel::{Context, Errno};
use rustix::fs::{Mode, OFlags};

use self::lease::Leases;
use self::ports::Element;
use crate::{
    Attachment, BridgeRecord, Error, Interface, IpNet, Kept, NetworkRequest, Provider, Result,
};

/// Name of the pod's link.
const POD_LINK: &str = "eth0";
/// What the names of the host's ends begin with.
const HOST_LINKS: &str = "ctn";

/// How the bridge is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeSettings {
    /// Name of the bridge device.
    pub name: String,
    /// Its subnets, one or two: the pods' addresses.
    pub subnets: Vec<IpNet>,
    /// Bytes of the largest packet; none for the kernel's default.
    pub mtu: Option<u32>,
    /// Name of the nf_tables table (family `inet`).
    pub table: String,
    /// Where leases are kept; the bridge adds a directory of its own name.
    pub leases: PathBuf,
}

impl BridgeSettings {
    /// The defaults, with leases in `leases`.
    pub fn new(leases: PathBuf) -> Self {
        let v4 = IpNet { address: [10, 89, 0, 0].into(), prefix: 16 };
        let v6 = IpNet { address: [0xfdc0, 0x7e4e, 0x89, 0, 0, 0, 0, 0].into(), prefix: 64 };
        Self {
            name: "corten0".to_owned(),
            subnets: vec![v4, v6],
            mtu: None,
            table: "corten".to_owned(),
            leases,
        }
    }

    fn check(&self) -> Result<()> {
        let name_ok = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if self.name.is_empty() || self.name.len() > 15 || !self.name.bytes().all(name_ok) {
            return Err(Error::Settings(format!(
                "the name {:?} is no link name (1 to 15 letters, digits, '-', '_' or '.')",
                self.name
            )));
        }
        let v4 = self.subnets.iter().filter(|subnet| subnet.address.is_ipv4()).count();
        if self.subnets.is_empty() || v4 > 1 || self.subnets.len() - v4 > 1 {
            let reason = "there must be one IPv4 subnet, one IPv6 subnet, or one of each";
            return Err(Error::Settings(reason.to_owned()));
        }
        Ok(())
    }
}

/// The built-in bridge. Clones are the same bridge.
#[derive(Debug, Clone)]
pub struct Bridge {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: BridgeSettings,
    /// The settings' subnets, without IPv6 where the kernel has none.
    subnets: Vec<IpNet>,
    /// Whether the kernel has IPv6: links then speak it, whatever the subnets
    /// are, unless they are told not to.
    speaks_ipv6: bool,
    leases: Mutex<Leases>,
    /// Number of the bridge's link, once everything is in place.
    ready: Mutex<Option<u32>>,
    /// Changes of host ports are looked at and made one after the other.
    ports: Mutex<()>,
}

impl Bridge {
    /// A bridge with these settings; reads the leases, touches no network.
    pub fn new(settings: BridgeSettings) -> Result<Self> {
        settings.check()?;
        let mut subnets = settings.subnets.clone();
        let speaks_ipv6 = device::has_ipv6();
        if !speaks_ipv6 {
            subnets.retain(|subnet| subnet.address.is_ipv4());
        }
        let leases = Leases::load(settings.leases.join(&settings.name), &subnets)?;
        let shared = Shared {
            settings,
            subnets,
            speaks_ipv6,
            leases: Mutex::new(leases),
            ready: Mutex::new(None),
            ports: Mutex::new(()),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// See [`crate::Network::attach`].
    pub async fn attach(&self, request: &NetworkRequest) -> Result<Attachment> {
        let request = request.clone();
        self.run(move |shared| shared.attach(&request)).await
    }

    /// See [`crate::Network::detach`].
    pub async fn detach(
        &self,
        request: &NetworkRequest,
        attachment: Option<&Attachment>,
    ) -> Result<()> {
        let mut with_ports = !request.ports.is_empty();
        match attachment.map(|attachment| &attachment.provider) {
            Some(Provider::Cni(_)) => {
                return Err(Error::ForeignRecord { wanted: "the built-in bridge", found: "CNI" });
            }
            Some(Provider::Bridge(record)) => with_ports |= !record.ports.is_empty(),
            None => {}
        }
        let sandbox = request.sandbox.clone();
        self.run(move |shared| shared.detach(&sandbox, with_ports)).await
    }

    /// The bridge needs nothing that could be missing.
    pub fn status(&self) -> std::result::Result<(), String> {
        Ok(())
    }

    /// See [`crate::Network::reconcile`].
    pub async fn reconcile(&self, kept: &[Kept]) -> Result<()> {
        let kept = kept.to_vec();
        self.run(move |shared| shared.reconcile(&kept)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || work(&shared)).await?
    }
}

impl Shared {
    fn attach(&self, request: &NetworkRequest) -> Result<Attachment> {
        // What an earlier attempt left would otherwise keep the old ports.
        if self.leases().find(&request.sandbox).is_some() {
            self.detach(&request.sandbox, true)?;
        }
        let netns = open(&request.netns)?;
        let number = self.leases().take(&request.sandbox)?;
        let attached = self.attach_number(request, &netns, number);
        if attached.is_err() {
            self.undo(&request.sandbox);
        }
        attached
    }

    fn attach_number(
        &self,
        request: &NetworkRequest,
        netns: &OwnedFd,
        number: u32,
    ) -> Result<Attachment> {
        let ips: Vec<IpNet> = self
            .subnets
            .iter()
            .map(|subnet| IpNet { address: subnet.host(number.into()), prefix: subnet.prefix })
            .collect();
        let mac = ips.first().map_or([2, 0xc0, 0, 0, 0, 0], |ip| device::mac(ip.address));
        let host_link = host_link(&request.sandbox);
        let mut socket = Socket::open(Family::Route)?;
        self.connect(&mut socket, &host_link, netns, mac)?;
        self.configure(netns, &ips, mac)?;
        let ports: Vec<_> =
            request.ports.iter().filter(|port| port.host_port != 0).cloned().collect();
        let addresses: Vec<IpAddr> = ips.iter().map(|ip| ip.address).collect();
        self.add_ports(&ports, &addresses)?;
        Ok(Attachment {
            interfaces: vec![
                Interface { name: POD_LINK.to_owned(), mac: mac_text(mac), in_pod: true },
                Interface { name: host_link, mac: String::new(), in_pod: false },
            ],
            ips,
            dns: None,
            provider: Provider::Bridge(BridgeRecord { bridge: self.settings.name.clone(), ports }),
        })
    }

    /// Makes the veth pair, from the bridge into the pod.
    fn connect(
        &self,
        socket: &mut Socket,
        host_link: &str,
        netns: &OwnedFd,
        mac: route::Mac,
    ) -> Result<()> {
        let mut tries = 0;
        loop {
            let pair = route::VethPair {
                name: host_link,
                master: self.prepare(socket)?,
                mtu: self.settings.mtu,
                peer_namespace: netns.as_fd(),
                peer_name: POD_LINK,
                peer_mac: mac,
            };
            tries += 1;
            let mut messages = vec![route::create_veth(&pair), route::hairpin(host_link)];
            if self.speaks_ipv6 {
                // A port of a bridge needs no address, and each would be one
                // more route for the host.
                messages.push(route::no_own_address(host_link));
            }
            match socket.request(messages) {
                // An earlier attempt for this sandbox got this far.
                Err(error) if error.errno == Errno::EXIST && tries < 3 => {
                    delete_link(socket, host_link)?;
                }
                // Somebody deleted the bridge: make it again.
                Err(error) if no_bridge(error.errno) && tries < 3 => {
                    delete_link(socket, host_link)?;
                    *lock(&self.ready) = None;
                }
                made => return Ok(made?),
            }
        }
    }

    /// Addresses and routes, inside the pod.
    fn configure(&self, netns: &OwnedFd, ips: &[IpNet], mac: route::Mac) -> Result<()> {
        let mut inside = in_network_namespace(netns.as_fd(), || Socket::open(Family::Route))?;
        let index = route::link_index(&mut inside, POD_LINK)?
            .ok_or(Errno::NODEV)
            .context("find", || "eth0 in the pod")?;
        let mut messages = Vec::new();
        if self.speaks_ipv6 {
            // The kernel would make one, and ask all pods whether one has the
            // same.
            messages.push(route::no_own_address(POD_LINK));
        }
        messages.push(route::link_up(index));
        if self.has_ipv6() {
            messages.push(route::add_address(
                index,
                device::link_local(mac),
                device::LINK_LOCAL_PREFIX,
            ));
        }
        for ip in ips {
            messages.push(route::add_address(index, ip.address, ip.prefix));
        }
        for subnet in &self.subnets {
            messages.push(route::default_route(index, subnet.host(1)));
        }
        Ok(inside.request(messages)?)
    }

    fn add_ports(
        &self,
        ports: &[corten_spec::request::PortMapping],
        addresses: &[IpAddr],
    ) -> Result<()> {
        if ports.is_empty() {
            return Ok(());
        }
        let mut wanted = Vec::new();
        for port in ports {
            wanted.extend(Element::of(port, addresses)?);
        }
        let mut socket = Socket::open(Family::Netfilter)?;
        let _one_at_a_time = lock(&self.ports);
        ports::add(&mut socket, &self.settings.table, &wanted, |address| self.owner(address))
    }

    /// Who has a pod address, in words.
    fn owner(&self, address: IpAddr) -> Option<String> {
        let index = self.subnets.iter().find_map(|subnet| subnet.index_of(address))?;
        let number = u32::try_from(index).ok()?;
        self.leases().owner(number).map(|id| format!("sandbox {} ({address})", id.short()))
    }

    fn detach(&self, sandbox: &SandboxId, with_ports: bool) -> Result<()> {
        let Some(number) = self.leases().find(sandbox) else { return Ok(()) };
        if with_ports {
            let ours: Vec<_> =
                self.subnets.iter().map(|subnet| subnet.host(number.into())).collect();
            let mut socket = Socket::open(Family::Netfilter)?;
            let _one_at_a_time = lock(&self.ports);
            ports::remove(&mut socket, &self.settings.table, |port| ours.contains(&port.pod))?;
        }
        self.leases().release(sandbox)
    }

    /// After a failed attach: errors here would hide the one that matters, and
    /// what stays behind is freed by the caller's detach.
    fn undo(&self, sandbox: &SandboxId) {
        let undone = || -> Result<()> {
            delete_link(&mut Socket::open(Family::Route)?, &host_link(sandbox))?;
            self.detach(sandbox, true)
        };
        if let Err(error) = undone() {
            tracing::warn!(%sandbox, %error, "a failed attach is not undone yet");
        }
    }

    fn reconcile(&self, kept: &[Kept]) -> Result<()> {
        let keep: HashSet<&SandboxId> = kept.iter().map(|kept| &kept.sandbox).collect();
        let abandoned = self.leases().abandoned(&keep);
        for sandbox in &abandoned {
            self.leases().release(sandbox)?;
        }
        let mut netfilter = Socket::open(Family::Netfilter)?;
        if rules::present(&mut netfilter, &self.settings.table)? {
            let _one_at_a_time = lock(&self.ports);
            let unowned = |port: &Element| self.owner(port.pod).is_none();
            ports::remove(&mut netfilter, &self.settings.table, unowned)?;
        }
        let ours = kept.iter().filter_map(|kept| Some((kept, kept.attachment.as_ref()?)));
        for (kept, attachment) in ours {
            let Provider::Bridge(record) = &attachment.provider else { continue };
            if self.leases().find(&kept.sandbox).is_none() {
                continue;
            }
            self.prepare(&mut Socket::open(Family::Route)?)?;
            let addresses: Vec<_> = attachment.ips.iter().map(|ip| ip.address).collect();
            if let Err(error) = self.add_ports(&record.ports, &addresses) {
                tracing::warn!(sandbox = %kept.sandbox, %error, "host ports are not put back");
            }
        }
        Ok(())
    }

    /// Makes the bridge and the rules where they are not there.
    fn prepare(&self, socket: &mut Socket) -> Result<u32> {
        let mut netfilter = Socket::open(Family::Netfilter)?;
        let mut ready = lock(&self.ready);
        if let Some(index) = *ready
            && rules::present(&mut netfilter, &self.settings.table)?
        {
            return Ok(index);
        }
        let index = device::prepare(socket, &self.settings, &self.subnets)?;
        let BridgeSettings { table, name, .. } = &self.settings;
        rules::apply(&mut netfilter, table, name, &self.subnets)?;
        if self.speaks_ipv6
            && let Err(error) = rules::quieten(&mut netfilter, table, HOST_LINKS)
        {
            // A kernel without nf_tables for bridges: only dearer.
            tracing::debug!(%error, "what pods say to all goes to all pods");
        }
        *ready = Some(index);
        Ok(index)
    }

    fn has_ipv6(&self) -> bool {
        self.subnets.iter().any(|subnet| subnet.address.is_ipv6())
    }

    fn leases(&self) -> MutexGuard<'_, Leases> {
        lock(&self.leases)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(netns: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(netns, flags, Mode::empty());
    Ok(opened.context("open", || format!("the pod's network namespace {}", netns.display()))?)
}

/// The host's end of a pod's link. The name follows from the sandbox, so that
/// a second attempt meets the first one's link.
fn host_link(sandbox: &SandboxId) -> String {
    format!("{HOST_LINKS}{}", &sandbox.as_str()[..12])
}

fn delete_link(socket: &mut Socket, name: &str) -> Result<()> {
    match socket.request(vec![route::delete_link(name)]) {
        Err(error) if gone(error.errno) => Ok(()),
        deleted => Ok(deleted?),
    }
}

fn gone(errno: Errno) -> bool {
    matches!(errno, Errno::NODEV | Errno::NOENT)
}

fn mac_text(mac: route::Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// What the kernel says of a master that is not there.
fn no_bridge(errno: Errno) -> bool {
    gone(errno) || errno == Errno::INVAL
}
