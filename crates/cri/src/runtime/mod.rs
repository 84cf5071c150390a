//! CRI's RuntimeService: one file for each group of calls.
//!
//! What is not here answers UNIMPLEMENTED, by the generated trait.

mod checkpoint;
mod cni;
mod containers;
mod events;
mod exec;
mod metrics;
mod node;
mod resources;
mod sandboxes;
mod stats;
mod streaming;

pub(crate) use node::version;
pub(crate) use sandboxes::now_ns;

use std::sync::Arc;

use corten_api::cri::runtime_service_server::RuntimeService;
use corten_api::cri::*;
use corten_base::Namespace;
use corten_pods::Engine;
use tonic::{Request, Response, Status};

use crate::NodeFacts;
use crate::batches::Answers;
use crate::streaming::Desk;

/// What serves RuntimeService. It sees the namespace `k8s.io` only.
pub struct Runtime {
    engine: Engine,
    namespace: Namespace,
    facts: NodeFacts,
    desk: Arc<Desk>,
}

impl Runtime {
    /// Serves what this engine runs; URLs for streams are the desk's.
    pub(crate) fn new(engine: Engine, facts: NodeFacts, desk: Arc<Desk>) -> Self {
        Self { engine, namespace: Namespace::kubernetes(), facts, desk }
    }
}

/// `async fn name(request) -> response`, done by the method of the same name
/// in one of the files beside this one; then those whose answer is a stream.
macro_rules! serve {
    (
        unary { $($name:ident: $request:ty => $response:ty;)* }
        streamed { $($stream_name:ident, $stream_type:ident: $stream_request:ty => $stream_response:ty;)* }
    ) => {
        #[tonic::async_trait]
        impl RuntimeService for Runtime {
            $(
                async fn $name(
                    &self,
                    request: Request<$request>,
                ) -> Result<Response<$response>, Status> {
                    Runtime::$name(self, request.into_inner()).await.map(Response::new)
                }
            )*
            $(
                type $stream_type = Answers<$stream_response>;

                async fn $stream_name(
                    &self,
                    request: Request<$stream_request>,
                ) -> Result<Response<Answers<$stream_response>>, Status> {
                    Runtime::$stream_name(self, request.into_inner()).await.map(Response::new)
                }
            )*
        }
    };
}

serve! {
    unary {
        version: VersionRequest => VersionResponse;
        status: StatusRequest => StatusResponse;
        runtime_config: RuntimeConfigRequest => RuntimeConfigResponse;
        update_runtime_config: UpdateRuntimeConfigRequest => UpdateRuntimeConfigResponse;
        run_pod_sandbox: RunPodSandboxRequest => RunPodSandboxResponse;
        stop_pod_sandbox: StopPodSandboxRequest => StopPodSandboxResponse;
        remove_pod_sandbox: RemovePodSandboxRequest => RemovePodSandboxResponse;
        pod_sandbox_status: PodSandboxStatusRequest => PodSandboxStatusResponse;
        list_pod_sandbox: ListPodSandboxRequest => ListPodSandboxResponse;
        create_container: CreateContainerRequest => CreateContainerResponse;
        start_container: StartContainerRequest => StartContainerResponse;
        stop_container: StopContainerRequest => StopContainerResponse;
        remove_container: RemoveContainerRequest => RemoveContainerResponse;
        container_status: ContainerStatusRequest => ContainerStatusResponse;
        list_containers: ListContainersRequest => ListContainersResponse;
        update_container_resources:
            UpdateContainerResourcesRequest => UpdateContainerResourcesResponse;
        update_pod_sandbox_resources:
            UpdatePodSandboxResourcesRequest => UpdatePodSandboxResourcesResponse;
        reopen_container_log: ReopenContainerLogRequest => ReopenContainerLogResponse;
        exec_sync: ExecSyncRequest => ExecSyncResponse;
        checkpoint_container: CheckpointContainerRequest => CheckpointContainerResponse;
        checkpoint_pod: CheckpointPodRequest => CheckpointPodResponse;
        restore_pod: RestorePodRequest => RestorePodResponse;
        container_stats: ContainerStatsRequest => ContainerStatsResponse;
        list_container_stats: ListContainerStatsRequest => ListContainerStatsResponse;
        pod_sandbox_stats: PodSandboxStatsRequest => PodSandboxStatsResponse;
        list_metric_descriptors: ListMetricDescriptorsRequest => ListMetricDescriptorsResponse;
        list_pod_sandbox_metrics: ListPodSandboxMetricsRequest => ListPodSandboxMetricsResponse;
        list_pod_sandbox_stats: ListPodSandboxStatsRequest => ListPodSandboxStatsResponse;
        exec: ExecRequest => ExecResponse;
        attach: AttachRequest => AttachResponse;
        port_forward: PortForwardRequest => PortForwardResponse;
    }
    streamed {
        get_container_events, GetContainerEventsStream: GetEventsRequest => ContainerEventResponse;
        stream_pod_sandboxes, StreamPodSandboxesStream: StreamPodSandboxesRequest => StreamPodSandboxesResponse;
        stream_containers, StreamContainersStream: StreamContainersRequest => StreamContainersResponse;
        stream_container_stats, StreamContainerStatsStream: StreamContainerStatsRequest => StreamContainerStatsResponse;
        stream_pod_sandbox_metrics, StreamPodSandboxMetricsStream: StreamPodSandboxMetricsRequest => StreamPodSandboxMetricsResponse;
        stream_pod_sandbox_stats, StreamPodSandboxStatsStream: StreamPodSandboxStatsRequest => StreamPodSandboxStatsResponse;
    }
}
