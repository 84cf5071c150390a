//! What pods and containers use. Nothing is sampled by a clock: the kernel
//! counts, and is read when somebody asks.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use corten_base::meter::{MetricKind, Page};
use corten_base::{ContainerId, Namespace, SandboxId};
use corten_kernel::netlink::{Family, LinkCounters, Socket, link_counters};
use corten_store::Measured;

use super::lists::{container_view, sandbox_view};
use super::{Engine, Inner, blocking, realtime_ns};
use crate::error::Result;
use crate::state::{ContainerState, SandboxState};
use crate::stats::{ContainerStats, CpuRate, Detail, Figures, SandboxStats, look};
use crate::table::{Container, Sandbox};
use crate::view::{ContainerFilter, ContainerPhase, SandboxFilter};

/// How long one answer waits for snapshots that were never measured.
const LAYERS_PATIENCE: Duration = Duration::from_millis(100);

impl Engine {
    /// The directory of everything that containers write.
    pub fn store_root(&self) -> &std::path::Path {
        self.inner.store.root()
    }

    /// What one container uses, running or not.
    pub async fn container_stats(&self, ns: &Namespace, id: &str) -> Result<ContainerStats> {
        let seen = self.container(ns, id)?;
        let container = self.inner.table.find_container(ns, seen.id.as_str())?;
        let inner = self.inner.clone();
        blocking(move || {
            let layers = inner.layers(std::slice::from_ref(&container));
            Ok(inner.stats_of_container(&container, &layers, Detail::Usage))
        })
        .await
    }

    /// What the running containers that fit use, oldest first.
    pub async fn containers_stats(
        &self,
        ns: &Namespace,
        filter: &ContainerFilter,
    ) -> Result<Vec<ContainerStats>> {
        let filter = ContainerFilter { phase: Some(ContainerPhase::Running), ..filter.clone() };
        let views = self.containers(ns, &filter);
        let containers: Vec<_> =
            views.iter().filter_map(|view| self.inner.table.container(&view.id)).collect();
        let inner = self.inner.clone();
        blocking(move || {
            let layers = inner.layers(&containers);
            let each = containers
                .iter()
                .map(|container| inner.stats_of_container(container, &layers, Detail::Usage));
            // What has ended since the list was made is not running.
            Ok(each.filter(|stats| stats.figures.is_some()).collect())
        })
        .await
    }

    /// What one pod uses.
    pub async fn sandbox_stats(&self, ns: &Namespace, id: &str) -> Result<SandboxStats> {
        let seen = self.sandbox(ns, id)?;
        let sandbox = self.inner.table.find_sandbox(ns, seen.id.as_str())?;
        let inner = self.inner.clone();
        blocking(move || {
            let mut containers = inner.table.containers_of(&sandbox.id);
            containers.retain(runs);
            let layers = inner.layers(&containers);
            Ok(inner.stats_of_sandbox(&sandbox, containers, &layers, Detail::Usage))
        })
        .await
    }

    /// What the pods that fit use, oldest first.
    pub async fn sandboxes_stats(
        &self,
        ns: &Namespace,
        filter: &SandboxFilter,
        detail: Detail,
    ) -> Result<Vec<SandboxStats>> {
        let views = self.sandboxes(ns, filter);
        let sandboxes: Vec<_> =
            views.iter().filter_map(|view| self.inner.table.sandbox(&view.id)).collect();
        let inner = self.inner.clone();
        blocking(move || {
            let mut members: HashMap<SandboxId, Vec<Arc<Container>>> = HashMap::new();
            for container in inner.table.containers() {
                if !runs(&container) {
                    continue;
                }
                members.entry(container.sandbox.id.clone()).or_default().push(container);
            }
            let of_pods: Vec<_> = sandboxes
                .into_iter()
                .map(|sandbox| {
                    let containers = members.remove(&sandbox.id).unwrap_or_default();
                    (sandbox, containers)
                })
                .collect();
            let all: Vec<_> = of_pods.iter().flat_map(|(_, each)| each).cloned().collect();
            let layers = inner.layers(&all);
            let stats = |(sandbox, containers): (Arc<Sandbox>, _)| {
                inner.stats_of_sandbox(&sandbox, containers, &layers, detail)
            };
            Ok(of_pods.into_iter().map(stats).collect())
        })
        .await
    }
}

fn runs(container: &Arc<Container>) -> bool {
    container.record.borrow().state == ContainerState::Running
}

impl Engine {
    /// Writes what the engine counts about itself, for Prometheus.
    pub fn write_meters(&self, page: &mut Page) {
        let inner = &self.inner;
        let mut pods = [("ready", 0), ("not_ready", 0)];
        for sandbox in inner.table.sandboxes() {
            let state = sandbox.record.borrow().state;
            pods[usize::from(state != SandboxState::Ready)].1 += 1;
        }
        let mut containers = [("created", 0), ("running", 0), ("exited", 0)];
        for container in inner.table.containers() {
            let phase = container_view(&container.record.borrow()).phase;
            containers[phase as usize].1 += 1;
        }
        for (name, help, counts) in [
            ("corten_pods", "Pods, people's containers included.", &pods[..]),
            ("corten_containers", "Containers.", &containers[..]),
        ] {
            page.metric(name, MetricKind::Gauge, help);
            for (state, count) in counts {
                page.sample(name, &[("state", *state)], count);
            }
        }
        let used = inner.store.fs_info().used_bytes;
        let help = "Bytes of all images on the disk.";
        page.single("corten_image_bytes", MetricKind::Gauge, help, used);
        inner.images.write_meters(page);
        inner.meters.write(page);
    }
}

/// What containers have written.
type Layers = HashMap<ContainerId, Measured>;

impl Inner {
    fn layers(&self, containers: &[Arc<Container>]) -> Layers {
        let ids: Vec<_> = containers.iter().map(|container| container.id.clone()).collect();
        let measured = self.store.snapshotter().usages(&ids, LAYERS_PATIENCE);
        ids.into_iter().zip(measured).filter_map(|(id, found)| Some((id, found?))).collect()
    }

    fn stats_of_container(
        &self,
        container: &Container,
        layers: &Layers,
        detail: Detail,
    ) -> ContainerStats {
        let (view, runs, cgroup) = {
            let record = container.record.borrow();
            let runs = record.state == ContainerState::Running;
            (container_view(&record), runs, record.cgroup.clone())
        };
        let figures = match runs {
            true => self.figures(&cgroup, &container.cpu, view.started_at_ns, detail),
            false => None,
        };
        let processes = match (runs, detail) {
            (true, Detail::All) => self.pids(&cgroup).map(|pids| look(&pids, view.pid)),
            (false, _) | (_, Detail::Usage | Detail::Counted) => None,
        };
        let layer = layers.get(&container.id).copied();
        ContainerStats { container: view, cgroup, figures, layer, processes }
    }

    fn stats_of_sandbox(
        &self,
        sandbox: &Sandbox,
        mut containers: Vec<Arc<Container>>,
        layers: &Layers,
        detail: Detail,
    ) -> SandboxStats {
        let (view, runs, cgroup) = {
            let record = sandbox.record.borrow();
            let runs = record.state == SandboxState::Ready;
            (sandbox_view(&record), runs, record.cgroup.clone())
        };
        containers.sort_by_key(|each| each.record.borrow().created_at_ns);
        let figures = match runs {
            true => self.figures(&cgroup, &sandbox.cpu, view.created_at_ns, detail),
            false => None,
        };
        let pids = if runs { self.pids(&cgroup) } else { None };
        let links = if runs && view.netns.is_some() { self.links(sandbox) } else { None };
        SandboxStats {
            figures,
            links,
            processes: pids.map(|pids| pids.len() as u64),
            containers: containers
                .iter()
                .map(|container| self.stats_of_container(container, layers, detail))
                .filter(|stats| stats.figures.is_some())
                .collect(),
            sandbox: view,
            cgroup,
        }
    }

    /// What a group used; nothing of one that is gone.
    fn figures(
        &self,
        cgroup: &str,
        rate: &CpuRate,
        since_ns: i64,
        detail: Detail,
    ) -> Option<Figures> {
        let group = self.cgroups.open(cgroup).ok()?;
        let read = match detail {
            Detail::Usage => group.usage(),
            Detail::Counted | Detail::All => group.stats(),
        };
        let counted = match read {
            Ok(counted) => counted,
            Err(error) => {
                tracing::debug!(%error, "unable to read what a group used");
                return None;
            }
        };
        let at_ns = realtime_ns();
        let age = Duration::from_nanos(u64::try_from(at_ns - since_ns).unwrap_or_default());
        let nano_cores = counted.cpu.and_then(|cpu| rate.sample(Instant::now(), cpu.usage_ns, age));
        Some(Figures { at_ns, counted, nano_cores })
    }

    fn pids(&self, cgroup: &str) -> Option<Vec<i32>> {
        self.cgroups.open(cgroup).ok()?.counted_pids().ok()
    }

    /// The links of a pod's network namespace. One socket serves all pods.
    fn links(&self, sandbox: &Sandbox) -> Option<Vec<LinkCounters>> {
        let netns = corten_kernel::ns::open(&self.namespaces.path(&sandbox.id)).ok()?;
        let mut slot = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            *slot = Socket::open(Family::Route).ok();
        }
        let links = link_counters(slot.as_mut()?, netns.as_fd());
        match links {
            Ok(links) => Some(links.into_iter().filter(|link| !link.loopback).collect()),
            Err(error) => {
                tracing::debug!(sandbox = %sandbox.id, %error, "unable to read what a pod's network carried");
                None
            }
        }
    }
}
