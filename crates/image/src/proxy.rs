//! The way to a registry: straight, or through a proxy of the site.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Which proxies lead out of the site, in the words of the environment
/// variables that everybody sets for it.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// `HTTP_PROXY`: for what is fetched without TLS.
    pub http: String,
    /// `HTTPS_PROXY`: for what is fetched with TLS.
    pub https: String,
    /// `NO_PROXY`: names, addresses and subnets that are reached without, by comma.
    pub no: String,
}

impl Proxies {
    /// What the environment of this process says, in capitals or not.
    ///
    /// # Errors
    /// The variable, and why what it says is of no use.
    pub fn from_environment() -> Result<Self, String> {
        let value = |name: &str| {
            let small = name.to_ascii_lowercase();
            [name, &small].into_iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default()
        };
        let all = value("ALL_PROXY");
        let proxy = |name: &str| {
            let own = value(name);
            let chosen = if own.is_empty() { all.clone() } else { own };
            check(&chosen).map_err(|why| {
                format!("unable to use the proxy of {name} (or ALL_PROXY): {why}")
            })?;
            Ok::<_, String>(chosen)
        };
        Ok(Self { http: proxy("HTTP_PROXY")?, https: proxy("HTTPS_PROXY")?, no: value("NO_PROXY") })
    }
}

/// A proxy that would be passed over in silence is worse than none. What is
/// said about it has no credentials in it.
fn check(proxy: &str) -> Result<(), &'static str> {
    if proxy.is_empty() {
        return Ok(());
    }
    let uri = proxy.parse::<Uri>().map_err(|_| "it is no URL")?;
    match uri.scheme_str() {
        None | Some("http") => Ok(()),
        Some(_) => Err("only proxies of the form http://host:port are offered"),
    }
}

/// Decides for each server, and remembers what a proxy must be told.
#[derive(Debug, Clone)]
pub(crate) struct Ways(Arc<Matcher>);

impl Ways {
    pub(crate) fn new(proxies: &Proxies) -> Self {
        let builder = Matcher::builder().http(proxies.http.clone()).https(proxies.https.clone());
        Self(Arc::new(builder.no(proxies.no.clone()).build()))
    }

    fn proxy(&self, server: &Uri) -> Option<Intercept> {
        // A proxy's loopback is not ours.
        let host = server.host()?.trim_matches(['[', ']']);
        let address = host.parse::<std::net::IpAddr>();
        if host == "localhost" || address.is_ok_and(|address| address.is_loopback()) {
            return None;
        }
        self.0.intercept(server)
    }

    /// What goes with a request without TLS; one with TLS has it in its CONNECT.
    pub(crate) fn authorization(&self, server: &Uri) -> Option<HeaderValue> {
        let proxy = self.proxy(server).filter(|_| server.scheme_str() == Some("http"))?;
        proxy.basic_auth().cloned()
    }
}

/// Connects, through a proxy where one is due.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    pub ways: Ways,
    pub http: HttpConnector,
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.http.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        let Some(proxy) = self.ways.proxy(&server) else {
            let connecting = self.http.call(server);
            return Box::pin(async move { Ok(Stream { io: connecting.await?, relayed: false }) });
        };
        let at = proxy.uri().clone();
        if server.scheme_str() != Some("https") {
            let connecting = self.http.call(at.clone());
            return Box::pin(async move {
                let io = connecting.await.map_err(|error| through(&at, error.into()))?;
                Ok(Stream { io, relayed: true })
            });
        }
        let mut tunnel = Tunnel::new(at.clone(), self.http.clone());
        if let Some(authorization) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        let connecting = tunnel.call(server);
        Box::pin(async move {
            let io = connecting.await.map_err(|error| through(&at, error.into()))?;
            Ok(Stream { io, relayed: false })
        })
    }
}

fn through(proxy: &Uri, error: BoxError) -> BoxError {
    let authority = proxy.host().unwrap_or_default();
    let port = proxy.port_u16().map_or_else(String::new, |port| format!(":{port}"));
    let why = crate::client::chain(error.as_ref());
    format!("through the proxy {authority}{port}: {why}").into()
}

/// A connection to a server, or to a proxy that relays requests.
pub(crate) struct Stream {
    io: TokioIo<TcpStream>,
    relayed: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.io.inner().connected().proxy(self.relayed)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::{Proxies, Ways, check};

    #[test]
    fn who_is_reached_through_a_proxy() {
        let ways = Ways::new(&Proxies {
            http: "http://me:secret@web:3128".into(),
            https: "http://tls:3128".into(),
            no: ".cluster.local,10.0.0.0/8".into(),
        });
        for (server, proxy) in [
            ("http://r.example/", Some("web")),
            ("https://r.example/", Some("tls")),
            ("https://r.cluster.local/", None),
            ("http://10.1.2.3:5000/", None),
            ("http://localhost:5000/", None),
            ("http://127.0.0.1:5000/", None),
            ("https://[::1]:5000/", None),
        ] {
            let found = ways.proxy(&server.parse().unwrap());
            assert_eq!(found.as_ref().and_then(|found| found.uri().host()), proxy, "{server}");
        }
        let sent = ways.authorization(&"http://r.example/".parse().unwrap());
        assert!(sent.is_some_and(|value| value.is_sensitive() || !value.is_empty()));
        assert_eq!(ways.authorization(&"https://r.example/".parse().unwrap()), None);
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        for (proxy, fine) in
            [("", true), ("p:3128", true), ("http://p", true), ("socks5://p", false)]
        {
            assert_eq!(check(proxy).is_ok(), fine, "{proxy}");
        }
    }
}
