//! What running containers use, for people to look at.

use corten_api::corten as api;
use corten_kernel::netlink::LinkCounters;
use corten_pods::{ContainerStats, Detail, SandboxFilter, SandboxPhase, SandboxStats};
use tonic::Status;

use super::{People, namespace};
use crate::status::Wire;

impl People {
    pub(super) async fn stats(
        &self,
        request: api::StatsRequest,
    ) -> Result<api::StatsResponse, Status> {
        let namespace = namespace(&request.namespace)?;
        let mut wanted = Vec::new();
        for name in &request.containers {
            wanted.push(self.find(&request.namespace, name)?.1.id);
        }
        let ready = SandboxFilter { phase: Some(SandboxPhase::Ready), ..SandboxFilter::default() };
        let pods = self.engine.sandboxes_stats(&namespace, &ready, Detail::Counted).await.wire()?;
        let all = pods.iter().flat_map(|pod| pod.containers.iter().map(move |each| (pod, each)));
        let mut chosen: Vec<_> = all
            .filter(|(_, each)| wanted.is_empty() || wanted.contains(&each.container.id))
            .collect();
        chosen.sort_by_key(|(_, each)| each.container.created_at_ns);
        let containers = chosen.into_iter().map(|(pod, each)| usage(pod, each)).collect();
        Ok(api::StatsResponse { containers })
    }
}

fn usage(pod: &SandboxStats, stats: &ContainerStats) -> api::ContainerUsage {
    let view = &stats.container;
    let config = &pod.sandbox.config;
    let figures = stats.figures.as_ref();
    let counted = figures.map(|figures| &figures.counted);
    let (cpu, memory) = (counted.and_then(|c| c.cpu), counted.and_then(|c| c.memory));
    let pids = counted.and_then(|counted| counted.pids);
    let links = |count: fn(&LinkCounters) -> u64| {
        pod.links.as_ref().map(|links| links.iter().map(count).sum())
    };
    let disks = |count: fn(&corten_kernel::cgroup::Io) -> u64| {
        counted.map(|counted| counted.io.iter().map(count).sum())
    };
    api::ContainerUsage {
        id: view.id.to_string(),
        name: view.config.name.clone(),
        pod_id: view.sandbox.to_string(),
        pod_name: if config.solo { String::new() } else { config.name.clone() },
        at_ns: figures.map_or(0, |figures| figures.at_ns),
        cpu_ns: cpu.map(|cpu| cpu.usage_ns),
        nano_cpus: figures.and_then(|figures| figures.nano_cores),
        memory_bytes: memory.map(|memory| memory.working_set),
        memory_limit_bytes: memory.and_then(|memory| memory.limit),
        received_bytes: links(|link| link.received.bytes),
        sent_bytes: links(|link| link.sent.bytes),
        read_bytes: disks(|disk| disk.read_bytes),
        written_bytes: disks(|disk| disk.written_bytes),
        layer_bytes: stats.layer.map(|layer| layer.usage.bytes),
        pids: pids.map(|pids| pids.current),
        pids_limit: pids.and_then(|pids| pids.limit),
    }
}
