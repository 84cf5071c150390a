//! The servers: CRI for the kubelet, `corten.v1` for people, on one socket.
//! They validate, translate and call; what happens is decided elsewhere.
#![forbid(unsafe_code)]

mod batches;
mod calls;
mod corten;
mod deadline;
mod end;
mod image;
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
use corten_base::limits::{GRPC_MESSAGE_BYTES_MAX, GRPC_STREAMS_MAX, GRPC_WINDOW_BYTES};
use corten_pods::Engine;
use corten_store::Store;
use tokio::net::UnixListener;
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

/// Serves what `engine` runs, with its images in `store`, until `shutdown` is
/// done, and then until the calls under way are; they are counted in `calls`.
pub async fn serve(
    listener: UnixListener,
    engine: Engine,
    store: Arc<Store>,
    facts: NodeFacts,
    calls: Calls,
    streaming: Streaming,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    macro_rules! bounded {
        ($service:expr) => {
            calls::Counted {
                service: deadline::Punctual(
                    $service
                        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
                        .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX),
                ),
                calls: calls.clone(),
            }
        };
    }
    let runtime = runtime::Runtime::new(engine.clone(), facts.clone(), streaming.desk());
    let mut streams = JoinSet::new();
    streams.spawn(streaming.serve(engine.clone()));
    let images = image::ImageServer::new(engine.clone(), store);
    let people = corten::People::new(engine.clone(), facts);
    // Who listens to events would hold us up for ever.
    let shutdown = async move {
        shutdown.await;
        engine.end_events();
    };
    Server::builder()
        .max_concurrent_streams(GRPC_STREAMS_MAX)
        .initial_stream_window_size(GRPC_WINDOW_BYTES)
        .initial_connection_window_size(GRPC_WINDOW_BYTES)
        .add_service(bounded!(RuntimeServiceServer::new(runtime)))
        .add_service(bounded!(ImageServiceServer::new(images)))
        .add_service(bounded!(CortenServer::new(people)))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown)
        .await
}
