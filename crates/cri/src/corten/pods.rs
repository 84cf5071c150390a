//! Kubernetes' pods, for people to look at.

use corten_api::corten as api;
use corten_pods::{
    ContainerFilter, ContainerPhase, ContainerView, SandboxFilter, SandboxPhase, SandboxView,
};
use tonic::Status;

use super::{People, namespace};

impl People {
    pub(super) async fn list_pods(
        &self,
        request: api::ListPodsRequest,
    ) -> Result<api::ListPodsResponse, Status> {
        let namespace = namespace(&request.namespace)?;
        let filter = SandboxFilter {
            phase: (!request.all).then_some(SandboxPhase::Ready),
            ..SandboxFilter::default()
        };
        let mut sandboxes = self.engine.sandboxes(&namespace, &filter);
        sandboxes.retain(|sandbox| !sandbox.config.solo);
        sandboxes.sort_by_key(|sandbox| std::cmp::Reverse(sandbox.created_at_ns));
        let containers = self.engine.containers(&namespace, &ContainerFilter::default());
        let summary = |sandbox: &SandboxView| summary(sandbox, &containers);
        Ok(api::ListPodsResponse { pods: sandboxes.iter().map(summary).collect() })
    }
}

fn summary(sandbox: &SandboxView, containers: &[ContainerView]) -> api::PodSummary {
    let config = &sandbox.config;
    let of_it = || containers.iter().filter(|container| container.sandbox == sandbox.id);
    let running = of_it().filter(|container| container.phase == ContainerPhase::Running);
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    api::PodSummary {
        id: sandbox.id.to_string(),
        name: config.name.clone(),
        pod_namespace: config.namespace.clone(),
        uid: config.uid.clone(),
        attempt: config.attempt,
        ready: sandbox.phase == SandboxPhase::Ready,
        created_at_ns: sandbox.created_at_ns,
        addresses: sandbox.ips.iter().map(ToString::to_string).collect(),
        containers: number(of_it().count()),
        running: number(running.count()),
        labels: config.labels.clone(),
        handler: config.runtime_handler.clone(),
    }
}
