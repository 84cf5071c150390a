//! Changing the limits of what is there already: what is not named stays.

use crate::request::Resources;
use crate::{Error, Result};

/// A change of limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// All limits once it is made.
    pub after: Resources,
    /// What has to be set for that.
    pub change: Resources,
}

/// Joins what is asked for with the limits of before. What is `None`, or
/// empty, stays; of huge pages and of `unified` what is not named stays. The
/// OOM score stays: it is the processes' own, and was theirs from the start.
pub fn update(before: &Resources, asked: &Resources) -> Result<Update> {
    let mut change = Resources { oom_score_adj: None, ..asked.clone() };
    change.memory_swap_limit_bytes = asked.memory_swap_limit_bytes.or(moved_swap(before, asked));
    let text = |asked: &String, before: &String| {
        if asked.is_empty() { before.clone() } else { asked.clone() }
    };
    let mut after = Resources {
        cpu_period: change.cpu_period.or(before.cpu_period),
        cpu_quota: change.cpu_quota.or(before.cpu_quota),
        cpu_shares: change.cpu_shares.or(before.cpu_shares),
        cpuset_cpus: text(&change.cpuset_cpus, &before.cpuset_cpus),
        cpuset_mems: text(&change.cpuset_mems, &before.cpuset_mems),
        memory_limit_bytes: change.memory_limit_bytes.or(before.memory_limit_bytes),
        memory_swap_limit_bytes: change.memory_swap_limit_bytes.or(before.memory_swap_limit_bytes),
        memory_reservation_bytes: change
            .memory_reservation_bytes
            .or(before.memory_reservation_bytes),
        pids_limit: change.pids_limit.or(before.pids_limit),
        hugepage_limits: before.hugepage_limits.clone(),
        unified: before.unified.clone(),
        oom_score_adj: before.oom_score_adj,
    };
    for (size, limit) in &change.hugepage_limits {
        after.hugepage_limits.retain(|(there, _)| there != size);
        after.hugepage_limits.push((size.clone(), *limit));
    }
    after.unified.extend(change.unified.clone());
    check_swap(&after)?;
    Ok(Update { after, change })
}

/// Memory and swap are limited together: where the limit of memory changes
/// alone, the two move together, and swap has what it had.
fn moved_swap(before: &Resources, asked: &Resources) -> Option<i64> {
    let (memory, swap) = (before.memory_limit_bytes?, before.memory_swap_limit_bytes?);
    let asked = asked.memory_limit_bytes?;
    if asked < 0 {
        return Some(-1);
    }
    if memory < 0 || swap < 0 { None } else { Some(asked.saturating_add((swap - memory).max(0))) }
}

fn check_swap(after: &Resources) -> Result<()> {
    match (after.memory_limit_bytes, after.memory_swap_limit_bytes) {
        (Some(memory), Some(swap)) if swap >= 0 && (memory < 0 || swap < memory) => {
            Err(Error::Invalid {
                field: "memory_swap_limit_in_bytes",
                value: swap.to_string(),
                reason: "it is the limit of memory and swap together, and below that of memory",
            })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before() -> Resources {
        Resources {
            cpu_period: Some(100_000),
            cpu_quota: Some(50_000),
            cpuset_cpus: "0-1".into(),
            memory_limit_bytes: Some(64),
            memory_swap_limit_bytes: Some(96),
            hugepage_limits: vec![("2MB".into(), 8), ("1GB".into(), 4)],
            unified: [("memory.high".to_owned(), "60".to_owned())].into(),
            oom_score_adj: Some(500),
            ..Resources::default()
        }
    }

    #[test]
    fn what_is_not_named_stays() {
        let nothing = Resources { oom_score_adj: Some(0), ..Resources::default() };
        let update = update(&before(), &nothing).unwrap();
        assert_eq!(update.after, before());
        assert_eq!(update.change, Resources::default());
    }

    #[test]
    fn lists_are_joined() {
        let asked = Resources {
            cpu_quota: Some(-1),
            hugepage_limits: vec![("2MB".into(), 0)],
            unified: [("memory.min".to_owned(), "1".to_owned())].into(),
            ..Resources::default()
        };
        let update = update(&before(), &asked).unwrap();
        assert_eq!(update.change, asked);
        assert_eq!(update.after.hugepage_limits, [("1GB".to_owned(), 4), ("2MB".to_owned(), 0)]);
        assert_eq!(update.after.unified.len(), 2);
        assert_eq!((update.after.cpu_quota, update.after.cpu_period), (Some(-1), Some(100_000)));
    }

    #[test]
    fn swap_keeps_what_it_has() {
        let memory = |memory, swap| {
            let asked = Resources {
                memory_limit_bytes: memory,
                memory_swap_limit_bytes: swap,
                ..Resources::default()
            };
            update(&before(), &asked).map(|update| update.change.memory_swap_limit_bytes)
        };
        assert_eq!(memory(Some(128), None).unwrap(), Some(160));
        assert_eq!(memory(Some(32), None).unwrap(), Some(64));
        assert_eq!(memory(Some(-1), None).unwrap(), Some(-1));
        assert_eq!(memory(Some(128), Some(128)).unwrap(), Some(128));
        assert_eq!(memory(None, Some(-1)).unwrap(), Some(-1));
        for (limit, swap) in [(Some(128), Some(127)), (None, Some(63)), (Some(-1), Some(128))] {
            let error = memory(limit, swap).unwrap_err().to_string();
            assert!(error.contains("together"), "{error}");
        }
    }
}
