//! Connections to ports inside of pods.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use corten_kernel::netlink::in_network_namespace;
use corten_kernel::{ns, tcp};
use corten_spec::request::NamespaceMode;

use super::{Inner, blocking};
use crate::error::{Error, Kind, Result};
use crate::state::SandboxState;
use crate::table::Sandbox;
use crate::watch::watch;

/// How long one address may take to answer: it is the pod's own loopback.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a server in a pod listens that is meant for the pod itself.
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

impl Inner {
    /// Connects to a TCP port of a pod.
    pub(super) async fn port_forward(&self, sandbox: &Arc<Sandbox>, port: u16) -> Result<OwnedFd> {
        let id = sandbox.id.short();
        if port == 0 {
            return Err(Error::invalid("port 0 stands for no port"));
        }
        if sandbox.record.borrow().state != SandboxState::Ready {
            return Err(Error::precondition(format!(
                "unable to reach port {port} of sandbox {id}: it is not running"
            )));
        }
        let mut problems = Vec::with_capacity(LOOPBACK.len());
        for address in LOOPBACK {
            let address = SocketAddr::new(address, port);
            match self.dial(sandbox, address).await {
                Ok(connected) => return Ok(connected),
                Err(problem) => problems.push(format!("{address}: {problem}")),
            }
        }
        Err(Error::new(
            Kind::Unavailable,
            format!("unable to reach port {port} of sandbox {id}: {}", problems.join(", ")),
        ))
    }

    async fn dial(
        &self,
        sandbox: &Arc<Sandbox>,
        address: SocketAddr,
    ) -> std::result::Result<OwnedFd, String> {
        let host = sandbox.config.namespaces.network == NamespaceMode::Node;
        let netns = (!host).then(|| self.namespaces.path(&sandbox.id));
        // A socket belongs to the namespace in which it was made, wherever it
        // is used: only its making needs a thread there.
        let socket = blocking(move || {
            Ok(match netns {
                None => tcp::begin(address)?,
                Some(path) => {
                    let netns = ns::open(&path)?;
                    in_network_namespace(netns.as_fd(), || tcp::begin(address))?
                }
            })
        });
        let socket = socket.await.map_err(|error| error.to_string())?;
        let socket = watch(socket, "a connection").map_err(|error| error.to_string())?;
        match tokio::time::timeout(DIAL_TIMEOUT, socket.writable()).await {
            Err(_) => return Err(format!("no answer within {} s", DIAL_TIMEOUT.as_secs())),
            Ok(Err(error)) => return Err(error.to_string()),
            Ok(Ok(_ready)) => {}
        }
        let socket = socket.into_inner();
        match tcp::outcome(&socket) {
            Ok(()) => Ok(socket),
            Err(errno) => Err(std::io::Error::from(errno).to_string()),
        }
    }
}
