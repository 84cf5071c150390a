//! What pods and containers use, over CRI.

use corten_api::cri::*;
use corten_pods::{Detail, SandboxFilter};
use tonic::Status;

use super::Runtime;
use crate::batches::{self, Answers};
use crate::status::Wire;
use crate::translate::stats::{self, Machine};
use crate::validate::id;

impl Runtime {
    pub(super) async fn container_stats(
        &self,
        request: ContainerStatsRequest,
    ) -> Result<ContainerStatsResponse, Status> {
        let wanted = id("container_id", &request.container_id).wire()?;
        let found = self.engine.container_stats(&self.namespace, wanted).await.wire()?;
        let stats = stats::container(&found, &self.machine());
        Ok(ContainerStatsResponse { stats: Some(stats) })
    }

    pub(super) async fn list_container_stats(
        &self,
        request: ListContainerStatsRequest,
    ) -> Result<ListContainerStatsResponse, Status> {
        let stats = self.containers_stats(request.filter).await?.collect();
        Ok(ListContainerStatsResponse { stats })
    }

    pub(super) async fn stream_container_stats(
        &self,
        request: StreamContainerStatsRequest,
    ) -> Result<Answers<StreamContainerStatsResponse>, Status> {
        Ok(batches::stream(self.containers_stats(request.filter).await?))
    }

    async fn containers_stats(
        &self,
        filter: Option<ContainerStatsFilter>,
    ) -> Result<impl Iterator<Item = ContainerStats> + Send + use<>, Status> {
        let filter = filter.unwrap_or_default();
        let filter = corten_pods::ContainerFilter {
            id: filter.id,
            sandbox: filter.pod_sandbox_id,
            phase: None,
            labels: filter.label_selector,
        };
        let found = self.engine.containers_stats(&self.namespace, &filter).await.wire()?;
        let machine = self.machine();
        Ok(found.into_iter().map(move |each| stats::container(&each, &machine)))
    }

    pub(super) async fn pod_sandbox_stats(
        &self,
        request: PodSandboxStatsRequest,
    ) -> Result<PodSandboxStatsResponse, Status> {
        let wanted = id("pod_sandbox_id", &request.pod_sandbox_id).wire()?;
        let found = self.engine.sandbox_stats(&self.namespace, wanted).await.wire()?;
        let stats = stats::sandbox(&found, &self.machine());
        Ok(PodSandboxStatsResponse { stats: Some(stats) })
    }

    pub(super) async fn list_pod_sandbox_stats(
        &self,
        request: ListPodSandboxStatsRequest,
    ) -> Result<ListPodSandboxStatsResponse, Status> {
        let stats = self.sandboxes_stats(request.filter).await?.collect();
        Ok(ListPodSandboxStatsResponse { stats })
    }

    pub(super) async fn stream_pod_sandbox_stats(
        &self,
        request: StreamPodSandboxStatsRequest,
    ) -> Result<Answers<StreamPodSandboxStatsResponse>, Status> {
        Ok(batches::stream(self.sandboxes_stats(request.filter).await?))
    }

    async fn sandboxes_stats(
        &self,
        filter: Option<PodSandboxStatsFilter>,
    ) -> Result<impl Iterator<Item = PodSandboxStats> + Send + use<>, Status> {
        let filter = filter.unwrap_or_default();
        let filter = SandboxFilter { id: filter.id, phase: None, labels: filter.label_selector };
        let found = self.engine.sandboxes_stats(&self.namespace, &filter, Detail::Usage);
        let found = found.await.wire()?;
        let machine = self.machine();
        Ok(found.into_iter().map(move |each| stats::sandbox(&each, &machine)))
    }

    fn machine(&self) -> Machine {
        let system = rustix::system::sysinfo();
        Machine {
            mountpoint: self.engine.store_root().display().to_string(),
            swap_bytes: system.totalswap.saturating_mul(u64::from(system.mem_unit)),
        }
    }
}
