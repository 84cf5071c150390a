//! Sandboxes and containers as CRI shows them.

use corten_api::cri;
use corten_pods::{ContainerPhase, ContainerView, SandboxPhase, SandboxView};

use super::{mount, namespaces, resources, signal};

/// A sandbox in a list.
pub fn sandbox(view: &SandboxView) -> cri::PodSandbox {
    cri::PodSandbox {
        id: view.id.to_string(),
        metadata: Some(sandbox_metadata(view)),
        state: sandbox_state(view.phase).into(),
        created_at: view.created_at_ns,
        labels: view.config.labels.clone(),
        annotations: view.config.annotations.clone(),
        runtime_handler: view.config.runtime_handler.clone(),
    }
}

/// A sandbox as it is.
pub fn sandbox_status(view: &SandboxView) -> cri::PodSandboxStatus {
    let mut ips = view.ips.iter().map(ToString::to_string);
    let network = cri::PodSandboxNetworkStatus {
        ip: ips.next().unwrap_or_default(),
        additional_ips: ips.map(|ip| cri::PodIp { ip }).collect(),
    };
    cri::PodSandboxStatus {
        id: view.id.to_string(),
        metadata: Some(sandbox_metadata(view)),
        state: sandbox_state(view.phase).into(),
        created_at: view.created_at_ns,
        network: Some(network),
        linux: Some(cri::LinuxPodSandboxStatus {
            namespaces: Some(cri::Namespace {
                options: Some(namespaces::to_cri(&view.config.namespaces)),
            }),
        }),
        labels: view.config.labels.clone(),
        annotations: view.config.annotations.clone(),
        runtime_handler: view.config.runtime_handler.clone(),
    }
}

/// A container in a list. `image` is the name that people know it by.
pub fn container(view: &ContainerView, image: String) -> cri::Container {
    cri::Container {
        id: view.id.to_string(),
        pod_sandbox_id: view.sandbox.to_string(),
        metadata: Some(container_metadata(view)),
        image: Some(image_spec(view, image)),
        image_ref: view.image_ref.clone(),
        state: container_state(view.phase).into(),
        created_at: view.created_at_ns,
        labels: view.config.labels.clone(),
        annotations: view.config.annotations.clone(),
        image_id: view.image_id.to_string(),
    }
}

/// A container as it is. `image` is the name that people know it by.
pub fn container_status(view: &ContainerView, image: String) -> cri::ContainerStatus {
    let ended = view.phase == ContainerPhase::Exited;
    cri::ContainerStatus {
        id: view.id.to_string(),
        metadata: Some(container_metadata(view)),
        state: container_state(view.phase).into(),
        created_at: view.created_at_ns,
        started_at: view.started_at_ns,
        finished_at: view.finished_at_ns,
        exit_code: if ended { view.exit_code } else { 0 },
        image: Some(image_spec(view, image)),
        image_ref: view.image_ref.clone(),
        reason: view.reason.clone(),
        message: view.message.clone(),
        labels: view.config.labels.clone(),
        annotations: view.config.annotations.clone(),
        mounts: mounts(view),
        log_path: view.log_path.clone(),
        resources: Some(cri::ContainerResources {
            linux: Some(resources::to_cri(&view.resources)),
            windows: None,
        }),
        image_id: view.image_id.to_string(),
        user: Some(cri::ContainerUser {
            linux: Some(cri::LinuxContainerUser {
                uid: view.user.uid.into(),
                gid: view.user.gid.into(),
                supplemental_groups: view.user.groups.iter().map(|gid| (*gid).into()).collect(),
            }),
        }),
        stop_signal: signal::to_cri(view.stop_signal).into(),
    }
}

/// The mounts that were asked for; of images with the id of what is mounted.
fn mounts(view: &ContainerView) -> Vec<cri::Mount> {
    let mut mounts: Vec<_> = view.config.mounts.iter().map(mount::to_cri).collect();
    for (index, id) in &view.volumes {
        if let Some(image) = mounts.get_mut(*index).and_then(|mount| mount.image.as_mut()) {
            image.image_ref = id.to_string();
        }
    }
    mounts
}

/// The name that people know a container's image by: a tag it still has
/// (the one that was asked for, if that is among them), else what was asked for.
pub fn image_name(view: &ContainerView, tags: &[String]) -> String {
    let asked = match view.config.user_specified_image.as_str() {
        "" => &view.config.image,
        name => name,
    };
    let complete = asked.parse::<corten_base::Reference>().map(|reference| reference.to_string());
    match complete.ok().filter(|name| tags.contains(name)).or_else(|| tags.first().cloned()) {
        Some(tag) => tag,
        None => asked.to_owned(),
    }
}

fn image_spec(view: &ContainerView, image: String) -> cri::ImageSpec {
    cri::ImageSpec {
        image,
        user_specified_image: view.config.user_specified_image.clone(),
        ..Default::default()
    }
}

pub(super) fn sandbox_metadata(view: &SandboxView) -> cri::PodSandboxMetadata {
    cri::PodSandboxMetadata {
        name: view.config.name.clone(),
        uid: view.config.uid.clone(),
        namespace: view.config.namespace.clone(),
        attempt: view.config.attempt,
    }
}

pub(super) fn container_metadata(view: &ContainerView) -> cri::ContainerMetadata {
    cri::ContainerMetadata { name: view.config.name.clone(), attempt: view.config.attempt }
}

fn sandbox_state(phase: SandboxPhase) -> cri::PodSandboxState {
    match phase {
        SandboxPhase::Ready => cri::PodSandboxState::SandboxReady,
        SandboxPhase::NotReady => cri::PodSandboxState::SandboxNotready,
    }
}

fn container_state(phase: ContainerPhase) -> cri::ContainerState {
    match phase {
        ContainerPhase::Created => cri::ContainerState::ContainerCreated,
        ContainerPhase::Running => cri::ContainerState::ContainerRunning,
        ContainerPhase::Exited => cri::ContainerState::ContainerExited,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use corten_base::{ContainerId, Digest, Namespace, SandboxId};
    use corten_spec::request::{ContainerConfig, SandboxConfig};

    fn a_container() -> ContainerView {
        ContainerView {
            id: ContainerId::from_random([1; 32]),
            sandbox: SandboxId::from_random([2; 32]),
            namespace: Namespace::kubernetes(),
            config: Arc::new(ContainerConfig {
                name: "app".into(),
                attempt: 3,
                image: "sha256:ab".into(),
                user_specified_image: "nginx".into(),
                mounts: vec![Default::default()],
                ..Default::default()
            }),
            phase: ContainerPhase::Exited,
            created_at_ns: 10,
            started_at_ns: 20,
            finished_at_ns: 30,
            exit_code: 137,
            reason: "OOMKilled".into(),
            message: String::new(),
            image_id: Digest::from_sha256([3; 32]),
            image_ref: "docker.io/library/nginx@sha256:1".into(),
            volumes: vec![(0, Digest::from_sha256([4; 32]))],
            log_path: "/var/log/pods/x/0.log".into(),
            resources: Default::default(),
            user: corten_pods::ProcessUser { uid: 1, gid: 2, groups: vec![2, 3] },
            stop_signal: 15,
            pid: None,
        }
    }

    #[test]
    fn a_container_shows_all_of_itself() {
        let view = a_container();
        let status = container_status(&view, "name".into());
        assert_eq!(status.id, "01".repeat(32));
        assert_eq!(status.metadata.unwrap().attempt, 3);
        assert_eq!(status.state, cri::ContainerState::ContainerExited as i32);
        assert_eq!((status.created_at, status.started_at, status.finished_at), (10, 20, 30));
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
        assert_eq!(status.image_id, format!("sha256:{}", "03".repeat(32)));
        assert_eq!(status.mounts.len(), 1);
        let user = status.user.unwrap().linux.unwrap();
        assert_eq!((user.uid, user.gid, user.supplemental_groups), (1, 2, vec![2, 3]));
        assert_eq!(status.stop_signal, cri::Signal::Sigterm as i32);
        let listed = container(&view, "name".into());
        assert_eq!(listed.pod_sandbox_id, "02".repeat(32));
        assert_eq!(listed.image_id, status.image_id);
    }

    #[test]
    fn an_image_goes_by_the_tag_that_was_asked_for() {
        let view = a_container();
        let tags = |tags: &[&str]| tags.iter().map(|&tag| tag.to_owned()).collect::<Vec<_>>();
        let nginx = "docker.io/library/nginx:latest";
        assert_eq!(image_name(&view, &tags(&["r.io/a:1", nginx])), nginx);
        assert_eq!(image_name(&view, &tags(&["r.io/a:1"])), "r.io/a:1");
        assert_eq!(image_name(&view, &[]), "nginx");
    }

    #[test]
    fn a_sandbox_shows_all_of_itself() {
        let view = SandboxView {
            id: SandboxId::from_random([2; 32]),
            namespace: Namespace::kubernetes(),
            config: Arc::new(SandboxConfig {
                name: "web".into(),
                runtime_handler: "crun".into(),
                ..Default::default()
            }),
            phase: SandboxPhase::Ready,
            created_at_ns: 10,
            ips: vec!["10.1.2.3".parse().unwrap(), "fd00::3".parse().unwrap()],
            netns: None,
            shim_pid: None,
        };
        let status = sandbox_status(&view);
        let network = status.network.unwrap();
        assert_eq!(network.ip, "10.1.2.3");
        assert_eq!(network.additional_ips[0].ip, "fd00::3");
        assert_eq!(status.state, cri::PodSandboxState::SandboxReady as i32);
        assert_eq!(status.runtime_handler, "crun");
        assert_eq!(sandbox(&view).metadata, status.metadata);
    }
}
