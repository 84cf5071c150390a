//! `corten port-forward`: ports of a container or pod, on this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::BytesMut;
use corten_api::corten::port_forward_request::Event as Ask;
use corten_api::corten::port_forward_response::Event as Answer;
use corten_api::corten::{DataClosed, PortForwardRequest, PortForwardStart};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use crate::client::{Daemon, Place};
use crate::error::{Doing, Error, Result};
use crate::limits::{CONNECTIONS_MAX, INPUT_BYTES, INPUTS_WAITING_MAX};
use crate::output;
use crate::parse::forward::{self, Forward};

/// Listen on this machine for ports inside of a container or pod
///
/// Works without a published port, and reaches servers that listen on the
/// loopback alone. Goes on until Ctrl-C.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples: corten port-forward web 8080:80, \
                        corten -n k8s.io port-forward coredns :53")]
pub struct Arguments {
    /// Address of this machine to listen on [default: 127.0.0.1 and ::1]
    #[arg(long, value_name = "ADDRESS")]
    address: Option<IpAddr>,
    /// A container, or a pod by its id or name
    #[arg(value_name = "CONTAINER|POD")]
    target: String,
    /// Its port, and ours before it; ours may be left out after the colon
    /// (":80") to get a free one
    #[arg(required = true, value_name = "[OURS:]PORT", value_parser = forward::parse)]
    ports: Vec<Forward>,
}

/// A listener and where its connections go.
struct Entrance {
    listener: TcpListener,
    port: u16,
}

impl Arguments {
    /// Goes on until it is interrupted.
    pub async fn run(self, place: &Place) -> Result<u8> {
        let daemon = place.connect().await?;
        let mut entrances = Vec::new();
        for forward in &self.ports {
            entrances.extend(self.listen(*forward).await?);
        }
        let mut text = String::new();
        for entrance in &entrances {
            let ours = entrance.listener.local_addr().map_err(Error::io("listen"))?;
            text += &format!("{ours} -> {}:{}\n", self.target, entrance.port);
        }
        output::print(&text)?;
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut work = JoinSet::new();
        for entrance in entrances {
            work.spawn(serve(daemon.clone(), self.target.clone(), entrance, room.clone()));
        }
        match work.join_next().await {
            Some(Ok(outcome)) => outcome.map(|()| 0),
            Some(Err(_)) | None => Ok(0),
        }
    }

    /// Both loopbacks where none is named; IPv6's may be missing.
    async fn listen(&self, forward: Forward) -> Result<Vec<Entrance>> {
        let Forward { ours, port } = forward;
        let first = self.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let doing = |address: SocketAddr| format!("listen on {address}");
        let address = SocketAddr::new(first, ours);
        let listener = TcpListener::bind(address).await.map_err(Error::io(doing(address)))?;
        let ours = listener.local_addr().map_err(Error::io(doing(address)))?.port();
        let mut entrances = vec![Entrance { listener, port }];
        if self.address.is_none() {
            let second = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), ours);
            if let Ok(listener) = TcpListener::bind(second).await {
                entrances.push(Entrance { listener, port });
            }
        }
        Ok(entrances)
    }
}

async fn serve(
    daemon: Daemon,
    target: String,
    entrance: Entrance,
    room: Arc<Semaphore>,
) -> Result<()> {
    loop {
        // Those that find no room wait in the listener's queue.
        let Ok(place) = room.clone().acquire_owned().await else { return Ok(()) };
        let (stream, _) =
            entrance.listener.accept().await.map_err(Error::io("accept a connection"))?;
        let (daemon, target) = (daemon.clone(), target.clone());
        let port = entrance.port;
        tokio::spawn(async move {
            if let Err(error) = forward_one(&daemon, &target, port, stream).await {
                error.tell();
            }
            drop(place);
        });
    }
}

/// One connection, from its beginning to its end.
async fn forward_one(daemon: &Daemon, target: &str, port: u16, stream: TcpStream) -> Result<()> {
    let doing = format!("reach port {port} of {target}");
    let (requests, asking) = mpsc::channel(INPUTS_WAITING_MAX);
    let start = PortForwardStart {
        namespace: daemon.space(),
        target: target.to_owned(),
        port: port.into(),
    };
    // There is room: it is the first.
    let _ = requests.try_send(PortForwardRequest { event: Some(Ask::Start(start)) });
    let answer = daemon.calls().port_forward(ReceiverStream::new(asking)).await.doing(&doing)?;
    let mut answers = answer.into_inner();
    let (reader, mut writer) = stream.into_split();
    let saying = tokio::spawn(say(reader, requests));
    let outcome = loop {
        let answer = match answers.message().await.doing(&doing) {
            Ok(Some(answer)) => answer.event,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        if hear(answer, &mut writer).await.is_err() {
            // Nobody listens here any more.
            break Ok(());
        }
    };
    saying.abort();
    outcome
}

async fn hear(answer: Option<Answer>, writer: &mut OwnedWriteHalf) -> std::io::Result<()> {
    match answer {
        Some(Answer::Data(bytes)) => writer.write_all(&bytes).await,
        Some(Answer::DataClosed(DataClosed {})) => writer.shutdown().await,
        None => Ok(()),
    }
}

/// Carries what is said here until there is no more.
async fn say(mut reader: OwnedReadHalf, requests: mpsc::Sender<PortForwardRequest>) {
    loop {
        let mut buffer = BytesMut::with_capacity(INPUT_BYTES);
        let event = match reader.read_buf(&mut buffer).await {
            Ok(1..) => Ask::Data(buffer.freeze()),
            Ok(0) => Ask::DataClosed(DataClosed {}),
            // Broken: without another word the daemon lets go as well.
            Err(_) => return,
        };
        let last = matches!(event, Ask::DataClosed(_));
        if requests.send(PortForwardRequest { event: Some(event) }).await.is_err() || last {
            return;
        }
    }
}
