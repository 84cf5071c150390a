//! Limits of people's containers: of new ones, and changed ones.

use corten_api::corten as api;
use corten_pods::Result;
use corten_spec::request::Resources;
use tonic::Status;

use super::People;
use crate::status::{Wire, to_the_end};
use crate::translate::resources::unified;
use crate::validate::{no_nul, refuse};

/// Microseconds; Linux's own default.
const CPU_PERIOD_US: u64 = 100_000;
/// The kernel's least quota, in microseconds.
const CPU_QUOTA_US_MIN: i64 = 1000;
/// How the engine says that there is no limit.
const UNLIMITED: i64 = -1;

impl People {
    pub(super) async fn update_container(
        &self,
        request: api::UpdateContainerRequest,
    ) -> std::result::Result<api::UpdateContainerResponse, Status> {
        let (namespace, container) = self.find(&request.namespace, &request.container)?;
        let asked = of_update(request).wire()?;
        let engine = self.engine.clone();
        to_the_end(async move {
            engine.update_container(&namespace, container.id.as_str(), asked).await
        })
        .await?;
        Ok(api::UpdateContainerResponse {})
    }
}

/// Limits of a container that is being made; 0 says that there is none.
pub fn of_new(memory_bytes: u64, nano_cpus: u64, pids: u64) -> Result<Resources> {
    let quota = if nano_cpus == 0 { None } else { Some(quota(nano_cpus)?) };
    let named = |field, value| if value == 0 { Ok(None) } else { limit(field, value).map(Some) };
    let memory = named("memory_bytes", memory_bytes)?;
    Ok(Resources {
        cpu_period: quota.map(|_| CPU_PERIOD_US),
        cpu_quota: quota,
        memory_limit_bytes: memory,
        // Without swap: a limit that people set is the limit.
        memory_swap_limit_bytes: memory,
        pids_limit: named("pids", pids)?,
        oom_score_adj: Some(0),
        ..Resources::default()
    })
}

/// Limits to change; 0 takes one away, and what is absent stays.
fn of_update(request: api::UpdateContainerRequest) -> Result<Resources> {
    let named = |field, value: Option<u64>| value.map(|value| limit(field, value)).transpose();
    let quota = request.nano_cpus.map(quota).transpose()?;
    let memory = named("memory_bytes", request.memory_bytes)?;
    let asked = Resources {
        cpu_period: quota.map(|_| CPU_PERIOD_US),
        cpu_quota: quota,
        cpu_shares: request.cpu_shares.map(shares).transpose()?,
        cpuset_cpus: no_nul("cpuset_cpus", &request.cpuset_cpus.unwrap_or_default())?.to_owned(),
        cpuset_mems: no_nul("cpuset_mems", &request.cpuset_mems.unwrap_or_default())?.to_owned(),
        memory_limit_bytes: memory,
        memory_swap_limit_bytes: named("memory_swap_bytes", request.memory_swap_bytes)?.or(memory),
        pids_limit: named("pids", request.pids)?,
        unified: unified("unified", request.unified.into_iter().collect())?,
        ..Resources::default()
    };
    if asked == Resources::default() {
        return Err(refuse("limits", "none was named: say which to change"));
    }
    Ok(asked)
}

fn limit(field: &str, value: u64) -> Result<i64> {
    match i64::try_from(value) {
        Ok(0) => Ok(UNLIMITED),
        Ok(value) => Ok(value),
        Err(_) => Err(refuse(field, "it is more than any machine has")),
    }
}

/// 1 CPU is 10^9 nano-CPUs, and one whole period.
fn quota(nano_cpus: u64) -> Result<i64> {
    let quota = limit("nano_cpus", nano_cpus / (1_000_000_000 / CPU_PERIOD_US))?;
    if nano_cpus != 0 && quota < CPU_QUOTA_US_MIN {
        return Err(refuse("nano_cpus", "the least is a hundredth of a CPU"));
    }
    Ok(quota)
}

fn shares(shares: u64) -> Result<u64> {
    if (2..=262_144).contains(&shares) {
        return Ok(shares);
    }
    Err(refuse("cpu_shares", format!("{shares} is not within 2 to 262144")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_stays_and_zero_takes_away() {
        let memory = Some(64 << 20);
        let request = api::UpdateContainerRequest { memory_bytes: memory, ..Default::default() };
        let asked = of_update(request.clone()).unwrap();
        let limit = memory.map(|bytes| bytes as i64);
        assert_eq!((asked.memory_limit_bytes, asked.memory_swap_limit_bytes), (limit, limit));
        assert_eq!((asked.cpu_quota, asked.pids_limit, asked.oom_score_adj), (None, None, None));
        let none = api::UpdateContainerRequest {
            memory_bytes: Some(0),
            nano_cpus: Some(0),
            pids: Some(0),
            ..Default::default()
        };
        let asked = of_update(none).unwrap();
        assert_eq!(asked.cpu_quota, Some(-1));
        assert_eq!((asked.memory_swap_limit_bytes, asked.pids_limit), (Some(-1), Some(-1)));
    }

    #[test]
    fn nonsense_is_named() {
        let refused = |change: fn(&mut api::UpdateContainerRequest)| {
            let mut request = api::UpdateContainerRequest::default();
            change(&mut request);
            of_update(request).unwrap_err().to_string()
        };
        assert!(refused(|_| {}).contains("none was named"));
        assert!(refused(|r| r.cpu_shares = Some(1)).contains("262144"));
        assert!(refused(|r| r.nano_cpus = Some(5)).contains("hundredth"));
        assert!(refused(|r| drop(r.unified.insert("x".into(), "1".into()))).contains("v2"));
        assert!(refused(|r| r.memory_bytes = Some(u64::MAX)).contains("any machine"));
    }
}
