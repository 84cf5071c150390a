//! Filters of lists: all that is given must fit.

use corten_api::cri;
use corten_pods::{ContainerFilter, ContainerPhase, Result, SandboxFilter, SandboxPhase};

use crate::validate::refuse;

/// Which sandboxes to list.
pub fn sandboxes(filter: Option<cri::PodSandboxFilter>) -> Result<SandboxFilter> {
    let filter = filter.unwrap_or_default();
    let phase = match filter.state {
        None => None,
        Some(value) => Some(match cri::PodSandboxState::try_from(value.state) {
            Ok(cri::PodSandboxState::SandboxReady) => SandboxPhase::Ready,
            Ok(cri::PodSandboxState::SandboxNotready) => SandboxPhase::NotReady,
            Err(_) => return Err(refuse("filter.state", "it is no state of a sandbox")),
        }),
    };
    Ok(SandboxFilter { id: filter.id, phase, labels: filter.label_selector })
}

/// Which containers to list. None where no container can fit: ours are never
/// in the state UNKNOWN.
pub fn containers(filter: Option<cri::ContainerFilter>) -> Result<Option<ContainerFilter>> {
    let filter = filter.unwrap_or_default();
    let phase = match filter.state {
        None => None,
        Some(value) => Some(match cri::ContainerState::try_from(value.state) {
            Ok(cri::ContainerState::ContainerCreated) => ContainerPhase::Created,
            Ok(cri::ContainerState::ContainerRunning) => ContainerPhase::Running,
            Ok(cri::ContainerState::ContainerExited) => ContainerPhase::Exited,
            Ok(cri::ContainerState::ContainerUnknown) => return Ok(None),
            Err(_) => return Err(refuse("filter.state", "it is no state of a container")),
        }),
    };
    Ok(Some(ContainerFilter {
        id: filter.id,
        sandbox: filter.pod_sandbox_id,
        phase,
        labels: filter.label_selector,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_given_fits_all() {
        let all = sandboxes(None).unwrap();
        assert!(all.id.is_empty() && all.phase.is_none() && all.labels.is_empty());
        let all = containers(None).unwrap().unwrap();
        assert!(all.id.is_empty() && all.sandbox.is_empty() && all.phase.is_none());
    }

    #[test]
    fn all_parts_arrive() {
        let labels = std::collections::BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let ours = sandboxes(Some(cri::PodSandboxFilter {
            id: "12".into(),
            state: Some(cri::PodSandboxStateValue { state: 1 }),
            label_selector: labels.clone(),
        }));
        let ours = ours.unwrap();
        assert_eq!((ours.id.as_str(), ours.phase), ("12", Some(SandboxPhase::NotReady)));
        assert_eq!(ours.labels, labels);
        let filter = |state| {
            containers(Some(cri::ContainerFilter {
                id: "12".into(),
                state: Some(cri::ContainerStateValue { state }),
                pod_sandbox_id: "34".into(),
                label_selector: labels.clone(),
            }))
        };
        let ours = filter(1).unwrap().unwrap();
        assert_eq!((ours.sandbox.as_str(), ours.phase), ("34", Some(ContainerPhase::Running)));
        assert!(filter(3).unwrap().is_none(), "nothing is UNKNOWN");
        assert!(filter(4).is_err());
    }
}
