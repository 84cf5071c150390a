//! Metrics of pods and containers over CRI.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use corten_api::cri::*;
use corten_pods::{ContainerView, Detail, SandboxFilter, SandboxPhase, SandboxStats};
use tonic::Status;

use super::Runtime;
use super::containers::image_name;
use crate::batches::{self, Answers};
use crate::metrics::{self, Disks, FileSystem};
use crate::status::Wire;

impl Runtime {
    pub(super) async fn list_metric_descriptors(
        &self,
        _: ListMetricDescriptorsRequest,
    ) -> Result<ListMetricDescriptorsResponse, Status> {
        Ok(ListMetricDescriptorsResponse { descriptors: metrics::descriptors() })
    }

    pub(super) async fn list_pod_sandbox_metrics(
        &self,
        _: ListPodSandboxMetricsRequest,
    ) -> Result<ListPodSandboxMetricsResponse, Status> {
        let pod_metrics = self.pods_metrics().await?.collect();
        Ok(ListPodSandboxMetricsResponse { pod_metrics })
    }

    pub(super) async fn stream_pod_sandbox_metrics(
        &self,
        _: StreamPodSandboxMetricsRequest,
    ) -> Result<Answers<StreamPodSandboxMetricsResponse>, Status> {
        Ok(batches::stream(self.pods_metrics().await?))
    }

    async fn pods_metrics(
        &self,
    ) -> Result<impl Iterator<Item = PodSandboxMetrics> + Send + use<>, Status> {
        // Stopped ones have nothing to be counted.
        let ready = SandboxFilter { phase: Some(SandboxPhase::Ready), ..SandboxFilter::default() };
        let found = self.engine.sandboxes_stats(&self.namespace, &ready, Detail::All);
        let found = found.await.wire()?;
        let disks = disks(&found);
        let file_system = file_system(self.engine.store_root());
        let engine = self.engine.clone();
        Ok(found.into_iter().map(move |pod| {
            let image = |each: &ContainerView| image_name(&engine, each);
            metrics::sandbox(&pod, &file_system, &disks, image)
        }))
    }
}

/// The names of all disks that pods have used.
fn disks(pods: &[SandboxStats]) -> Disks {
    let containers = pods.iter().flat_map(|pod| &pod.containers);
    let figures = pods
        .iter()
        .filter_map(|pod| pod.figures.as_ref())
        .chain(containers.filter_map(|each| each.figures.as_ref()));
    let mut disks = Disks::new();
    for io in figures.flat_map(|figures| &figures.counted.io) {
        disks.entry((io.major, io.minor)).or_insert_with(|| device(io.major, io.minor));
    }
    disks
}

/// `/dev/sda`, or the numbers of a device that has no name.
fn device(major: u32, minor: u32) -> String {
    let target = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}"));
    let name = target.ok().and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
    name.map_or_else(|| format!("{major}:{minor}"), |name| format!("/dev/{name}"))
}

/// The file system that a directory is in.
fn file_system(root: &Path) -> FileSystem {
    let number = std::fs::metadata(root).map_or(0, |metadata| metadata.dev());
    let device = device(rustix::fs::major(number), rustix::fs::minor(number));
    match rustix::fs::statvfs(root) {
        Ok(found) => FileSystem {
            device,
            bytes: found.f_blocks.saturating_mul(found.f_frsize),
            inodes: found.f_files,
            inodes_free: found.f_ffree,
        },
        Err(_) => FileSystem { device, ..FileSystem::default() },
    }
}
