//! Streams: exec, attach and port-forward, by URLs that work once.
//!
//! | file | what it is about |
//! |---|---|
//! | `tokens` | what a URL stands for |
//! | `server`, `tls`, `upgrade` | HTTP, up to an agreement on a protocol |
//! | `connection` | bytes from and to a client |
//! | `remote`, `process` | exec and attach |
//! | `forward`, `tunnel` | ports |
//! | `sink` | input that a process is slow to take |

mod connection;
mod forward;
mod process;
mod remote;
mod server;
mod sink;
mod tls;
mod tokens;
mod tunnel;
mod upgrade;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use corten_base::Namespace;
use corten_pods::Engine;
use tokio::net::TcpListener;

pub use tls::TlsFiles;
pub(crate) use tokens::{Order, Refusal};

/// Where streams are served, and how.
#[derive(Debug, Clone)]
pub struct StreamingSettings {
    /// The address to listen at.
    pub address: IpAddr,
    /// The port; 0 for any.
    pub port: u16,
    /// Certificate and key, where streams are encrypted.
    pub tls: Option<TlsFiles>,
    /// How long a stream may say nothing and take nothing.
    pub idle: Duration,
}

/// Why streams cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum StreamingError {
    /// The address cannot be used.
    #[error("unable to listen for streams at {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Certificate or key cannot be used.
    #[error("{0}")]
    Tls(String),
}

/// A server of streams that listens, and does not serve yet.
pub struct Streaming {
    listener: TcpListener,
    desk: Arc<Desk>,
    tls: Option<Arc<tls::Tls>>,
    idle: Duration,
}

/// Where URLs are given out.
pub(crate) struct Desk {
    base: String,
    tokens: tokens::Tokens,
}

impl Desk {
    /// The URL by which a client gets what it ordered, once.
    pub(crate) fn url(&self, order: Order) -> Result<String, Refusal> {
        let kind = order.kind();
        let token = self.tokens.give(order)?;
        Ok(format!("{}/{kind}/{token}", self.base))
    }
}

impl Streaming {
    /// Listens.
    pub async fn open(settings: StreamingSettings) -> Result<Self, StreamingError> {
        let StreamingSettings { address, port, tls, idle } = settings;
        let tls = tls.map(tls::Tls::open).transpose().map_err(StreamingError::Tls)?.map(Arc::new);
        let address = SocketAddr::new(address, port);
        let refused = |source| StreamingError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let base = format!("{scheme}://{}", reachable(listener.local_addr().map_err(refused)?));
        Ok(Self {
            listener,
            desk: Arc::new(Desk { base, tokens: tokens::Tokens::default() }),
            tls,
            idle,
        })
    }

    /// Where its URLs are given out.
    pub(crate) fn desk(&self) -> Arc<Desk> {
        self.desk.clone()
    }

    /// Serves for ever.
    pub(crate) async fn serve(self, engine: Engine) {
        let Self { listener, desk, tls, idle } = self;
        let house = server::House { engine, namespace: Namespace::kubernetes(), desk, tls, idle };
        server::accept(listener, Arc::new(house)).await;
    }
}

/// The address that the kubelet, on this machine, connects to.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lead_somewhere() {
        let reach = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(reach("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(reach("[::]:80"), "[::1]:80");
        assert_eq!(reach("192.0.2.1:80"), "192.0.2.1:80");
    }
}
