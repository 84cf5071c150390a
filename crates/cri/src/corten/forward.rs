//! PortForward: a client and a TCP port inside of a pod.

use std::net::TcpStream as StdStream;

use bytes::BytesMut;
use corten_api::corten as api;
use corten_api::corten::port_forward_request::Event as Input;
use corten_api::corten::port_forward_response::Event as Output;
use corten_base::limits::GRPC_CHUNK_BYTES;
use corten_base::{Namespace, SandboxId};
use corten_pods::{Error, SandboxFilter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::session::PIECES_WAITING_MAX;
use super::{Answers, People};
use crate::status::Wire;
use crate::validate::{id, port, refuse};

type Answer = Result<api::PortForwardResponse, Status>;

impl People {
    pub(super) async fn port_forward(
        &self,
        mut input: Streaming<api::PortForwardRequest>,
    ) -> Result<Answers<api::PortForwardResponse>, Status> {
        let first = input.message().await?.and_then(|message| message.event);
        let Some(Input::Start(start)) = first else {
            return Err(refuse("start", "it is the first message of a port-forward")).wire();
        };
        let port = port("port", start.port.into()).wire()?;
        let namespace = super::namespace(&start.namespace)?;
        let sandbox = self.sandbox_of(&namespace, id("target", &start.target).wire()?).wire()?;
        let socket = self.engine.port_forward(&namespace, sandbox.as_str(), port).await.wire()?;
        let stream = TcpStream::from_std(StdStream::from(socket))
            .map_err(|error| Error::internal(format!("unable to watch a connection: {error}")))
            .wire()?;
        let (reader, writer) = stream.into_split();
        let (answers, stream) = mpsc::channel(PIECES_WAITING_MAX);
        tokio::spawn(async move {
            let mut feed = tokio::spawn(feed(input, writer));
            if answer(reader, &answers).await {
                // It has said all, but may still be listening.
                tokio::select! {
                    _ = &mut feed => {}
                    () = answers.closed() => {}
                }
            }
            feed.abort();
        });
        Ok(Box::pin(ReceiverStream::new(stream)))
    }

    /// The sandbox of a container, or one by its id, its beginning, or its name.
    fn sandbox_of(&self, namespace: &Namespace, target: &str) -> corten_pods::Result<SandboxId> {
        if let Ok(container) = self.engine.container(namespace, target) {
            return Ok(container.sandbox);
        }
        if let Ok(sandbox) = self.engine.sandbox(namespace, target) {
            return Ok(sandbox.id);
        }
        let named = self.engine.sandboxes(namespace, &SandboxFilter::default()).into_iter().filter(
            |sandbox| {
                let config = &sandbox.config;
                config.name == target || format!("{}/{}", config.namespace, config.name) == target
            },
        );
        // A pod that was made again keeps its name; the newest is meant.
        let newest = named.max_by_key(|sandbox| sandbox.created_at_ns);
        newest.map(|sandbox| sandbox.id).ok_or_else(|| Error::not_found("container or pod", target))
    }
}

/// Carries what the port says; false if the connection or the client is gone.
async fn answer(mut reader: OwnedReadHalf, answers: &mpsc::Sender<Answer>) -> bool {
    loop {
        let mut buffer = BytesMut::with_capacity(GRPC_CHUNK_BYTES);
        let read = tokio::select! {
            read = reader.read_buf(&mut buffer) => read,
            () = answers.closed() => return false,
        };
        let event = match read {
            Ok(0) => Ok(Output::DataClosed(api::DataClosed {})),
            Ok(_) => Ok(Output::Data(buffer.freeze())),
            Err(error) => Err(Status::aborted(format!("the connection broke: {error}"))),
        };
        let last = !matches!(event, Ok(Output::Data(_)));
        let answer = event.map(|event| api::PortForwardResponse { event: Some(event) });
        let goes_on = answer.is_ok();
        if answers.send(answer).await.is_err() {
            return false;
        }
        if last {
            return goes_on;
        }
    }
}

/// Carries the client's data until the client closes it or leaves.
async fn feed(mut input: Streaming<api::PortForwardRequest>, mut writer: OwnedWriteHalf) {
    while let Ok(Some(message)) = input.message().await {
        match message.event {
            Some(Input::Data(bytes)) => {
                if writer.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Some(Input::DataClosed(_)) => {
                // The other side may have closed it itself.
                let _ = writer.shutdown().await;
            }
            Some(Input::Start(_)) | None => {}
        }
    }
}
