//! Groups of a v1 hierarchy: making them and writing their limits.

use rustix::io::Errno;

use super::file::Directory;
use super::hierarchy::{Controller, Old};
use super::resources::{IoLimitKind, Resources};
use super::{devices, v2};
use crate::{Context as _, Error, Result};

/// Larger limits of memory are shown by the kernel as this or more.
const UNLIMITED: i64 = -1;

/// Files without which a cpuset takes no process.
const CPUSET_FILES: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// Makes a group and its parents in one hierarchy.
pub(super) fn make(hierarchy: &Old, path: &str) -> Result<()> {
    if !hierarchy.controllers.contains(&Controller::Cpuset) {
        return make_plain(hierarchy, path).map(drop);
    }
    let leaf = Directory::new(&hierarchy.mount, path);
    // Mostly the parents are there already, and pass their processors on.
    let made = leaf.make();
    if made.is_ok() && has_processors(&leaf)? {
        return Ok(());
    }
    let mut parent = Directory::new(&hierarchy.mount, "");
    for end in part_ends(path) {
        let directory = Directory::new(&hierarchy.mount, &path[..end]);
        let new = directory
            .make()
            .context("make", || format!("cgroup {}", directory.path().display()))?;
        if new || (end == path.len() && made == Ok(true)) {
            // Groups below get processors and memory as they are made: each
            // write of them later makes the scheduler look at all cpusets of
            // the machine. A kernel that does not take it only costs more.
            let _ = directory.try_write("cgroup.clone_children", "1");
        }
        for file in CPUSET_FILES {
            inherit(&parent, &directory, file)?;
        }
        parent = directory;
    }
    Ok(())
}

/// Mostly the parents are there already, or all but the last.
fn make_plain(hierarchy: &Old, path: &str) -> Result<bool> {
    let directory = Directory::new(&hierarchy.mount, path);
    let made = match (directory.make(), path.rsplit_once('/')) {
        (Err(Errno::NOENT), Some((parent, _))) if !parent.is_empty() => {
            make_plain(hierarchy, parent)?;
            directory.make()
        }
        (made, _) => made,
    };
    made.context("make", || format!("cgroup {}", directory.path().display()))
}

fn has_processors(cpuset: &Directory) -> Result<bool> {
    for file in CPUSET_FILES {
        if cpuset.read(file)?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where each prefix of a path ends: of `/a/b`, 2 and 4.
pub(super) fn part_ends(path: &str) -> impl Iterator<Item = usize> {
    let inner = path.match_indices('/').map(|(at, _)| at).skip(1);
    inner.chain([path.len()])
}

/// A new v1 cpuset is empty, and takes no process until it is not.
fn inherit(parent: &Directory, child: &Directory, file: &str) -> Result<()> {
    if !child.read(file)?.is_empty() {
        return Ok(());
    }
    child.write(file, &parent.read(file)?)
}

/// Writes what `resources` says about one controller.
pub(super) fn set(group: &Directory, controller: Controller, resources: &Resources) -> Result<()> {
    match controller {
        Controller::Cpu => set_cpu(group, resources),
        Controller::Cpuset => set_cpuset(group, resources),
        Controller::Memory => set_memory(group, resources),
        Controller::Pids => v2::set_pids(group, resources),
        Controller::Hugetlb => set_hugepages(group, resources),
        Controller::Io => set_io(group, resources),
        Controller::Rdma => v2::set_rdma(group, resources),
        Controller::Devices => match &resources.devices {
            Some(rules) => devices::set_v1(group, rules),
            None => Ok(()),
        },
        Controller::Cpuacct | Controller::Freezer => Ok(()),
    }
}

fn set_cpu(group: &Directory, resources: &Resources) -> Result<()> {
    // The group must not be idle while its shares change.
    if let Some(idle) = resources.cpu_idle {
        group.write("cpu.idle", &idle.to_string())?;
    }
    if let Some(shares) = resources.cpu_shares.filter(|shares| *shares != 0)
        && resources.cpu_idle != Some(1)
    {
        group.write("cpu.shares", &shares.to_string())?;
    }
    let settings: Vec<(&str, String)> = [
        ("cpu.cfs_period_us", resources.cpu_period.filter(|us| *us != 0).map(|us| us.to_string())),
        ("cpu.cfs_quota_us", resources.cpu_quota.filter(|us| *us != 0).map(quota)),
        ("cpu.cfs_burst_us", resources.cpu_burst.map(|us| us.to_string())),
    ]
    .into_iter()
    .filter_map(|(file, value)| Some((file, value?)))
    .collect();
    write_in_some_order(group, &settings)
}

fn quota(quota: i64) -> String {
    if quota < 0 { "-1".into() } else { quota.to_string() }
}

/// Writes values that bound one another: what the kernel refuses beside the
/// present values is tried again after the others.
fn write_in_some_order(group: &Directory, settings: &[(&str, String)]) -> Result<()> {
    let mut refused = Vec::new();
    for (file, value) in settings {
        match group.try_write(file, value) {
            Ok(()) => {}
            Err(Errno::INVAL) => refused.push((file, value)),
            Err(errno) => return Err(group.write_error(file, value, errno)),
        }
    }
    for (file, value) in refused {
        group.write(file, value)?;
        // A period that came late may have changed what was written before.
        if *file == "cpu.cfs_period_us"
            && let Some((file, quota)) =
                settings.iter().find(|(file, _)| *file == "cpu.cfs_quota_us")
        {
            group.write(file, quota)?;
        }
    }
    Ok(())
}

/// cpuset's files are the same in both versions.
pub(super) fn set_cpuset(group: &Directory, resources: &Resources) -> Result<()> {
    for (file, list) in [("cpuset.cpus", &resources.cpus), ("cpuset.mems", &resources.mems)] {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
            group.write(file, list)?;
        }
    }
    Ok(())
}

fn set_memory(group: &Directory, resources: &Resources) -> Result<()> {
    set_memory_and_swap(group, resources)?;
    if let Some(bytes) = resources.memory_reservation {
        group.write("memory.soft_limit_in_bytes", &limit(bytes))?;
    }
    if let Some(swappiness) = resources.memory_swappiness {
        group.write("memory.swappiness", &swappiness.to_string())?;
    }
    if let Some(disable) = resources.disable_oom_killer {
        group.write("memory.oom_control", if disable { "1" } else { "0" })?;
    }
    Ok(())
}

/// The limit of memory and swap may never be below that of memory: when the
/// limits rise the one goes first, when they fall the other.
fn set_memory_and_swap(group: &Directory, resources: &Resources) -> Result<()> {
    const MEMORY: &str = "memory.limit_in_bytes";
    const SWAP: &str = "memory.memsw.limit_in_bytes";
    let memory = resources.memory_limit.filter(|bytes| *bytes != 0);
    // No limit of memory means none of swap, unless one is asked for.
    let implied = memory.filter(|bytes| *bytes < 0);
    let swap = resources.memory_swap.filter(|bytes| *bytes != 0).or(implied);
    let accounted = group.has(SWAP);
    if let Some(bytes) = swap
        && !accounted
        && bytes > 0
        && Some(bytes) != memory
    {
        return Err(unsupported(group, &limit(bytes), SWAP, "swap is not accounted here"));
    }
    let swap = swap.filter(|_| accounted);
    let Some(memory) = memory else {
        return swap.map_or(Ok(()), |bytes| group.write(SWAP, &limit(bytes)));
    };
    // The kernel reclaims what it can, and kills nothing for a new limit.
    let write_memory = || match group.try_write(MEMORY, &limit(memory)) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => {
            check_usage(group, "memory.usage_in_bytes", MEMORY, memory)?;
            Err(group.write_error(MEMORY, &limit(memory), Errno::BUSY))
        }
        Err(errno) => Err(group.write_error(MEMORY, &limit(memory), errno)),
    };
    let Some(swap) = swap else { return write_memory() };
    let present: i64 = group.read(SWAP)?.parse().unwrap_or(i64::MAX);
    if memory < 0 || memory > present {
        group.write(SWAP, &limit(swap))?;
        write_memory()
    } else {
        write_memory()?;
        group.write(SWAP, &limit(swap))
    }
}

/// Refuses a limit below what is used already.
pub(super) fn check_usage(group: &Directory, usage: &str, file: &str, limit: i64) -> Result<()> {
    let used: i64 = group.read(usage)?.parse().unwrap_or(0);
    if used <= limit {
        return Ok(());
    }
    let why = format!("{used} bytes are in use");
    Err(refused(group, &limit.to_string(), file, &why, Errno::BUSY))
}

fn limit(bytes: i64) -> String {
    bytes.max(UNLIMITED).to_string()
}

fn set_hugepages(group: &Directory, resources: &Resources) -> Result<()> {
    for page in &resources.hugepage_limits {
        let value = page.limit.min(i64::MAX as u64).to_string();
        let size = checked_name(group, &page.page_size)?;
        group.write(&format!("hugetlb.{size}.limit_in_bytes"), &value)?;
        let reserved = format!("hugetlb.{size}.rsvd.limit_in_bytes");
        if group.has(&reserved) {
            group.write(&reserved, &value)?;
        }
    }
    Ok(())
}

fn set_io(group: &Directory, resources: &Resources) -> Result<()> {
    if let Some(weight) = resources.io_weight.filter(|weight| *weight != 0) {
        let bfq = group.has("blkio.bfq.weight");
        let file = if bfq { "blkio.bfq.weight" } else { "blkio.weight" };
        group.write(file, &weight.to_string())?;
    }
    for limit in &resources.io_limits {
        let file = match limit.kind {
            IoLimitKind::ReadBytes => "blkio.throttle.read_bps_device",
            IoLimitKind::WriteBytes => "blkio.throttle.write_bps_device",
            IoLimitKind::ReadOperations => "blkio.throttle.read_iops_device",
            IoLimitKind::WriteOperations => "blkio.throttle.write_iops_device",
        };
        group.write(file, &format!("{}:{} {}", limit.major, limit.minor, limit.rate))?;
    }
    Ok(())
}

/// A text that becomes part of a file's name must not lead elsewhere.
pub(super) fn checked_name<'a>(group: &Directory, name: &'a str) -> Result<&'a str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if !name.is_empty() && name.bytes().all(plain) {
        return Ok(name);
    }
    let object = format!("{name:?} in the name of a file of {}", group.path().display());
    Err(Error::new("use", object, Errno::INVAL))
}

/// The error for a limit that this machine cannot set.
pub(super) fn unsupported(group: &Directory, value: &str, file: &str, why: &str) -> Error {
    refused(group, value, file, why, Errno::OPNOTSUPP)
}

fn refused(group: &Directory, value: &str, file: &str, why: &str, errno: Errno) -> Error {
    let object = format!("{value:?} to {file} of {} ({why})", group.path().display());
    Error::new("write", object, errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_parts() {
        assert_eq!(part_ends("/a").collect::<Vec<_>>(), [2]);
        assert_eq!(part_ends("/a/bc/d").collect::<Vec<_>>(), [2, 5, 7]);
    }
}
