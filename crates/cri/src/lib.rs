//! The servers: CRI for the kubelet, `corten.v1` for people, on one socket.
//! They validate, translate and call; what happens is decided elsewhere.
#![forbid(unsafe_code)]

mod batches;
mod calls;
mod corten;
mod deadline;
mod end;
mod image;
mod late;
mod metrics;
mod pipe;
mod runtime;
mod status;
mod streaming;
mod time;
mod translate;
mod validate;

pub use calls::Calls;

use std::sync::Arc;

use corten_api::corten::corten_server::CortenServer;
use corten_api::cri::CgroupDriver;
use corten_api::cri::image_service_server::ImageServiceServer;
use corten_api::cri::runtime_service_server::RuntimeServiceServer;
use corten_base::limits::{
    GRPC_ANSWER_BYTES_MAX, GRPC_MESSAGE_BYTES_MAX, GRPC_STREAMS_MAX, GRPC_WINDOW_BYTES,
};
use corten_pods::Engine;
use corten_store::Store;
use tokio::net::UnixListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

pub use streaming::{Streaming, StreamingError, StreamingSettings, TlsFiles};

/// What the servers tell about this node. It does not change while they run.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    /// The daemon's version, as in `0.1.0`.
    pub version: String,
    /// Who makes cgroups; the kubelet must agree.
    pub cgroup_driver: CgroupDriver,
    /// The configuration in force, with `stateDir` and `rootDir` as the
    /// verbose status of other runtimes has them.
    pub config: serde_json::Value,
    /// What people are told by `corten doctor`: group, name, value.
    pub facts: Vec<(String, String, String)>,
}

/// What the servers serve.
pub struct Opened {
    /// The engine.
    pub engine: Engine,
    /// Where its images are.
    pub store: Arc<Store>,
    /// The server of streams.
    pub streaming: Streaming,
}

/// Serves what `opening` opens, until `shutdown` is done, and then until the
/// calls under way are; they are counted in `calls`. Who calls earlier waits,
/// but for the version.
pub async fn serve<E>(
    listener: UnixListener,
    facts: NodeFacts,
    calls: Calls,
    opening: impl Future<Output = Result<Opened, E>> + Send + 'static,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError<E>>
where
    E: Send + 'static,
{
    let version = runtime::version(&facts);
    let (runtime, runtime_opened) = watch::channel(None);
    let (images, images_opened) = watch::channel(None);
    let (people, people_opened) = watch::channel(None);
    macro_rules! bounded {
        ($opened:expr) => {
            calls::Counted {
                service: deadline::Punctual(late::Late::new($opened, version.clone())),
                calls: calls.clone(),
            }
        };
    }
    macro_rules! sized {
        ($service:expr) => {
            $service
                .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(GRPC_ANSWER_BYTES_MAX)
        };
    }
    let mut streams = JoinSet::new();
    // On a task of its own: the version is told while this one works.
    let opening = tokio::spawn(opening);
    let opened = async {
        let Opened { engine, store, streaming } = match opening.await {
            Ok(opened) => opened.map_err(ServeError::Open)?,
            Err(error) => return Err(ServeError::Panic(error.to_string())),
        };
        let service = runtime::Runtime::new(engine.clone(), facts.clone(), streaming.desk());
        runtime.send_replace(Some(sized!(RuntimeServiceServer::new(service))));
        let service = image::ImageServer::new(engine.clone(), store);
        images.send_replace(Some(sized!(ImageServiceServer::new(service))));
        let service = corten::People::new(engine.clone(), facts);
        people.send_replace(Some(sized!(CortenServer::new(service))));
        streams.spawn(streaming.serve(engine.clone()));
        Ok(engine)
    };
    let (stop, stopped) = oneshot::channel();
    let server = Server::builder()
        .max_concurrent_streams(GRPC_STREAMS_MAX)
        .initial_stream_window_size(GRPC_WINDOW_BYTES)
        .initial_connection_window_size(GRPC_WINDOW_BYTES)
        .add_service(bounded!(runtime_opened))
        .add_service(bounded!(images_opened))
        .add_service(bounded!(people_opened))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async {
            let _ = stopped.await;
        });
    let life = async move {
        // What is being opened is opened first, so that it can be closed.
        let engine = opened.await?;
        shutdown.await;
        // Who listens to events would hold us up for ever.
        engine.end_events();
        let _ = stop.send(());
        Ok(())
    };
    tokio::pin!(server);
    tokio::pin!(life);
    tokio::select! {
        lived = &mut life => lived?,
        served = &mut server => return Err(ServeError::Ended(served.err())),
    }
    server.await.map_err(|error| ServeError::Ended(Some(error)))
}

/// Why nothing is served any more.
#[derive(Debug, thiserror::Error)]
pub enum ServeError<E> {
    /// It could not be opened.
    #[error("what was to be served could not be opened")]
    Open(E),
    /// Opening it panicked.
    #[error("opening what is to be served panicked: {0}")]
    Panic(String),
    /// The server has ended by itself.
    #[error("the server has ended by itself ({0:?})")]
    Ended(Option<tonic::transport::Error>),
}
