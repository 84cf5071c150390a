//! Limits: CRI says zero where it means nothing.

use corten_api::cri::{HugepageLimit, LinuxContainerResources};
use corten_pods::Result;
use corten_spec::request::Resources;

use crate::validate::{no_nul, refuse};

/// Limits of a container or pod that is being made. The OOM score counts even
/// when it is 0: without one the container would inherit the daemon's.
pub fn from_cri(field: &str, cri: Option<LinuxContainerResources>) -> Result<Resources> {
    let cri = cri.unwrap_or_default();
    no_nul(field, &cri.cpuset_cpus)?;
    no_nul(field, &cri.cpuset_mems)?;
    Ok(Resources {
        cpu_period: unsigned(&format!("{field}.cpu_period"), cri.cpu_period)?,
        cpu_quota: not_zero(cri.cpu_quota),
        cpu_shares: unsigned(&format!("{field}.cpu_shares"), cri.cpu_shares)?,
        cpuset_cpus: cri.cpuset_cpus,
        cpuset_mems: cri.cpuset_mems,
        memory_limit_bytes: limit(
            &format!("{field}.memory_limit_in_bytes"),
            cri.memory_limit_in_bytes,
        )?,
        memory_swap_limit_bytes: limit(
            &format!("{field}.memory_swap_limit_in_bytes"),
            cri.memory_swap_limit_in_bytes,
        )?,
        memory_reservation_bytes: None,
        pids_limit: None,
        hugepage_limits: cri
            .hugepage_limits
            .into_iter()
            .map(|limit| (limit.page_size, limit.limit))
            .collect(),
        unified: unified(field, cri.unified)?,
        oom_score_adj: Some(oom_score(field, cri.oom_score_adj)?),
    })
}

/// Limits as they are.
pub fn to_cri(resources: &Resources) -> LinuxContainerResources {
    let signed = |value: Option<u64>| {
        value.map(|value| i64::try_from(value).unwrap_or(i64::MAX)).unwrap_or_default()
    };
    LinuxContainerResources {
        cpu_period: signed(resources.cpu_period),
        cpu_quota: resources.cpu_quota.unwrap_or_default(),
        cpu_shares: signed(resources.cpu_shares),
        memory_limit_in_bytes: resources.memory_limit_bytes.unwrap_or_default(),
        oom_score_adj: resources.oom_score_adj.unwrap_or_default().into(),
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        hugepage_limits: resources
            .hugepage_limits
            .iter()
            .map(|(size, limit)| HugepageLimit { page_size: size.clone(), limit: *limit })
            .collect(),
        unified: resources.unified.clone(),
        memory_swap_limit_in_bytes: resources.memory_swap_limit_bytes.unwrap_or_default(),
    }
}

fn not_zero(value: i64) -> Option<i64> {
    (value != 0).then_some(value)
}

/// A limit in bytes; 0 says nothing, and -1 that there is none.
fn limit(field: &str, value: i64) -> Result<Option<i64>> {
    if value < -1 {
        return Err(refuse(field, format!("{value} is negative")));
    }
    Ok(not_zero(value))
}

fn unsigned(field: &str, value: i64) -> Result<Option<u64>> {
    match u64::try_from(value) {
        Ok(0) => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(refuse(field, format!("{value} is negative"))),
    }
}

fn oom_score(field: &str, value: i64) -> Result<i32> {
    i32::try_from(value).ok().filter(|score| (-1000..=1000).contains(score)).ok_or_else(|| {
        refuse(&format!("{field}.oom_score_adj"), format!("{value} is not within -1000 to 1000"))
    })
}

/// Keys become file names in the cgroup.
pub fn unified(
    field: &str,
    keys: std::collections::BTreeMap<String, String>,
) -> Result<std::collections::BTreeMap<String, String>> {
    for key in keys.keys() {
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if !key.contains('.') || key.starts_with('.') || !key.bytes().all(inner) {
            return Err(refuse(
                &format!("{field}.unified"),
                format!("{key:?} is no cgroup v2 key such as memory.high"),
            ));
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_fields_go_there_and_back() {
        let cri = LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: 50_000,
            cpu_shares: 512,
            memory_limit_in_bytes: 64 << 20,
            oom_score_adj: 999,
            cpuset_cpus: "0-1".into(),
            cpuset_mems: "0".into(),
            hugepage_limits: vec![HugepageLimit { page_size: "2MB".into(), limit: 4 << 20 }],
            unified: [("memory.high".to_owned(), "1000000".to_owned())].into(),
            memory_swap_limit_in_bytes: 128 << 20,
        };
        let ours = from_cri("resources", Some(cri.clone())).unwrap();
        assert_eq!(to_cri(&ours), cri);
    }

    #[test]
    fn zero_is_nothing_but_for_the_oom_score() {
        let ours = from_cri("resources", None).unwrap();
        assert_eq!(ours, Resources { oom_score_adj: Some(0), ..Resources::default() });
        assert_eq!(to_cri(&ours), LinuxContainerResources::default());
    }

    #[test]
    fn what_no_kernel_takes_is_refused() {
        let with = |change: fn(&mut LinuxContainerResources)| {
            let mut cri = LinuxContainerResources::default();
            change(&mut cri);
            from_cri("linux.resources", Some(cri)).map(drop).unwrap_err().to_string()
        };
        assert!(with(|cri| cri.cpu_period = -1).contains("linux.resources.cpu_period"));
        assert!(with(|cri| cri.cpu_shares = -1).contains("cpu_shares"));
        assert!(with(|cri| cri.oom_score_adj = 1001).contains("oom_score_adj"));
        assert!(with(|cri| drop(cri.unified.insert("../x.y".into(), "1".into()))).contains("v2"));
        assert!(with(|cri| cri.cpuset_cpus = "0\0".into()).contains("NUL"));
    }
}
