//! The HTTP server that streams begin at: a token, an upgrade, a session.

use std::convert::Infallible;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use corten_base::Namespace;
use corten_base::limits::{STREAM_CONNECTIONS_MAX, STREAM_OPEN_SECONDS_MAX, STREAM_PORTS_MAX};
use corten_pods::Engine;
use corten_wire::remote::{Remote, Wanted};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection::{Connection, Hangup};
use super::forward::Pod;
use super::process::Target;
use super::tls::Tls;
use super::tokens::{Order, Tokens};
use super::upgrade::{Agreed, Refused, agree};
use super::{Desk, forward, remote};

/// How long a client may take to send a request, and the answer to reach it.
const REQUEST: Duration = Duration::from_secs(STREAM_OPEN_SECONDS_MAX);
/// How long nothing is accepted when that fails: the process has no
/// descriptors left, say.
const RETRY: Duration = Duration::from_millis(100);

/// What sessions need.
pub(super) struct House {
    pub(super) engine: Engine,
    pub(super) namespace: Namespace,
    pub(super) desk: Arc<Desk>,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) idle: Duration,
}

/// Takes connections for ever.
pub(super) async fn accept(listener: TcpListener, house: Arc<House>) {
    let room = Arc::new(Semaphore::new(STREAM_CONNECTIONS_MAX));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, _)) => drop(tokio::spawn(greet(socket, house.clone(), permit))),
            Err(error) => {
                tracing::warn!(%error, "unable to accept a streaming client");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Speaks HTTP with a client until it has what it wants.
async fn greet(socket: TcpStream, house: Arc<House>, permit: OwnedSemaphorePermit) {
    let hangup = match prepare(&socket) {
        Ok(hangup) => hangup,
        Err(error) => {
            tracing::debug!(%error, "unable to serve a streaming client");
            return;
        }
    };
    let means = Mutex::new(Some((hangup, permit)));
    match house.tls.clone() {
        None => speak(socket, house, means).await,
        Some(tls) => {
            let shake = async {
                let acceptor = tokio::task::spawn_blocking(move || tls.acceptor()).await?;
                acceptor.accept(socket).await
            };
            match tokio::time::timeout(REQUEST, shake).await {
                Ok(Ok(socket)) => speak(socket, house, means).await,
                Ok(Err(error)) => tracing::debug!(%error, "no TLS with a streaming client"),
                Err(_) => {}
            }
        }
    }
}

async fn speak(
    socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    house: Arc<House>,
    means: Means,
) {
    let service =
        service_fn(async |request| Ok::<_, Infallible>(answer(request, house.clone(), &means)));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        .half_close(true)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    if let Ok(Err(error)) = tokio::time::timeout(2 * REQUEST, served).await {
        tracing::debug!(%error, "a streaming client could not be answered");
    }
}

fn prepare(socket: &TcpStream) -> std::io::Result<Hangup> {
    socket.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(socket, true)?;
    socket.as_fd().try_clone_to_owned().map(Hangup::new)
}

/// What a session needs of its connection, which has but one.
type Means = Mutex<Option<(Hangup, OwnedSemaphorePermit)>>;

/// Answers a request; if with an upgrade, the session follows.
fn answer(mut request: Request<Incoming>, house: Arc<House>, means: &Means) -> Response<String> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (request, _) = request.into_parts();
    let (order, agreed, response) = match find(&request, &house.desk.tokens) {
        Ok(found) => found,
        Err(refused) => return refused.response(),
    };
    let taken = means.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some((hangup, permit)) = taken else {
        return Refused::new(StatusCode::BAD_REQUEST, "one stream for a connection").response();
    };
    tokio::spawn(async move {
        session(upgrade, house, hangup, order, agreed).await;
        drop(permit);
    });
    response
}

/// What a request is for, and how it is to be spoken about.
fn find(
    request: &http::request::Parts,
    tokens: &Tokens,
) -> Result<(Order, Agreed, Response<String>), Refused> {
    let unknown = || Refused::new(StatusCode::NOT_FOUND, "404 page not found");
    let path = request.uri.path().trim_start_matches('/');
    let (kind, token) = path.split_once('/').ok_or_else(unknown)?;
    if !tokens.knows(kind, token) {
        return Err(unknown());
    }
    if request.method != Method::GET && request.method != Method::POST {
        return Err(Refused::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and POST begin streams",
        ));
    }
    let (agreed, response) = agree(request, kind == "portforward")?;
    let mut order = tokens.take(kind, token).ok_or_else(unknown)?;
    if let (Order::PortForward { ports, .. }, Agreed::Channels(_)) = (&mut order, agreed)
        && ports.is_empty()
    {
        *ports = asked_ports(request.uri.query().unwrap_or_default())?;
    }
    Ok((order, agreed, response))
}

/// The ports of a query: `port=80&port=81,82`.
fn asked_ports(query: &str) -> Result<Vec<u16>, Refused> {
    let bad = |reason: String| Refused::new(StatusCode::BAD_REQUEST, reason);
    let values = query.split('&').filter_map(|pair| pair.strip_prefix("port="));
    let ports = values
        .flat_map(|value| value.split(','))
        .map(|text| match text.parse() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(bad(format!("unable to forward port {text:?}: a port is 1 to 65535"))),
        })
        .collect::<Result<Vec<u16>, _>>()?;
    match ports.len() {
        0 => Err(bad("unable to forward ports: the query names none, as ?port=80 does".into())),
        1..=STREAM_PORTS_MAX => Ok(ports),
        _ => Err(bad(format!("unable to forward more than {STREAM_PORTS_MAX} ports"))),
    }
}

async fn session(
    upgrade: OnUpgrade,
    house: Arc<House>,
    hangup: Hangup,
    order: Order,
    agreed: Agreed,
) {
    let upgraded = match tokio::time::timeout(REQUEST, upgrade).await {
        Ok(Ok(upgraded)) => upgraded,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a streaming client left before its upgrade");
            return;
        }
        Err(_) => return,
    };
    let connection = connect(upgraded, hangup, house.idle);
    let target = |container: &str| Target {
        engine: house.engine.clone(),
        namespace: house.namespace.clone(),
        container: container.to_owned(),
    };
    let pod = |sandbox: &str| Pod {
        engine: house.engine.clone(),
        namespace: house.namespace.clone(),
        sandbox: sandbox.to_owned(),
    };
    match (&order, agreed) {
        (
            Order::Exec { container, wanted, .. } | Order::Attach { container, wanted },
            Agreed::Spdy(protocol),
        ) => {
            let (target, codec) = (target(container), Remote::spdy(protocol, *wanted));
            remote::run(connection, codec, order, target).await;
        }
        (
            Order::Exec { container, wanted, .. } | Order::Attach { container, wanted },
            Agreed::WebSocket(protocol),
        ) => {
            let target = target(container);
            let codec = websocket(&connection, protocol, *wanted);
            remote::run(connection, codec, order, target).await;
        }
        (Order::PortForward { sandbox, .. }, Agreed::Forward) => {
            forward::run(connection, pod(sandbox), false).await;
        }
        (Order::PortForward { sandbox, .. }, Agreed::Tunnel) => {
            forward::run(connection.tunnel(), pod(sandbox), true).await;
        }
        (Order::PortForward { sandbox, ports }, Agreed::Channels(protocol)) => {
            forward::run_channels(connection, pod(sandbox), protocol, ports).await;
        }
        // What is agreed upon fits what is ordered.
        (
            Order::Exec { .. } | Order::Attach { .. },
            Agreed::Forward | Agreed::Tunnel | Agreed::Channels(_),
        )
        | (Order::PortForward { .. }, Agreed::Spdy(_) | Agreed::WebSocket(_)) => {}
    }
}

fn websocket(
    connection: &Connection,
    protocol: corten_wire::remote::WebSocketProtocol,
    wanted: Wanted,
) -> Remote {
    let mut begin = Vec::new();
    let codec = Remote::websocket(protocol, wanted, &mut begin);
    // Fails only where much waits already.
    let _ = connection.writer.queue(|out| out.append(&mut begin));
    codec
}

/// The bare connection, where it is one of TCP.
fn connect(upgraded: Upgraded, hangup: Hangup, idle: Duration) -> Connection {
    match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => {
            let (source, drain) = parts.io.into_inner().into_split();
            Connection::new(Box::new(source), Box::new(drain), &parts.read_buf, hangup, idle)
        }
        Err(upgraded) => {
            let (source, drain) = tokio::io::split(TokioIo::new(upgraded));
            Connection::new(Box::new(source), Box::new(drain), &[], hangup, idle)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_in_the_query() {
        assert_eq!(asked_ports("port=80&x=1&port=81,82").unwrap(), [80, 81, 82]);
        for wrong in ["", "port=", "port=0", "port=70000", "ports=1"] {
            assert!(asked_ports(wrong).is_err(), "{wrong}");
        }
        assert!(asked_ports(&"port=1&".repeat(STREAM_PORTS_MAX + 1)).is_err());
    }
}
