//! Limits of a spec in the words of the cgroup code.

use corten_kernel::cgroup as kernel;

use crate::oci;

/// The limits that a container's cgroup gets.
pub fn cgroup_resources(linux: &oci::Linux) -> kernel::Resources {
    let none = oci::Resources::default();
    let asked = linux.resources.as_ref().unwrap_or(&none);
    let memory = asked.memory.clone().unwrap_or_default();
    let cpu = asked.cpu.clone().unwrap_or_default();
    let block = asked.block_io.clone().unwrap_or_default();
    let text = |text: String| (!text.is_empty()).then_some(text);
    kernel::Resources {
        cpu_shares: cpu.shares.filter(|shares| *shares > 0),
        cpu_quota: cpu.quota.filter(|quota| *quota != 0),
        cpu_period: cpu.period.filter(|period| *period > 0),
        cpu_burst: cpu.burst,
        cpu_idle: cpu.idle,
        cpus: text(cpu.cpus),
        mems: text(cpu.mems),
        memory_limit: memory.limit.filter(|limit| *limit != 0),
        memory_swap: memory.swap.filter(|limit| *limit != 0),
        memory_reservation: memory.reservation.filter(|limit| *limit != 0),
        memory_swappiness: memory.swappiness,
        disable_oom_killer: memory.disable_oom_killer,
        check_before_update: memory.check_before_update.unwrap_or(false),
        pids_limit: asked.pids.as_ref().map(|pids| pids.limit).filter(|limit| *limit != 0),
        hugepage_limits: asked
            .hugepage_limits
            .iter()
            .map(|one| kernel::HugepageLimit { page_size: one.page_size.clone(), limit: one.limit })
            .collect(),
        io_weight: block.weight.filter(|weight| *weight > 0),
        io_limits: io_limits(&block),
        rdma: asked.rdma.iter().map(|(name, rdma)| (name.clone(), rdma_text(rdma))).collect(),
        devices: (!asked.devices.is_empty())
            .then(|| asked.devices.iter().map(device_rule).collect()),
        unified: asked.unified.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
    }
}

fn io_limits(block: &oci::BlockIo) -> Vec<kernel::IoLimit> {
    [
        (kernel::IoLimitKind::ReadBytes, &block.throttle_read_bps_device),
        (kernel::IoLimitKind::WriteBytes, &block.throttle_write_bps_device),
        (kernel::IoLimitKind::ReadOperations, &block.throttle_read_iops_device),
        (kernel::IoLimitKind::WriteOperations, &block.throttle_write_iops_device),
    ]
    .into_iter()
    .flat_map(|(kind, list)| {
        list.iter().map(move |one| kernel::IoLimit {
            kind,
            major: one.major as u32,
            minor: one.minor as u32,
            rate: one.rate,
        })
    })
    .collect()
}

fn rdma_text(rdma: &oci::Rdma) -> String {
    let handles = rdma.hca_handles.map(|count| format!("hca_handle={count}"));
    let objects = rdma.hca_objects.map(|count| format!("hca_object={count}"));
    handles.into_iter().chain(objects).collect::<Vec<_>>().join(" ")
}

fn device_rule(rule: &oci::DeviceRule) -> kernel::DeviceRule {
    // Negative numbers mean every one, as absence does; no access means all.
    let number = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
    let may = |letter| rule.access.is_empty() || rule.access.contains(letter);
    kernel::DeviceRule {
        allow: rule.allow,
        kind: match rule.kind.as_str() {
            "c" | "u" => kernel::DeviceKind::Character,
            "b" => kernel::DeviceKind::Block,
            _ => kernel::DeviceKind::Any,
        },
        major: number(rule.major),
        minor: number(rule.minor),
        read: may('r'),
        write: may('w'),
        mknod: may('m'),
    }
}
