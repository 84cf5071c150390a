//! Checkpoints over CRI.

use std::collections::BTreeMap;
use std::time::Duration;

use corten_api::cri::*;
use corten_pods::{Error, Result};
use tonic::Status;

use super::Runtime;
use crate::status::{Wire, to_the_end};
use crate::translate::{container, sandbox};
use crate::validate::id;

impl Runtime {
    pub(super) async fn checkpoint_container(
        &self,
        request: CheckpointContainerRequest,
    ) -> std::result::Result<CheckpointContainerResponse, Status> {
        let container = id("container_id", &request.container_id).wire()?.to_owned();
        let seconds = u64::try_from(request.timeout).unwrap_or_default();
        let timeout = (seconds > 0).then(|| Duration::from_secs(seconds));
        let (engine, namespace) = (self.engine.clone(), self.namespace.clone());
        let location = request.location;
        to_the_end(async move {
            engine.checkpoint_container(&namespace, &container, &location, timeout).await
        })
        .await?;
        Ok(CheckpointContainerResponse {})
    }

    pub(super) async fn checkpoint_pod(
        &self,
        request: CheckpointPodRequest,
    ) -> std::result::Result<CheckpointPodResponse, Status> {
        let pod = id("pod_sandbox_id", &request.pod_sandbox_id).wire()?.to_owned();
        no_options(&request.options).wire()?;
        let (engine, namespace) = (self.engine.clone(), self.namespace.clone());
        let (output, containers) = (request.output_path, request.container_ids);
        to_the_end(
            async move { engine.checkpoint_pod(&namespace, &pod, &output, containers).await },
        )
        .await?;
        Ok(CheckpointPodResponse {})
    }

    pub(super) async fn restore_pod(
        &self,
        request: RestorePodRequest,
    ) -> std::result::Result<RestorePodResponse, Status> {
        no_options(&request.options).wire()?;
        let config = sandbox::from_cri(request.config, request.runtime_handler).wire()?;
        let containers = request.container_configs.into_iter();
        let containers: Result<Vec<_>> =
            containers.map(|config| container::from_cri(Some(config))).collect();
        let containers = containers.wire()?;
        let (engine, namespace) = (self.engine.clone(), self.namespace.clone());
        let from = request.checkpoint_path;
        let (pod, made) =
            to_the_end(
                async move { engine.restore_pod(&namespace, &from, config, containers).await },
            )
            .await?;
        let restored = made.into_iter().map(|(name, container)| RestoredContainer {
            name,
            container_id: container.to_string(),
        });
        Ok(RestorePodResponse {
            pod_sandbox_id: pod.to_string(),
            restored_containers: restored.collect(),
        })
    }
}

/// There are none yet, and one that is not known must not be passed over.
fn no_options(options: &BTreeMap<String, String>) -> Result<()> {
    match options.keys().next() {
        None => Ok(()),
        Some(name) => {
            Err(Error::invalid(format!("the checkpoint option {name:?} is not known here")))
        }
    }
}
