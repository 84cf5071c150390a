//! What pods and containers use, as CRI shows it.

use std::time::UNIX_EPOCH;

use corten_api::cri;
use corten_kernel::cgroup::{self, Pressure, PressureLine};
use corten_kernel::netlink::LinkCounters;
use corten_pods::{ContainerStats, Figures, SandboxStats};

use super::view;

/// What figures are compared with.
pub struct Machine {
    /// Where the file system of all snapshots is.
    pub mountpoint: String,
    /// Bytes of swap of this machine.
    pub swap_bytes: u64,
}

/// What a container uses.
pub fn container(stats: &ContainerStats, machine: &Machine) -> cri::ContainerStats {
    let view = &stats.container;
    let figures = stats.figures.as_ref();
    let layer = stats.layer.map(|layer| cri::FilesystemUsage {
        timestamp: layer
            .at
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)),
        fs_id: Some(cri::FilesystemIdentifier { mountpoint: machine.mountpoint.clone() }),
        used_bytes: value(layer.usage.bytes),
        inodes_used: value(layer.usage.inodes),
    });
    cri::ContainerStats {
        attributes: Some(cri::ContainerAttributes {
            id: view.id.to_string(),
            metadata: Some(view::container_metadata(view)),
            labels: view.config.labels.clone(),
            annotations: view.config.annotations.clone(),
        }),
        cpu: figures.and_then(cpu),
        memory: figures.and_then(memory),
        writable_layer: layer,
        swap: figures.and_then(|figures| swap(figures, machine)),
        io: figures.and_then(io),
    }
}

/// What a pod uses.
pub fn sandbox(stats: &SandboxStats, machine: &Machine) -> cri::PodSandboxStats {
    let view = &stats.sandbox;
    let figures = stats.figures.as_ref();
    // The part for Linux is there in any case: kubelets do not look whether it is.
    let linux = cri::LinuxPodSandboxStats {
        cpu: figures.and_then(cpu),
        memory: figures.and_then(memory),
        network: network(stats),
        process: figures.zip(stats.processes).map(|(figures, count)| cri::ProcessUsage {
            timestamp: figures.at_ns,
            process_count: value(count),
        }),
        containers: stats.containers.iter().map(|each| container(each, machine)).collect(),
        io: figures.and_then(io),
    };
    cri::PodSandboxStats {
        attributes: Some(cri::PodSandboxAttributes {
            id: view.id.to_string(),
            metadata: Some(view::sandbox_metadata(view)),
            labels: view.config.labels.clone(),
            annotations: view.config.annotations.clone(),
        }),
        linux: Some(linux),
        windows: None,
    }
}

fn cpu(figures: &Figures) -> Option<cri::CpuUsage> {
    let cpu = figures.counted.cpu?;
    Some(cri::CpuUsage {
        timestamp: figures.at_ns,
        usage_core_nano_seconds: value(cpu.usage_ns),
        usage_nano_cores: figures.nano_cores.and_then(value),
        psi: figures.counted.cpu_pressure.as_ref().map(psi),
    })
}

fn memory(figures: &Figures) -> Option<cri::MemoryUsage> {
    let memory = figures.counted.memory?;
    let available = memory.limit.map(|limit| limit.saturating_sub(memory.working_set));
    Some(cri::MemoryUsage {
        timestamp: figures.at_ns,
        working_set_bytes: value(memory.working_set),
        available_bytes: available.and_then(value),
        usage_bytes: value(memory.usage),
        rss_bytes: value(memory.rss),
        page_faults: value(memory.faults),
        major_page_faults: value(memory.major_faults),
        psi: figures.counted.memory_pressure.as_ref().map(psi),
    })
}

fn swap(figures: &Figures, machine: &Machine) -> Option<cri::SwapUsage> {
    let memory: cgroup::Memory = figures.counted.memory?;
    let used = memory.swap?;
    let limit = memory.swap_limit.unwrap_or(u64::MAX).min(machine.swap_bytes);
    Some(cri::SwapUsage {
        timestamp: figures.at_ns,
        swap_available_bytes: value(limit.saturating_sub(used)),
        swap_usage_bytes: value(used),
    })
}

fn io(figures: &Figures) -> Option<cri::IoUsage> {
    let psi = psi(figures.counted.io_pressure.as_ref()?);
    Some(cri::IoUsage { timestamp: figures.at_ns, psi: Some(psi) })
}

/// The name that CNI plugins give a pod's own link.
const DEFAULT_LINK: &str = "eth0";

/// Nothing without a default link: kubelets do not look whether it is there.
fn network(stats: &SandboxStats) -> Option<cri::NetworkUsage> {
    let links = stats.links.as_ref()?;
    let named = links.iter().find(|link| link.name == DEFAULT_LINK);
    let default = named.or_else(|| links.first())?;
    let others = links.iter().filter(|link| link.name != default.name);
    Some(cri::NetworkUsage {
        timestamp: stats.figures.as_ref()?.at_ns,
        default_interface: Some(link(default)),
        interfaces: others.map(link).collect(),
    })
}

fn link(link: &LinkCounters) -> cri::NetworkInterfaceUsage {
    cri::NetworkInterfaceUsage {
        name: link.name.clone(),
        rx_bytes: value(link.received.bytes),
        rx_errors: value(link.received.errors),
        tx_bytes: value(link.sent.bytes),
        tx_errors: value(link.sent.errors),
    }
}

fn psi(pressure: &Pressure) -> cri::PsiStats {
    let line = |line: &PressureLine| cri::PsiData {
        // CRI wants nanoseconds, and per cent.
        total: line.total_us.saturating_mul(1000),
        avg10: f64::from(line.average_10) / 100.0,
        avg60: f64::from(line.average_60) / 100.0,
        avg300: f64::from(line.average_300) / 100.0,
    };
    cri::PsiStats { full: Some(line(&pressure.full)), some: Some(line(&pressure.some)) }
}

fn value(value: u64) -> Option<cri::UInt64Value> {
    Some(cri::UInt64Value { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        let memory = cgroup::Memory {
            usage: 90,
            working_set: 60,
            rss: 50,
            faults: 7,
            major_faults: 2,
            limit: Some(100),
            swap: Some(5),
            swap_limit: Some(1000),
            ..Default::default()
        };
        let line = PressureLine { average_10: 125, total_us: 3, ..Default::default() };
        let pressure = Pressure { some: line, full: PressureLine::default() };
        let counted = cgroup::Stats {
            cpu: Some(cgroup::Cpu { usage_ns: 10, ..Default::default() }),
            memory: Some(memory),
            memory_pressure: Some(pressure),
            ..Default::default()
        };
        Figures { at_ns: 1, counted, nano_cores: Some(4) }
    }

    #[test]
    fn figures_arrive() {
        let of = |value: Option<cri::UInt64Value>| value.map(|value| value.value);
        let ours = figures();
        let cpu = cpu(&ours).unwrap();
        assert_eq!(
            (of(cpu.usage_core_nano_seconds), of(cpu.usage_nano_cores)),
            (Some(10), Some(4))
        );
        assert!(cpu.psi.is_none() && io(&ours).is_none());
        let memory = memory(&ours).unwrap();
        assert_eq!(
            (of(memory.available_bytes), of(memory.working_set_bytes)),
            (Some(40), Some(60))
        );
        let some = memory.psi.unwrap().some.unwrap();
        assert_eq!((some.total, some.avg10), (3000, 1.25));
        let machine = Machine { mountpoint: "/x".into(), swap_bytes: 100 };
        let swap = swap(&ours, &machine).unwrap();
        assert_eq!((of(swap.swap_available_bytes), of(swap.swap_usage_bytes)), (Some(95), Some(5)));
    }
}
