//! For tests of networks: a machine of its own, made of a network namespace.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use corten_base::SandboxId;
use corten_kernel::netlink::{Family, Socket, in_network_namespace, make_namespace_set, route};
use corten_spec::request::{PortMapping, Protocol};
use tokio::io::AsyncWriteExt;

use crate::{NamespacePool, NetworkRequest, PodNamespaces};

/// How long a connection may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A machine that exists for one test. The code of the test runs inside its
/// network namespace.
pub struct Host {
    pub net: OwnedFd,
    pub directory: tempfile::TempDir,
    pub pool: NamespacePool,
    pods: AtomicU8,
}

/// A pod of the test.
pub struct Pod {
    pub request: NetworkRequest,
    pub namespaces: PodNamespaces,
}

impl Host {
    /// Runs a test on a machine of its own.
    pub fn run(test: impl AsyncFnOnce(&Self) + Send) {
        let net = make_namespace_set().unwrap().net;
        let inside = net.try_clone().unwrap();
        let work = || {
            let directory = tempfile::tempdir().unwrap();
            let pool = NamespacePool::new(directory.path().join("netns"));
            let host = Self { net, directory, pool, pods: AtomicU8::new(0) };
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(test(&host));
            Ok(())
        };
        in_network_namespace(inside.as_fd(), work).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A pod with these TCP ports: host port, container port.
    pub async fn pod(&self, ports: &[(u16, u16)]) -> Pod {
        let number = self.pods.fetch_add(1, Ordering::Relaxed) + 1;
        let sandbox = SandboxId::from_random([number; 32]);
        let namespaces = self.pool.take(&sandbox).await.unwrap();
        let request = NetworkRequest {
            sandbox,
            netns: namespaces.path.clone(),
            pod_name: format!("pod-{number}"),
            pod_namespace: "tests".to_owned(),
            pod_uid: String::new(),
            ports: ports.iter().map(|(host, pod)| mapping(*host, *pod)).collect(),
            annotations: Default::default(),
            aliases: Vec::new(),
            dns: None,
        };
        Pod { request, namespaces }
    }

    /// A network beside the host: 192.0.2.2 and fd99::2, the host being .1. It
    /// has no route to pods.
    pub fn outside(&self) -> OwnedFd {
        let outer = make_namespace_set().unwrap().net;
        let mut socket = Socket::open(Family::Route).unwrap();
        socket.request(vec![route::create_bridge("uplink", [2, 9, 9, 9, 9, 9], None)]).unwrap();
        let uplink = route::link_index(&mut socket, "uplink").unwrap().unwrap();
        let pair = route::VethPair {
            name: "to-outer",
            master: uplink,
            mtu: None,
            peer_namespace: outer.as_fd(),
            peer_name: "eth0",
            peer_mac: [2, 9, 9, 9, 9, 8],
        };
        socket.request(vec![route::create_veth(&pair)]).unwrap();
        let addresses = |index, last: u8| {
            vec![
                route::link_up(index),
                route::add_address(index, Ipv4Addr::new(192, 0, 2, last).into(), 24),
                route::add_address(index, format!("fd99::{last}").parse().unwrap(), 64),
            ]
        };
        socket.request(addresses(uplink, 1)).unwrap();
        inside(&outer, || {
            let mut socket = Socket::open(Family::Route).unwrap();
            let index = route::link_index(&mut socket, "eth0").unwrap().unwrap();
            socket.request(addresses(index, 2)).unwrap();
        });
        // The kernel tells a bridge later that its cable is plugged in.
        for address in ["192.0.2.1", "fd99::1"] {
            let deadline = Instant::now() + PATIENCE;
            loop {
                match ask(&outer, address.parse().unwrap(), 9) {
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => break,
                    other => assert!(Instant::now() < deadline, "{address}: {other:?}"),
                }
            }
        }
        outer
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.path("netns")).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap();
            self.pool.release(&name.parse().unwrap()).unwrap();
        }
    }
}

/// A TCP port of all host addresses.
pub fn mapping(host_port: u16, container_port: u16) -> PortMapping {
    PortMapping { protocol: Protocol::Tcp, container_port, host_port, host_ip: String::new() }
}

/// Runs something in a network namespace.
pub fn inside<T: Send>(net: &OwnedFd, work: impl FnOnce() -> T + Send) -> T {
    in_network_namespace(net.as_fd(), || Ok(work())).unwrap()
}

/// Listens in a namespace until the runtime ends; tells each client the
/// address that it was seen with.
pub fn serve(net: &OwnedFd, port: u16) {
    let listener = inside(net, || std::net::TcpListener::bind(("::", port)).unwrap());
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, peer)) = listener.accept().await {
            let peer = peer.ip().to_canonical().to_string();
            let _ = stream.write_all(peer.as_bytes()).await;
        }
    });
}

/// Connects from a namespace; returns what the server says.
pub fn ask(net: &OwnedFd, address: IpAddr, port: u16) -> std::io::Result<String> {
    inside(net, || {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, port), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })
}
