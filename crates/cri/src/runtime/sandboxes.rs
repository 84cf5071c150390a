//! Sandboxes over CRI.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use corten_api::cri::*;
use corten_pods::ContainerFilter;
use tonic::Status;

use super::Runtime;
use crate::batches::{self, Answers};
use crate::status::{Wire, to_the_end};
use crate::translate::{filter, sandbox, view};
use crate::validate::id;

impl Runtime {
    pub(super) async fn run_pod_sandbox(
        &self,
        request: RunPodSandboxRequest,
    ) -> Result<RunPodSandboxResponse, Status> {
        let config = sandbox::from_cri(request.config, request.runtime_handler).wire()?;
        let (engine, namespace) = (self.engine.clone(), self.namespace.clone());
        let made = to_the_end(async move { engine.run_sandbox(&namespace, config).await }).await?;
        Ok(RunPodSandboxResponse { pod_sandbox_id: made.to_string() })
    }

    pub(super) async fn stop_pod_sandbox(
        &self,
        request: StopPodSandboxRequest,
    ) -> Result<StopPodSandboxResponse, Status> {
        let sandbox = id("pod_sandbox_id", &request.pod_sandbox_id).wire()?.to_owned();
        let (engine, namespace) = (self.engine.clone(), self.namespace.clone());
        to_the_end(async move { engine.stop_sandbox(&namespace, &sandbox).await }).await?;
        Ok(StopPodSandboxResponse {})
    }

    pub(super) async fn remove_pod_sandbox(
        &self,
        request: RemovePodSandboxRequest,
    ) -> Result<RemovePodSandboxResponse, Status> {
        let sandbox = id("pod_sandbox_id", &request.pod_sandbox_id).wire()?.to_owned();
        let (engine, namespace) = (self.engine.clone(), self.namespace.clone());
        to_the_end(async move { engine.remove_sandbox(&namespace, &sandbox).await }).await?;
        Ok(RemovePodSandboxResponse {})
    }

    pub(super) async fn pod_sandbox_status(
        &self,
        request: PodSandboxStatusRequest,
    ) -> Result<PodSandboxStatusResponse, Status> {
        let wanted = id("pod_sandbox_id", &request.pod_sandbox_id).wire()?;
        // Before the views are taken: what is seen is at least this new.
        let timestamp = now_ns();
        let sandbox = self.engine.sandbox(&self.namespace, wanted).wire()?;
        let members =
            ContainerFilter { sandbox: sandbox.id.to_string(), ..ContainerFilter::default() };
        let containers = self.engine.containers(&self.namespace, &members);
        let info = if request.verbose {
            let json = self.engine.inspect_sandbox(&self.namespace, sandbox.id.as_str()).wire()?;
            BTreeMap::from([("info".to_owned(), json.to_string())])
        } else {
            BTreeMap::new()
        };
        Ok(PodSandboxStatusResponse {
            status: Some(view::sandbox_status(&sandbox)),
            info,
            containers_statuses: containers
                .iter()
                .map(|container| view::container_status(container, self.image_name(container)))
                .collect(),
            timestamp,
        })
    }

    pub(super) async fn list_pod_sandbox(
        &self,
        request: ListPodSandboxRequest,
    ) -> Result<ListPodSandboxResponse, Status> {
        let filter = filter::sandboxes(request.filter).wire()?;
        let sandboxes = self.engine.sandboxes(&self.namespace, &filter);
        Ok(ListPodSandboxResponse { items: sandboxes.iter().map(view::sandbox).collect() })
    }

    pub(super) async fn stream_pod_sandboxes(
        &self,
        request: StreamPodSandboxesRequest,
    ) -> Result<Answers<StreamPodSandboxesResponse>, Status> {
        let filter = filter::sandboxes(request.filter).wire()?;
        let sandboxes = self.engine.sandboxes(&self.namespace, &filter);
        Ok(batches::stream(sandboxes.into_iter().map(|each| view::sandbox(&each))))
    }
}

/// Nanoseconds since 1970.
pub(crate) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
