//! Groups of the v2 hierarchy: making them and writing their limits.

use rustix::io::Errno;

use super::devices::{self, DeviceRule};
use super::file::Directory;
use super::hierarchy::{Controller, Unified, delegated};
use super::resources::{IoLimitKind, Resources};
use super::v1::{check_usage, checked_name, part_ends, set_cpuset, unsupported};
use super::{bpf, program};
use crate::{Context as _, Error, Result};

/// Makes a group and its parents, and hands the controllers down to it.
pub(super) fn make(unified: &Unified, path: &str) -> Result<()> {
    let group = Directory::new(&unified.mount, path);
    if group.make().is_ok() && has_controllers(unified, &group)? {
        return Ok(());
    }
    let mut parent = Directory::new(&unified.mount, "");
    for end in part_ends(path) {
        hand_down(unified, &parent)?;
        let directory = Directory::new(&unified.mount, &path[..end]);
        directory.make().context("make", || format!("cgroup {}", directory.path().display()))?;
        parent = directory;
    }
    Ok(())
}

fn has_controllers(unified: &Unified, group: &Directory) -> Result<bool> {
    let present = group.read("cgroup.controllers")?;
    Ok(delegated(unified).all(|name| present.split(' ').any(|one| one == name)))
}

/// Gives the groups below `parent` the controllers that it has itself.
///
/// A group that holds processes is not asked: it would refuse some, and with
/// the others become one of threads, below which no process can be. Its
/// processes are not ours to move: then the group below has no such controller,
/// which is an error only when a limit that needs it is asked for.
fn hand_down(unified: &Unified, parent: &Directory) -> Result<()> {
    let has = parent.read("cgroup.controllers")?;
    let given = parent.read("cgroup.subtree_control")?;
    let in_list = |list: &str, name: &str| list.split(' ').any(|one| one == name);
    let missing: Vec<String> = delegated(unified)
        .filter(|name| in_list(&has, name) && !in_list(&given, name))
        .map(|name| format!("+{name}"))
        .collect();
    let is_root = parent.path() == unified.mount;
    if missing.is_empty()
        || (!is_root && !parent.pids()?.is_empty())
        || parent.try_write("cgroup.subtree_control", &missing.join(" ")).is_ok()
    {
        return Ok(());
    }
    for name in missing {
        match parent.try_write("cgroup.subtree_control", &name) {
            Ok(()) | Err(Errno::NOENT | Errno::OPNOTSUPP | Errno::ACCESS) => {}
            // Somebody has just come.
            Err(Errno::BUSY) => return Ok(()),
            Err(errno) => return Err(parent.write_error("cgroup.subtree_control", &name, errno)),
        }
    }
    Ok(())
}

/// Writes what `resources` says about one controller.
pub(super) fn set(group: &Directory, controller: Controller, resources: &Resources) -> Result<()> {
    match controller {
        Controller::Cpu => set_cpu(group, resources),
        Controller::Cpuset => set_cpuset(group, resources),
        Controller::Memory => set_memory(group, resources),
        Controller::Pids => set_pids(group, resources),
        Controller::Hugetlb => set_hugepages(group, resources),
        Controller::Io => set_io(group, resources),
        Controller::Rdma => set_rdma(group, resources),
        Controller::Devices => match &resources.devices {
            Some(rules) => set_devices(group, rules),
            None => Ok(()),
        },
        Controller::Cpuacct | Controller::Freezer => Ok(()),
    }
}

fn set_cpu(group: &Directory, resources: &Resources) -> Result<()> {
    if let Some(idle) = resources.cpu_idle {
        group.write("cpu.idle", &idle.to_string())?;
    }
    // The kernel refuses the weight of an idle group.
    if let Some(shares) = resources.cpu_shares.filter(|shares| *shares != 0)
        && resources.cpu_idle != Some(1)
    {
        group.write("cpu.weight", &weight(shares).to_string())?;
    }
    let quota = resources.cpu_quota.filter(|us| *us != 0);
    let period = resources.cpu_period.filter(|us| *us != 0);
    let burst = resources.cpu_burst.map(|us| us.to_string());
    // A burst may not be above the quota: what is refused before a new quota
    // is tried after it.
    let early = burst.as_ref().map(|burst| group.try_write("cpu.max.burst", burst));
    if quota.is_some() || period.is_some() {
        let quota = match quota {
            Some(us) if us < 0 => "max".into(),
            Some(us) => us.to_string(),
            None => group.read("cpu.max")?.split(' ').next().unwrap_or("max").to_owned(),
        };
        let period = period.map(|us| format!(" {us}")).unwrap_or_default();
        write_or_unlimited(group, "cpu.max", &format!("{quota}{period}"))?;
    }
    match (burst, early) {
        (Some(burst), Some(Err(_))) => group.write("cpu.max.burst", &burst),
        _ => Ok(()),
    }
}

/// v1 shares (2 to 262144) as a v2 weight (1 to 10000).
///
/// The quadratic in log2(shares) through (2, 1), (1024, 100) and
/// (262144, 10000), so that both ends and the usual value meet:
/// `10 ^ ((log2(shares)² + 125 · log2(shares)) / 612 − 7/34)`, rounded up.
pub(super) fn weight(shares: u64) -> u64 {
    let log = (shares.clamp(2, 262_144) as f64).log2();
    let weight = 10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0);
    // The three points are exact; the floating point is not.
    ((weight - 1e-6).ceil() as u64).clamp(1, 10_000)
}

fn set_memory(group: &Directory, resources: &Resources) -> Result<()> {
    if let Some(value) = resources.memory_swappiness {
        let why = "cgroup v2 has no swappiness of a group";
        return Err(unsupported(group, &value.to_string(), "memory.swappiness", why));
    }
    if resources.disable_oom_killer == Some(true) {
        let why = "cgroup v2 cannot switch the OOM killer off";
        return Err(unsupported(group, "1", "memory.oom_control", why));
    }
    let memory = resources.memory_limit.filter(|bytes| *bytes != 0);
    if let Some(bytes) = memory.filter(|bytes| *bytes > 0)
        && resources.check_before_update
    {
        make_room(group, bytes)?;
    }
    if let Some(value) = swap_value(group, memory, resources.memory_swap)? {
        match group.try_write("memory.swap.max", &value) {
            Ok(()) => {}
            // Without swap accounting there is nothing that could be limited
            // to nothing, or left without a limit.
            Err(Errno::NOENT) if matches!(value.as_str(), "0" | "max") => {}
            Err(errno) => return Err(group.write_error("memory.swap.max", &value, errno)),
        }
    }
    if let Some(bytes) = memory {
        write_or_unlimited(group, "memory.max", &or_max(bytes))?;
    }
    if let Some(bytes) = resources.memory_reservation.filter(|bytes| *bytes != 0) {
        let value = if bytes < 0 { "max".into() } else { bytes.to_string() };
        group.write("memory.low", &value)?;
    }
    Ok(())
}

/// Below a new limit the kernel kills for what it cannot reclaim. So that is
/// reclaimed before, and the limit refused if it was not enough.
fn make_room(group: &Directory, limit: i64) -> Result<()> {
    let used: i64 = group.read("memory.current")?.parse().unwrap_or(0);
    if used > limit {
        // Since Linux 5.19; it fails as well when it gets less than that.
        let _ = group.try_write("memory.reclaim", &(used - limit).to_string());
    }
    check_usage(group, "memory.current", "memory.max", limit)
}

/// OCI counts memory and swap together, v2 swap alone.
fn swap_value(group: &Directory, memory: Option<i64>, swap: Option<i64>) -> Result<Option<String>> {
    let total = match (swap.filter(|bytes| *bytes != 0), memory) {
        (None, Some(memory)) if memory < 0 => return Ok(Some("max".into())),
        (None, _) => return Ok(None),
        (Some(total), _) if total < 0 => return Ok(Some("max".into())),
        (Some(total), _) => total,
    };
    let memory = match memory {
        Some(memory) => memory,
        None => group.read("memory.max")?.parse().unwrap_or(-1),
    };
    if memory < 0 {
        let object = format!(
            "a limit of {total} bytes of memory and swap on {} (it has no limit of memory)",
            group.path().display()
        );
        return Err(Error::new("set", object, Errno::INVAL));
    }
    match total.checked_sub(memory).filter(|swap| *swap >= 0) {
        Some(swap) => Ok(Some(swap.to_string())),
        None => {
            let object = format!(
                "a limit of {total} bytes of memory and swap on {} (below its {memory} of memory)",
                group.path().display()
            );
            Err(Error::new("set", object, Errno::INVAL))
        }
    }
}

fn or_max(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

/// Writes a limit; that there is none needs no controller.
fn write_or_unlimited(group: &Directory, file: &str, value: &str) -> Result<()> {
    match group.try_write(file, value) {
        Ok(()) => Ok(()),
        Err(Errno::NOENT) if value.starts_with("max") && group.exists() => Ok(()),
        Err(errno) => Err(group.write_error(file, value, errno)),
    }
}

/// The file is the same in both versions.
pub(super) fn set_pids(group: &Directory, resources: &Resources) -> Result<()> {
    match resources.pids_limit {
        None => Ok(()),
        Some(limit) if limit <= 0 => write_or_unlimited(group, "pids.max", "max"),
        Some(limit) => group.write("pids.max", &limit.to_string()),
    }
}

fn set_hugepages(group: &Directory, resources: &Resources) -> Result<()> {
    for page in &resources.hugepage_limits {
        let value =
            if page.limit > i64::MAX as u64 { "max".into() } else { page.limit.to_string() };
        let size = checked_name(group, &page.page_size)?;
        match group.try_write(&format!("hugetlb.{size}.max"), &value) {
            Ok(()) => {}
            // Pages that this machine does not have cannot be used.
            Err(Errno::NOENT) if matches!(value.as_str(), "0" | "max") => continue,
            Err(errno) => {
                return Err(group.write_error(&format!("hugetlb.{size}.max"), &value, errno));
            }
        }
        let reserved = format!("hugetlb.{size}.rsvd.max");
        if group.has(&reserved) {
            group.write(&reserved, &value)?;
        }
    }
    Ok(())
}

fn set_io(group: &Directory, resources: &Resources) -> Result<()> {
    if let Some(weight) = resources.io_weight.filter(|weight| *weight != 0) {
        if group.has("io.bfq.weight") {
            group.write("io.bfq.weight", &weight.to_string())?;
        } else {
            // 10 to 1000 becomes 1 to 10000, linearly, as OCI runtimes do.
            let weight = 1 + (u64::from(weight.max(10)) - 10) * 9999 / 990;
            group.write("io.weight", &weight.to_string())?;
        }
    }
    for limit in &resources.io_limits {
        let key = match limit.kind {
            IoLimitKind::ReadBytes => "rbps",
            IoLimitKind::WriteBytes => "wbps",
            IoLimitKind::ReadOperations => "riops",
            IoLimitKind::WriteOperations => "wiops",
        };
        let rate = if limit.rate == 0 { "max".into() } else { limit.rate.to_string() };
        group.write("io.max", &format!("{}:{} {key}={rate}", limit.major, limit.minor))?;
    }
    Ok(())
}

/// The file is the same in both versions.
pub(super) fn set_rdma(group: &Directory, resources: &Resources) -> Result<()> {
    for (device, limits) in &resources.rdma {
        group.write("rdma.max", &format!("{device} {limits}"))?;
    }
    Ok(())
}

/// v2 has no device controller: a BPF program decides. There is none where the
/// rules allow everything, as in a privileged container.
pub(super) fn set_devices(group: &Directory, rules: &[DeviceRule]) -> Result<()> {
    let rules = devices::effective(rules);
    let directory = group.open()?;
    let object = || format!("the device program of {}", group.path().display());
    match rules {
        [] => Ok(()),
        [only] if only.allow && only.is_total() => match bpf::detach(&directory) {
            // Who may not look has not put one there either.
            Err(Errno::PERM) => Ok(()),
            outcome => outcome.context("remove", object),
        },
        rules => bpf::replace(&directory, &program::assemble(rules)).context("attach", object),
    }
}

/// Files of v2 by name, as OCI's `unified` gives them.
pub(super) fn set_unified(group: &Directory, values: &[(String, String)]) -> Result<()> {
    for (file, value) in values {
        checked_name(group, file)?;
        // These move processes and controllers about: no limits.
        if file.starts_with("cgroup.") && !file.starts_with("cgroup.max.") {
            return Err(unsupported(group, value, file, "not a limit"));
        }
        group.write(file, value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::weight;

    #[test]
    fn weights() {
        let known = [(0, 1), (2, 1), (1024, 100), (262_144, 10_000), (1 << 40, 10_000)];
        for (shares, expected) in known {
            assert_eq!(weight(shares), expected, "{shares}");
        }
        assert!((2..262_144).step_by(97).all(|shares| weight(shares) <= weight(shares + 97)));
    }
}
