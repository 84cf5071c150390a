//! A client shaped like crictl: one short method for what a test wants to do.

use std::path::{Path, PathBuf};
use std::time::Duration;

use corten_api::cri::image_service_client::ImageServiceClient;
use corten_api::cri::runtime_service_client::RuntimeServiceClient;
use corten_api::cri::{self, NamespaceMode};
use tonic::Status;
use tonic::transport::Channel;

use crate::machine::Machine;
use crate::poll::until;

/// Speaks CRI with a daemon.
#[derive(Clone)]
pub struct Client {
    /// Everything of RuntimeService.
    pub runtime: RuntimeServiceClient<Channel>,
    /// Everything of ImageService.
    pub images: ImageServiceClient<Channel>,
}

/// A pod to be: the kubelet's defaults, and what a test changes.
#[derive(Clone)]
pub struct Pod {
    /// The configuration that is sent.
    pub config: cri::PodSandboxConfig,
    /// The runtime handler; empty for the default.
    pub handler: String,
}

impl Pod {
    /// A pod with its own PID namespace for each container, whose logs lie on
    /// the machine.
    pub fn new(machine: &Machine, name: &str) -> Self {
        Self::logging_to(&machine.path("pod-logs"), name)
    }

    /// Likewise, with its logs in a directory below this one.
    pub fn logging_to(logs: &Path, name: &str) -> Self {
        let options =
            cri::NamespaceOption { pid: NamespaceMode::Container.into(), ..Default::default() };
        let config = cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-{name}"),
                namespace: "test".into(),
                attempt: 0,
            }),
            hostname: name.into(),
            log_directory: logs.join(name).display().to_string(),
            linux: Some(cri::LinuxPodSandboxConfig {
                security_context: Some(cri::LinuxSandboxSecurityContext {
                    namespace_options: Some(options),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        Self { config, handler: String::new() }
    }

    /// A pod as kubelets make it: with RuntimeDefault seccomp.
    pub fn of_kubelet(machine: &Machine, name: &str) -> Self {
        let mut pod = Self::new(machine, name);
        let linux = pod.config.linux.get_or_insert_default();
        linux.security_context.get_or_insert_default().seccomp = runtime_default();
        pod
    }

    /// The namespace options, to be changed.
    pub fn namespaces(&mut self) -> &mut cri::NamespaceOption {
        self.config
            .linux
            .get_or_insert_default()
            .security_context
            .get_or_insert_default()
            .namespace_options
            .get_or_insert_default()
    }
}

/// A container to be.
pub struct Container {
    /// The configuration that is sent.
    pub config: cri::ContainerConfig,
}

impl Container {
    /// A container of this image with this command.
    pub fn new(name: &str, image: &str, command: &[&str]) -> Self {
        let config = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: name.into(), attempt: 0 }),
            image: Some(cri::ImageSpec { image: image.into(), ..Default::default() }),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            log_path: format!("{name}.log"),
            linux: Some(cri::LinuxContainerConfig {
                security_context: Some(cri::LinuxContainerSecurityContext {
                    namespace_options: Some(cri::NamespaceOption {
                        pid: NamespaceMode::Container.into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        Self { config }
    }

    /// A container that idles, as kubelets make it: with a limit of memory,
    /// shares of the processor, and RuntimeDefault seccomp.
    pub fn of_kubelet(image: &str) -> Self {
        let mut container = Self::new("main", image, &["sleep", "1000"]);
        container.security().seccomp = runtime_default();
        container.linux().resources = Some(cri::LinuxContainerResources {
            cpu_shares: 102,
            memory_limit_in_bytes: 128 << 20,
            oom_score_adj: 1000,
            ..Default::default()
        });
        container
    }

    /// A shell script.
    pub fn shell(name: &str, image: &str, script: &str) -> Self {
        Self::new(name, image, &["/bin/sh", "-c", script])
    }

    /// The Linux part, to be changed.
    pub fn linux(&mut self) -> &mut cri::LinuxContainerConfig {
        self.config.linux.get_or_insert_default()
    }

    /// The security context, to be changed.
    pub fn security(&mut self) -> &mut cri::LinuxContainerSecurityContext {
        self.linux().security_context.get_or_insert_default()
    }
}

/// The runtime's own seccomp profile.
pub fn runtime_default() -> Option<cri::SecurityProfile> {
    let profile_type = cri::security_profile::ProfileType::RuntimeDefault.into();
    Some(cri::SecurityProfile { profile_type, ..Default::default() })
}

impl Client {
    /// Connects.
    pub async fn connect(socket: &Path) -> Self {
        until("the daemon takes connections", async || Self::try_connect(socket).await).await
    }

    /// Connects if somebody answers.
    pub async fn try_connect(socket: &Path) -> Option<Self> {
        let channel = corten_api::connect(socket).await.ok()?;
        let limit = 16 << 20;
        let mut client = Self {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(limit),
            images: ImageServiceClient::new(channel).max_decoding_message_size(limit),
        };
        client.runtime.version(cri::VersionRequest::default()).await.ok()?;
        Some(client)
    }

    /// Pulls an image: its id.
    pub async fn pull(&mut self, image: &str) -> Result<String, Status> {
        let image = Some(cri::ImageSpec { image: image.into(), ..Default::default() });
        let request = cri::PullImageRequest { image, ..Default::default() };
        Ok(self.images.pull_image(request).await?.into_inner().image_ref)
    }

    /// RunPodSandbox.
    pub async fn run_pod(&mut self, pod: &Pod) -> Result<String, Status> {
        let request = cri::RunPodSandboxRequest {
            config: Some(pod.config.clone()),
            runtime_handler: pod.handler.clone(),
        };
        Ok(self.runtime.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id)
    }

    /// CreateContainer.
    pub async fn create(
        &mut self,
        pod_id: &str,
        pod: &Pod,
        container: &Container,
    ) -> Result<String, Status> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: pod_id.into(),
            config: Some(container.config.clone()),
            sandbox_config: Some(pod.config.clone()),
        };
        Ok(self.runtime.create_container(request).await?.into_inner().container_id)
    }

    /// StartContainer.
    pub async fn start(&mut self, id: &str) -> Result<(), Status> {
        let request = cri::StartContainerRequest { container_id: id.into() };
        self.runtime.start_container(request).await.map(drop)
    }

    /// CreateContainer and StartContainer.
    pub async fn run(
        &mut self,
        pod_id: &str,
        pod: &Pod,
        container: &Container,
    ) -> Result<String, Status> {
        let id = self.create(pod_id, pod, container).await?;
        self.start(&id).await?;
        Ok(id)
    }

    /// StopContainer.
    pub async fn stop(&mut self, id: &str, timeout: i64) -> Result<(), Status> {
        let request = cri::StopContainerRequest { container_id: id.into(), timeout };
        self.runtime.stop_container(request).await.map(drop)
    }

    /// RemoveContainer.
    pub async fn remove(&mut self, id: &str) -> Result<(), Status> {
        let request = cri::RemoveContainerRequest { container_id: id.into() };
        self.runtime.remove_container(request).await.map(drop)
    }

    /// StopPodSandbox.
    pub async fn stop_pod(&mut self, id: &str) -> Result<(), Status> {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.into() };
        self.runtime.stop_pod_sandbox(request).await.map(drop)
    }

    /// RemovePodSandbox.
    pub async fn remove_pod(&mut self, id: &str) -> Result<(), Status> {
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.into() };
        self.runtime.remove_pod_sandbox(request).await.map(drop)
    }

    /// ContainerStatus.
    pub async fn status(&mut self, id: &str) -> Result<cri::ContainerStatus, Status> {
        let request = cri::ContainerStatusRequest { container_id: id.into(), verbose: false };
        let response = self.runtime.container_status(request).await?.into_inner();
        Ok(response.status.expect("a status"))
    }

    /// PodSandboxStatus.
    pub async fn pod_status(&mut self, id: &str) -> Result<cri::PodSandboxStatus, Status> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: false };
        let response = self.runtime.pod_sandbox_status(request).await?.into_inner();
        Ok(response.status.expect("a status"))
    }

    /// The pod's primary address.
    pub async fn pod_ip(&mut self, id: &str) -> String {
        self.pod_status(id).await.expect("a pod").network.expect("a network").ip
    }

    /// ListContainers without a filter.
    pub async fn containers(&mut self) -> Vec<cri::Container> {
        let request = cri::ListContainersRequest::default();
        self.runtime.list_containers(request).await.expect("a list").into_inner().containers
    }

    /// ListPodSandbox without a filter.
    pub async fn pods(&mut self) -> Vec<cri::PodSandbox> {
        let request = cri::ListPodSandboxRequest::default();
        self.runtime.list_pod_sandbox(request).await.expect("a list").into_inner().items
    }

    /// ExecSync: exit code, stdout, stderr.
    pub async fn exec(
        &mut self,
        id: &str,
        command: &[&str],
        timeout: i64,
    ) -> Result<(i32, String, String), Status> {
        let request = cri::ExecSyncRequest {
            container_id: id.into(),
            cmd: command.iter().map(|word| (*word).to_owned()).collect(),
            timeout,
        };
        let response = self.runtime.exec_sync(request).await?.into_inner();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((response.exit_code, text(&response.stdout), text(&response.stderr)))
    }

    /// ExecSync of a shell script that must succeed: its stdout.
    pub async fn shell(&mut self, id: &str, script: &str) -> String {
        let (code, stdout, stderr) =
            self.exec(id, &["/bin/sh", "-c", script], 30).await.expect("an exec");
        assert_eq!(code, 0, "{script:?} ended with {code}: {stdout}{stderr}");
        stdout
    }

    /// UpdateContainerResources.
    pub async fn update(
        &mut self,
        id: &str,
        change: impl FnOnce(&mut cri::LinuxContainerResources),
    ) -> Result<(), Status> {
        let mut linux = cri::LinuxContainerResources::default();
        change(&mut linux);
        let request = cri::UpdateContainerResourcesRequest {
            container_id: id.into(),
            linux: Some(linux),
            ..Default::default()
        };
        self.runtime.update_container_resources(request).await.map(drop)
    }

    /// Waits until a container has ended.
    pub async fn ended(&mut self, id: &str) -> cri::ContainerStatus {
        until("the container ends", async || {
            let status = self.status(id).await.expect("a status");
            (status.state == cri::ContainerState::ContainerExited as i32).then_some(status)
        })
        .await
    }

    /// Stops and removes whatever there is.
    pub async fn remove_everything(&mut self) {
        for pod in self.pods().await {
            self.stop_pod(&pod.id).await.expect("a stop");
            self.remove_pod(&pod.id).await.expect("a removal");
        }
        let images = self.images.list_images(cri::ListImagesRequest::default()).await;
        for image in images.expect("a list").into_inner().images {
            let image = Some(cri::ImageSpec { image: image.id, ..Default::default() });
            self.images.remove_image(cri::RemoveImageRequest { image }).await.expect("a removal");
        }
    }
}

/// The lines of a container's log, without their stamps: stream, tag, text.
pub fn log_lines(path: &Path) -> Vec<(String, String, String)> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let part = |text: Option<&str>| text.unwrap_or_default().to_owned();
    text.lines()
        .map(|line| {
            let mut fields = line.splitn(4, ' ').skip(1);
            (part(fields.next()), part(fields.next()), part(fields.next()))
        })
        .collect()
}

/// Where a container's log is.
pub fn log_path(pod: &Pod, container: &Container) -> PathBuf {
    Path::new(&pod.config.log_directory).join(&container.config.log_path)
}

/// How long a call may hang before a test gives up on it.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(180);
