//! People's containers.

use std::time::Duration;

use corten_api::corten as api;
use corten_base::Namespace;
use corten_pods::{ContainerFilter, ContainerPhase, ContainerView, Error, Kind, SandboxView};
use corten_spec::request::{ContainerConfig, Protocol};
use tonic::Status;

use super::{People, namespace, request};
use crate::status::{Wire, to_the_end};
use crate::translate::signal;
use crate::validate::{id, present};

/// What a container has to end by itself, unless somebody says otherwise.
const GRACE_SECONDS: u32 = 10;
/// What `kill` sends unless somebody says otherwise.
const SIGKILL: i32 = 9;

impl People {
    pub(super) async fn create_container(
        &self,
        request: api::CreateContainerRequest,
    ) -> Result<api::CreateContainerResponse, Status> {
        let namespace = namespace(&request.namespace)?;
        let spec = present("container", request.container).wire()?;
        let (sandbox, container) = request::translate(spec).wire()?;
        let name = container.name.clone();
        self.can_be_made(&namespace, &container).wire()?;
        let engine = self.engine.clone();
        let made =
            to_the_end(async move { engine.create_solo(&namespace, sandbox, container).await })
                .await?;
        Ok(api::CreateContainerResponse { id: made.to_string(), name })
    }

    /// Says what is wrong before a sandbox is made for nothing. That this still
    /// holds later the engine sees to.
    fn can_be_made(
        &self,
        namespace: &Namespace,
        container: &ContainerConfig,
    ) -> corten_pods::Result<()> {
        if self.engine.images().find(namespace, &container.image).is_none() {
            return Err(Error::not_found("image", &container.image));
        }
        let there = self.engine.containers(namespace, &ContainerFilter::default());
        match there.iter().find(|there| there.config.name == container.name) {
            Some(there) => Err(taken(there)),
            None => Ok(()),
        }
    }

    pub(super) async fn start_container(
        &self,
        request: api::StartContainerRequest,
    ) -> Result<api::StartContainerResponse, Status> {
        let (namespace, container) = self.find(&request.namespace, &request.container)?;
        let engine = self.engine.clone();
        to_the_end(async move { engine.start_container(&namespace, container.id.as_str()).await })
            .await?;
        Ok(api::StartContainerResponse {})
    }

    pub(super) async fn stop_container(
        &self,
        request: api::StopContainerRequest,
    ) -> Result<api::StopContainerResponse, Status> {
        let (namespace, container) = self.find(&request.namespace, &request.container)?;
        let grace = Duration::from_secs(request.grace_seconds.unwrap_or(GRACE_SECONDS).into());
        let engine = self.engine.clone();
        to_the_end(
            async move { engine.stop_container(&namespace, container.id.as_str(), grace).await },
        )
        .await?;
        Ok(api::StopContainerResponse {})
    }

    pub(super) async fn kill_container(
        &self,
        request: api::KillContainerRequest,
    ) -> Result<api::KillContainerResponse, Status> {
        let (namespace, container) = self.find(&request.namespace, &request.container)?;
        let number = match request.signal.as_str() {
            "" => SIGKILL,
            text => signal::from_text("signal", text).wire()?,
        };
        let engine = self.engine.clone();
        to_the_end(async move {
            engine.kill_container(&namespace, container.id.as_str(), number).await
        })
        .await?;
        Ok(api::KillContainerResponse {})
    }

    pub(super) async fn remove_container(
        &self,
        request: api::RemoveContainerRequest,
    ) -> Result<api::RemoveContainerResponse, Status> {
        let (namespace, container) = self.find(&request.namespace, &request.container)?;
        if container.phase == ContainerPhase::Running && !request.force {
            return Err(Error::precondition(format!(
                "unable to remove container {:?}: it is running; stop it first, or use force (corten rm -f)",
                container.config.name
            )))
            .wire();
        }
        let engine = self.engine.clone();
        to_the_end(async move {
            // A container of a pod leaves its pod behind; people's own takes
            // its sandbox along.
            if engine.sandbox(&namespace, container.sandbox.as_str())?.config.solo {
                engine.remove_sandbox(&namespace, container.sandbox.as_str()).await
            } else {
                engine.remove_container(&namespace, container.id.as_str()).await
            }
        })
        .await?;
        Ok(api::RemoveContainerResponse {})
    }

    pub(super) async fn list_containers(
        &self,
        request: api::ListContainersRequest,
    ) -> Result<api::ListContainersResponse, Status> {
        let namespace = namespace(&request.namespace)?;
        let filter = ContainerFilter {
            phase: (!request.all).then_some(ContainerPhase::Running),
            labels: request.labels,
            ..ContainerFilter::default()
        };
        let mut containers = self.engine.containers(&namespace, &filter);
        containers.sort_by_key(|container| std::cmp::Reverse(container.created_at_ns));
        let summary = |container: &ContainerView| {
            let sandbox = self.engine.sandbox(&namespace, container.sandbox.as_str()).ok();
            summary(container, sandbox.as_ref())
        };
        Ok(api::ListContainersResponse { containers: containers.iter().map(summary).collect() })
    }

    pub(super) async fn inspect_container(
        &self,
        request: api::InspectContainerRequest,
    ) -> Result<api::InspectContainerResponse, Status> {
        let (namespace, container) = self.find(&request.namespace, &request.container)?;
        let known = self.engine.inspect_container(&namespace, container.id.as_str()).wire()?;
        Ok(api::InspectContainerResponse { json: known.to_string() })
    }

    pub(super) async fn wait_container(
        &self,
        request: api::WaitContainerRequest,
    ) -> Result<api::WaitContainerResponse, Status> {
        let (namespace, container) = self.find(&request.namespace, &request.container)?;
        let ended = self.engine.wait_container(&namespace, container.id.as_str()).await.wire()?;
        Ok(exited(&ended))
    }

    /// The namespace, and the container by id, the beginning of one, or name.
    pub(super) fn find(
        &self,
        namespace: &str,
        container: &str,
    ) -> Result<(Namespace, ContainerView), Status> {
        let namespace = super::namespace(namespace)?;
        let container =
            self.engine.container(&namespace, id("container", container).wire()?).wire()?;
        Ok((namespace, container))
    }
}

/// Who has a name, and what to do about it.
fn taken(there: &ContainerView) -> Error {
    let (name, id, image) = (&there.config.name, there.id.short(), image(&there.config));
    let (state, advice) = match there.phase {
        ContainerPhase::Created => ("never started", format!("remove it (corten rm {name})")),
        ContainerPhase::Running => ("running", format!("remove it (corten rm -f {name})")),
        ContainerPhase::Exited => {
            ("ended", format!("start it again (corten start {name}), remove it (corten rm {name})"))
        }
    };
    Error::new(
        Kind::AlreadyExists,
        format!(
            "the name {name:?} is in use by container {id} ({image}, {state}): {advice}, or \
             choose another name"
        ),
    )
}

/// The image as it was asked for.
pub(super) fn image(config: &ContainerConfig) -> &str {
    match config.user_specified_image.as_str() {
        "" => &config.image,
        name => name,
    }
}

/// How a container ended.
pub(super) fn exited(view: &ContainerView) -> api::WaitContainerResponse {
    api::WaitContainerResponse {
        exit_code: view.exit_code,
        reason: view.reason.clone(),
        message: view.message.clone(),
        finished_at_ns: view.finished_at_ns,
    }
}

fn summary(container: &ContainerView, sandbox: Option<&SandboxView>) -> api::ContainerSummary {
    let config = &container.config;
    let pod = sandbox.filter(|sandbox| !sandbox.config.solo);
    api::ContainerSummary {
        id: container.id.to_string(),
        name: config.name.clone(),
        namespace: container.namespace.to_string(),
        image: image(config).to_owned(),
        image_id: container.image_id.to_string(),
        command: config.command.iter().chain(&config.args).cloned().collect(),
        state: state(container.phase).into(),
        created_at_ns: container.created_at_ns,
        started_at_ns: container.started_at_ns,
        finished_at_ns: container.finished_at_ns,
        exit_code: container.exit_code,
        reason: container.reason.clone(),
        addresses: sandbox
            .map(|sandbox| sandbox.ips.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        ports: sandbox.map(ports).unwrap_or_default(),
        labels: config.labels.clone(),
        pid: container.pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default(),
        sandbox_id: container.sandbox.to_string(),
        pod: pod
            .map(|pod| format!("{}/{}", pod.config.namespace, pod.config.name))
            .unwrap_or_default(),
    }
}

fn ports(sandbox: &SandboxView) -> Vec<api::PortMapping> {
    let protocol = |protocol| match protocol {
        Protocol::Tcp => api::Protocol::Tcp,
        Protocol::Udp => api::Protocol::Udp,
        Protocol::Sctp => api::Protocol::Sctp,
    };
    sandbox
        .config
        .port_mappings
        .iter()
        .map(|mapping| api::PortMapping {
            protocol: protocol(mapping.protocol).into(),
            container_port: mapping.container_port.into(),
            host_port: mapping.host_port.into(),
            host_ip: mapping.host_ip.clone(),
        })
        .collect()
}

fn state(phase: ContainerPhase) -> api::ContainerState {
    match phase {
        ContainerPhase::Created => api::ContainerState::Created,
        ContainerPhase::Running => api::ContainerState::Running,
        ContainerPhase::Exited => api::ContainerState::Exited,
    }
}
