//! The values of metrics.

use std::collections::HashMap;

use corten_api::cri;
use corten_kernel::cgroup::{Io, Memory, Pressure, Stats};
use corten_kernel::netlink::LinkCounters;
use corten_pods::{ContainerStats, ContainerView, Processes, SandboxStats, SandboxView};

use super::table::*;
use super::{Metric, Sink};

const NANOSECONDS: u64 = 1_000_000_000;
const MICROSECONDS: u64 = 1_000_000;
/// What the kernel gives to a group of which nobody said anything.
const SHARES: u64 = 1024;
/// Likewise, in microseconds.
const PERIOD: u64 = 100_000;

/// The file system that root file systems are in.
#[derive(Debug, Clone, Default)]
pub struct FileSystem {
    /// `/dev/sda1`
    pub device: String,
    /// Bytes.
    pub bytes: u64,
    /// Files that it can hold.
    pub inodes: u64,
    /// Files that it can still take.
    pub inodes_free: u64,
}

/// Names of disks by their numbers.
pub type Disks = HashMap<(u32, u32), String>;

/// The metrics of a pod and its containers. `image` is the name that people
/// know a container's image by.
pub fn sandbox(
    stats: &SandboxStats,
    file_system: &FileSystem,
    disks: &Disks,
    image: impl Fn(&ContainerView) -> String,
) -> cri::PodSandboxMetrics {
    let view = &stats.sandbox;
    let mut sink = pod_sink(view, &stats.cgroup);
    if let Some(figures) = &stats.figures {
        counted(&mut sink, &figures.counted, disks);
        sink.plain(&LAST_SEEN, seconds(figures.at_ns));
        sink.plain(&START_TIME, seconds(view.created_at_ns));
    }
    if let Some(processes) = stats.processes {
        sink.plain(&PROCESSES, processes);
    }
    for each in stats.links.iter().flatten() {
        link(&mut sink, each);
    }
    let container = |each| container(each, view, file_system, disks, &image);
    cri::PodSandboxMetrics {
        pod_sandbox_id: view.id.to_string(),
        metrics: sink.found,
        container_metrics: stats.containers.iter().map(container).collect(),
    }
}

fn pod_sink(view: &SandboxView, cgroup: &str) -> Sink {
    let (namespace, pod) = (view.config.namespace.clone(), view.config.name.clone());
    Sink::new([
        String::new(),
        cgroup.to_owned(),
        String::new(),
        view.id.to_string(),
        namespace,
        pod,
    ])
}

fn container(
    stats: &ContainerStats,
    pod: &SandboxView,
    file_system: &FileSystem,
    disks: &Disks,
    image: impl Fn(&ContainerView) -> String,
) -> cri::ContainerMetrics {
    let view = &stats.container;
    let mut sink = Sink::new([
        view.config.name.clone(),
        stats.cgroup.clone(),
        image(view),
        view.id.to_string(),
        pod.config.namespace.clone(),
        pod.config.name.clone(),
    ]);
    if let Some(figures) = &stats.figures {
        counted(&mut sink, &figures.counted, disks);
        sink.plain(&LAST_SEEN, seconds(figures.at_ns));
    }
    if let Some(found) = &stats.processes {
        processes(&mut sink, found);
    }
    let device = [file_system.device.as_str()];
    if let Some(layer) = &stats.layer {
        sink.put(&FS_USAGE, &device, layer.usage.bytes);
    }
    sink.put(&FS_LIMIT, &device, file_system.bytes);
    sink.put(&FS_INODES, &device, file_system.inodes);
    sink.put(&FS_INODES_FREE, &device, file_system.inodes_free);
    asked_for(&mut sink, view);
    cri::ContainerMetrics { container_id: view.id.to_string(), metrics: sink.found }
}

/// What the kernel counts of a group.
fn counted(sink: &mut Sink, stats: &Stats, disks: &Disks) {
    if let Some(cpu) = &stats.cpu {
        sink.put(&CPU_USAGE, &["total"], cpu.usage_ns / NANOSECONDS);
        sink.plain(&CPU_USER, cpu.user_ns / NANOSECONDS);
        sink.plain(&CPU_SYSTEM, cpu.system_ns / NANOSECONDS);
        sink.plain(&CPU_PERIODS, cpu.periods);
        sink.plain(&CPU_THROTTLED_PERIODS, cpu.throttled_periods);
        sink.plain(&CPU_THROTTLED, cpu.throttled_ns / NANOSECONDS);
    }
    if let Some(found) = &stats.memory {
        memory(sink, found);
    }
    for pages in &stats.hugepages {
        sink.put(&HUGEPAGES_USAGE, &[&pages.page_size], pages.usage);
        // Where the kernel keeps no peak, it is at least what is used now.
        sink.put(&HUGEPAGES_PEAK, &[&pages.page_size], pages.peak.unwrap_or(pages.usage));
    }
    for each in &stats.io {
        io(sink, each, disks);
    }
    if let Some(pids) = &stats.pids {
        sink.plain(&THREADS, pids.current);
        sink.plain(&THREADS_MAX, pids.limit.unwrap_or(0));
    }
    pressure(sink, stats.cpu_pressure.as_ref(), &CPU_WAITING, &CPU_STALLED);
    pressure(sink, stats.memory_pressure.as_ref(), &MEMORY_WAITING, &MEMORY_STALLED);
    pressure(sink, stats.io_pressure.as_ref(), &IO_WAITING, &IO_STALLED);
}

fn memory(sink: &mut Sink, memory: &Memory) {
    sink.plain(&MEMORY_USAGE, memory.usage);
    sink.plain(&MEMORY_WORKING_SET, memory.working_set);
    sink.plain(&MEMORY_RSS, memory.rss);
    sink.plain(&MEMORY_CACHE, memory.cache);
    sink.plain(&MEMORY_MAPPED, memory.mapped_file);
    sink.plain(&MEMORY_SWAP, memory.swap.unwrap_or(0));
    sink.plain(&MEMORY_KERNEL, memory.kernel);
    // Where the kernel keeps no peak, it is at least what is used now.
    sink.plain(&MEMORY_PEAK, memory.peak.unwrap_or(memory.usage));
    sink.plain(&MEMORY_LIMIT_HITS, memory.limit_hits);
    sink.plain(&OUT_OF_MEMORY, memory.oom_kills);
    for (kind, faults) in [("pgfault", memory.faults), ("pgmajfault", memory.major_faults)] {
        // What a container puts into groups of its own is counted with it.
        for scope in ["container", "hierarchy"] {
            sink.put(&MEMORY_FAULTS, &[kind, scope], faults);
        }
    }
}

fn io(sink: &mut Sink, io: &Io, disks: &Disks) {
    let (major, minor) = (io.major.to_string(), io.minor.to_string());
    let unnamed = format!("{major}:{minor}");
    let device = disks.get(&(io.major, io.minor)).unwrap_or(&unnamed);
    sink.put(&FS_READS_BYTES, &[device], io.read_bytes);
    sink.put(&FS_READS, &[device], io.reads);
    sink.put(&FS_WRITES_BYTES, &[device], io.written_bytes);
    sink.put(&FS_WRITES, &[device], io.writes);
    for (operation, bytes) in [("Read", io.read_bytes), ("Write", io.written_bytes)] {
        sink.put(&BLOCK_USAGE, &[device, &major, &minor, operation], bytes);
    }
}

fn pressure(sink: &mut Sink, found: Option<&Pressure>, waiting: &Metric, stalled: &Metric) {
    let Some(pressure) = found else { return };
    sink.plain(waiting, pressure.some.total_us / MICROSECONDS);
    sink.plain(stalled, pressure.full.total_us / MICROSECONDS);
}

fn processes(sink: &mut Sink, processes: &Processes) {
    sink.plain(&PROCESSES, processes.count);
    sink.plain(&DESCRIPTORS, processes.descriptors);
    sink.plain(&SOCKETS, processes.sockets);
    if let Some(max) = processes.descriptors_max {
        sink.put(&ULIMITS, &["max_open_files"], max);
    }
}

fn link(sink: &mut Sink, link: &LinkCounters) {
    let name = [link.name.as_str()];
    sink.put(&RECEIVED_BYTES, &name, link.received.bytes);
    sink.put(&RECEIVED_PACKETS, &name, link.received.packets);
    sink.put(&RECEIVED_DROPPED, &name, link.received.dropped);
    sink.put(&RECEIVED_ERRORS, &name, link.received.errors);
    sink.put(&SENT_BYTES, &name, link.sent.bytes);
    sink.put(&SENT_PACKETS, &name, link.sent.packets);
    sink.put(&SENT_DROPPED, &name, link.sent.dropped);
    sink.put(&SENT_ERRORS, &name, link.sent.errors);
}

/// What was asked for, rather than used.
fn asked_for(sink: &mut Sink, view: &ContainerView) {
    let resources = &view.resources;
    let positive =
        |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).unwrap_or(0);
    sink.plain(&SPEC_CPU_PERIOD, resources.cpu_period.filter(|us| *us > 0).unwrap_or(PERIOD));
    sink.plain(&SPEC_CPU_SHARES, resources.cpu_shares.filter(|all| *all > 0).unwrap_or(SHARES));
    let quota = positive(resources.cpu_quota);
    if quota > 0 {
        sink.plain(&SPEC_CPU_QUOTA, quota);
    }
    sink.plain(&SPEC_MEMORY, positive(resources.memory_limit_bytes));
    sink.plain(&SPEC_SWAP, positive(resources.memory_swap_limit_bytes));
    let kept = resources.unified.get("memory.min").and_then(|text| text.parse().ok());
    let reservation = positive(resources.memory_reservation_bytes);
    sink.plain(&SPEC_RESERVATION, kept.unwrap_or(reservation));
    sink.plain(&START_TIME, seconds(view.started_at_ns));
}

fn seconds(ns: i64) -> u64 {
    u64::try_from(ns).unwrap_or(0) / NANOSECONDS
}
