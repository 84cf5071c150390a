//! Containers over CRI.

use std::collections::BTreeMap;
use std::time::Duration;

use corten_api::cri::*;
use corten_pods::{ContainerView, Engine};
use tonic::Status;

use super::Runtime;
use crate::batches::{self, Answers};
use crate::status::{Wire, to_the_end};
use crate::translate::{container, filter, view};
use crate::validate::id;

impl Runtime {
    pub(super) async fn create_container(
        &self,
        request: CreateContainerRequest,
    ) -> Result<CreateContainerResponse, Status> {
        // `sandbox_config` says again what RunPodSandbox said; the sandbox
        // itself remembers, and cannot be changed by a container.
        let sandbox = id("pod_sandbox_id", &request.pod_sandbox_id).wire()?.to_owned();
        let config = container::from_cri(request.config).wire()?;
        let (engine, namespace) = (self.engine.clone(), self.namespace.clone());
        let made =
            to_the_end(async move { engine.create_container(&namespace, &sandbox, config).await })
                .await?;
        Ok(CreateContainerResponse { container_id: made.to_string() })
    }

    pub(super) async fn start_container(
        &self,
        request: StartContainerRequest,
    ) -> Result<StartContainerResponse, Status> {
        let container = id("container_id", &request.container_id).wire()?.to_owned();
        let (engine, namespace) = (self.engine.clone(), self.namespace.clone());
        to_the_end(async move { engine.start_container(&namespace, &container).await }).await?;
        Ok(StartContainerResponse {})
    }

    pub(super) async fn stop_container(
        &self,
        request: StopContainerRequest,
    ) -> Result<StopContainerResponse, Status> {
        let container = id("container_id", &request.container_id).wire()?.to_owned();
        // 0 kills at once, and so does what is below it.
        let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or_default());
        let (engine, namespace) = (self.engine.clone(), self.namespace.clone());
        to_the_end(async move { engine.stop_container(&namespace, &container, grace).await })
            .await?;
        Ok(StopContainerResponse {})
    }

    pub(super) async fn remove_container(
        &self,
        request: RemoveContainerRequest,
    ) -> Result<RemoveContainerResponse, Status> {
        let container = id("container_id", &request.container_id).wire()?.to_owned();
        let (engine, namespace) = (self.engine.clone(), self.namespace.clone());
        to_the_end(async move { engine.remove_container(&namespace, &container).await }).await?;
        Ok(RemoveContainerResponse {})
    }

    pub(super) async fn container_status(
        &self,
        request: ContainerStatusRequest,
    ) -> Result<ContainerStatusResponse, Status> {
        let wanted = id("container_id", &request.container_id).wire()?;
        let container = self.engine.container(&self.namespace, wanted).wire()?;
        let info = if request.verbose {
            let known = self.engine.inspect_container(&self.namespace, container.id.as_str());
            BTreeMap::from([("info".to_owned(), known.wire()?.to_string())])
        } else {
            BTreeMap::new()
        };
        let image = self.image_name(&container);
        Ok(ContainerStatusResponse {
            status: Some(view::container_status(&container, image)),
            info,
        })
    }

    pub(super) async fn list_containers(
        &self,
        request: ListContainersRequest,
    ) -> Result<ListContainersResponse, Status> {
        let containers = self.filtered(request.filter)?;
        let listed = |each: &ContainerView| view::container(each, self.image_name(each));
        Ok(ListContainersResponse { containers: containers.iter().map(listed).collect() })
    }

    pub(super) async fn stream_containers(
        &self,
        request: StreamContainersRequest,
    ) -> Result<Answers<StreamContainersResponse>, Status> {
        let engine = self.engine.clone();
        let listed = move |each: ContainerView| view::container(&each, image_name(&engine, &each));
        Ok(batches::stream(self.filtered(request.filter)?.into_iter().map(listed)))
    }

    fn filtered(&self, filter: Option<ContainerFilter>) -> Result<Vec<ContainerView>, Status> {
        Ok(match filter::containers(filter).wire()? {
            Some(filter) => self.engine.containers(&self.namespace, &filter),
            None => Vec::new(),
        })
    }

    pub(super) async fn reopen_container_log(
        &self,
        request: ReopenContainerLogRequest,
    ) -> Result<ReopenContainerLogResponse, Status> {
        let container = id("container_id", &request.container_id).wire()?.to_owned();
        let (engine, namespace) = (self.engine.clone(), self.namespace.clone());
        to_the_end(async move { engine.reopen_log(&namespace, &container).await }).await?;
        Ok(ReopenContainerLogResponse {})
    }

    /// The name that people know a container's image by.
    pub(super) fn image_name(&self, container: &ContainerView) -> String {
        image_name(&self.engine, container)
    }
}

/// The name that people know a container's image by.
pub(super) fn image_name(engine: &Engine, container: &ContainerView) -> String {
    let tags = crate::image::tags(engine.images(), &container.namespace, &container.image_id);
    view::image_name(container, &tags)
}
