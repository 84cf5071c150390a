//! `corten.v1`, for people's commands: one file for each group of calls.

mod attach;
mod chunks;
mod containers;
mod copy;
mod events;
mod exec;
mod forward;
mod images;
mod limits;
mod logs;
mod node;
mod pods;
mod request;
mod session;
mod stats;

use corten_api::corten::corten_server::Corten;
use corten_api::corten::*;
use corten_base::Namespace;
use corten_pods::Engine;
use tonic::{Request, Response, Status, Streaming};

use crate::NodeFacts;
use crate::status::Wire;
use crate::validate::refuse;

/// What serves `corten.v1`. It sees every namespace.
pub struct People {
    engine: Engine,
    facts: NodeFacts,
}

/// A stream of answers.
type Answers<T> = tonic::codegen::BoxStream<T>;

impl People {
    /// Serves what this engine runs.
    pub fn new(engine: Engine, facts: NodeFacts) -> Self {
        Self { engine, facts }
    }
}

/// The namespace that is meant; people's own where none is named.
fn namespace(name: &str) -> Result<Namespace, Status> {
    let name = if name.is_empty() { Namespace::DEFAULT } else { name };
    name.parse().map_err(|error| refuse("namespace", error)).wire()
}

/// `async fn name(request) -> response`, done by the method of the same name
/// in one of the files beside this one; then those that stream.
macro_rules! serve {
    (
        unary { $($name:ident: $request:ty => $response:ty;)* }
        streamed { $($stream_name:ident, $stream_type:ident: $stream_request:ty => $stream_response:ty;)* }
        both { $($both_name:ident, $both_type:ident: $both_request:ty => $both_response:ty;)* }
        taken { $($taken_name:ident: $taken_request:ty => $taken_response:ty;)* }
    ) => {
        #[tonic::async_trait]
        impl Corten for People {
            $(
                async fn $name(
                    &self,
                    request: Request<$request>,
                ) -> Result<Response<$response>, Status> {
                    People::$name(self, request.into_inner()).await.map(Response::new)
                }
            )*
            $(
                type $stream_type = Answers<$stream_response>;

                async fn $stream_name(
                    &self,
                    request: Request<$stream_request>,
                ) -> Result<Response<Answers<$stream_response>>, Status> {
                    People::$stream_name(self, request.into_inner()).await.map(Response::new)
                }
            )*
            $(
                type $both_type = Answers<$both_response>;

                async fn $both_name(
                    &self,
                    request: Request<Streaming<$both_request>>,
                ) -> Result<Response<Answers<$both_response>>, Status> {
                    People::$both_name(self, request.into_inner()).await.map(Response::new)
                }
            )*
            $(
                async fn $taken_name(
                    &self,
                    request: Request<Streaming<$taken_request>>,
                ) -> Result<Response<$taken_response>, Status> {
                    People::$taken_name(self, request.into_inner()).await.map(Response::new)
                }
            )*
        }
    };
}

serve! {
    unary {
        version: VersionRequest => VersionResponse;
        info: InfoRequest => InfoResponse;
        list_namespaces: ListNamespacesRequest => ListNamespacesResponse;
        processes: ProcessesRequest => ProcessesResponse;
        list_pods: ListPodsRequest => ListPodsResponse;
        list_images: ListImagesRequest => ListImagesResponse;
        remove_image: RemoveImageRequest => RemoveImageResponse;
        inspect_image: InspectImageRequest => InspectImageResponse;
        create_container: CreateContainerRequest => CreateContainerResponse;
        start_container: StartContainerRequest => StartContainerResponse;
        stop_container: StopContainerRequest => StopContainerResponse;
        kill_container: KillContainerRequest => KillContainerResponse;
        remove_container: RemoveContainerRequest => RemoveContainerResponse;
        list_containers: ListContainersRequest => ListContainersResponse;
        inspect_container: InspectContainerRequest => InspectContainerResponse;
        stats: StatsRequest => StatsResponse;
        update_container: UpdateContainerRequest => UpdateContainerResponse;
        wait_container: WaitContainerRequest => WaitContainerResponse;
    }
    streamed {
        pull_image, PullImageStream: PullImageRequest => PullImageResponse;
        save_images, SaveImagesStream: SaveImagesRequest => SaveImagesResponse;
        events, EventsStream: EventsRequest => EventsResponse;
        logs, LogsStream: LogsRequest => LogsResponse;
        copy_out, CopyOutStream: CopyOutRequest => CopyOutResponse;
    }
    both {
        exec, ExecStream: ExecRequest => ExecResponse;
        attach, AttachStream: AttachRequest => AttachResponse;
        port_forward, PortForwardStream: PortForwardRequest => PortForwardResponse;
    }
    taken {
        load_images: LoadImagesRequest => LoadImagesResponse;
        copy_in: CopyInRequest => CopyInResponse;
    }
}
