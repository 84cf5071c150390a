//! Limits over CRI: changes of what runs.

use corten_api::cri::*;
use tonic::Status;

use super::Runtime;
use crate::status::{Wire, to_the_end};
use crate::translate::resources;
use crate::validate::{id, present};

impl Runtime {
    /// The annotations are for plugins, which may have a use for them; ours
    /// stay those that the container was made with.
    pub(super) async fn update_container_resources(
        &self,
        request: UpdateContainerResourcesRequest,
    ) -> Result<UpdateContainerResourcesResponse, Status> {
        let container = id("container_id", &request.container_id).wire()?.to_owned();
        let asked = present("linux", request.linux).wire()?;
        let asked = resources::from_cri("linux", Some(asked)).wire()?;
        let (engine, namespace) = (self.engine.clone(), self.namespace.clone());
        to_the_end(async move { engine.update_container(&namespace, &container, asked).await })
            .await?;
        Ok(UpdateContainerResourcesResponse {})
    }

    pub(super) async fn update_pod_sandbox_resources(
        &self,
        request: UpdatePodSandboxResourcesRequest,
    ) -> Result<UpdatePodSandboxResourcesResponse, Status> {
        let sandbox = id("pod_sandbox_id", &request.pod_sandbox_id).wire()?.to_owned();
        let pod = resources::from_cri("resources", request.resources).wire()?;
        let overhead = resources::from_cri("overhead", request.overhead).wire()?;
        let (engine, namespace) = (self.engine.clone(), self.namespace.clone());
        to_the_end(async move { engine.update_sandbox(&namespace, &sandbox, pod, overhead).await })
            .await?;
        Ok(UpdatePodSandboxResourcesResponse {})
    }
}
