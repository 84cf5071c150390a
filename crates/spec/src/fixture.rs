//! A request with its surroundings, for tests to change.

use crate::container::{
    CgroupLayout, ContainerInput, HostDevice, ImageSettings, MountFact, NamespacePaths, NodePolicy,
    SandboxFiles, container_spec,
};
use crate::request::{ContainerConfig, MountRequest, SandboxConfig};
use crate::user::ResolvedUser;
use crate::{Result, capabilities, oci};

pub(crate) struct Fixture {
    pub(crate) sandbox: SandboxConfig,
    pub(crate) container: ContainerConfig,
    pub(crate) image: ImageSettings,
    pub(crate) user: ResolvedUser,
    pub(crate) policy: NodePolicy,
    pub(crate) files: SandboxFiles,
    pub(crate) namespaces: NamespacePaths,
    pub(crate) rootfs: String,
    pub(crate) cgroup_path: String,
    pub(crate) mounts: Vec<MountFact>,
    pub(crate) devices: Vec<HostDevice>,
    pub(crate) seccomp_profile: Option<Vec<u8>>,
    pub(crate) pod_annotations: Vec<String>,
    pub(crate) container_annotations: Vec<String>,
}

impl Fixture {
    /// A plain container in a plain pod.
    pub(crate) fn new() -> Self {
        let path = |name: &str| Some(format!("/pod/{name}"));
        let mut fixture = Self {
            sandbox: SandboxConfig {
                name: "web-0".into(),
                uid: "uid".into(),
                namespace: "shop".into(),
                hostname: "web-0".into(),
                ..SandboxConfig::default()
            },
            container: ContainerConfig {
                name: "web".into(),
                image: "web:1".into(),
                command: vec!["sleep".into(), "inf".into()],
                ..ContainerConfig::default()
            },
            image: ImageSettings::default(),
            user: ResolvedUser {
                additional_gids: vec![0],
                home: "/root".into(),
                ..ResolvedUser::default()
            },
            policy: NodePolicy::new(capabilities::ALL, 1 << 20, CgroupLayout::V2),
            files: SandboxFiles {
                resolv_conf: path("resolv.conf"),
                hostname: path("hostname"),
                hosts: path("hosts"),
                shm: path("shm"),
            },
            namespaces: NamespacePaths {
                user: path("ns/user"),
                net: path("ns/net"),
                ipc: path("ns/ipc"),
                uts: path("ns/uts"),
                pid: path("ns/pid"),
            },
            rootfs: "/rootfs".into(),
            cgroup_path: "/kubepods/pod/web".into(),
            mounts: Vec::new(),
            devices: Vec::new(),
            seccomp_profile: None,
            pod_annotations: Vec::new(),
            container_annotations: Vec::new(),
        };
        fixture.own_pids();
        fixture
    }

    pub(crate) fn mount(&mut self, container_path: &str, source: &str) {
        self.container.mounts.push(MountRequest {
            container_path: container_path.into(),
            host_path: source.into(),
            ..MountRequest::default()
        });
        self.mounts.push(MountFact { source: source.into(), ..MountFact::default() });
    }

    pub(crate) fn try_spec(&self) -> Result<oci::Spec> {
        container_spec(&ContainerInput {
            sandbox_id: "sandbox",
            sandbox: &self.sandbox,
            container: &self.container,
            resources: &self.container.resources,
            image: &self.image,
            user: &self.user,
            policy: &self.policy,
            files: &self.files,
            namespaces: &self.namespaces,
            hostname: &self.sandbox.hostname,
            rootfs: &self.rootfs,
            cgroup_path: &self.cgroup_path,
            mounts: &self.mounts,
            devices: &self.devices,
            seccomp_profile: self.seccomp_profile.as_deref(),
            labels: None,
            pod_annotations: &self.pod_annotations,
            container_annotations: &self.container_annotations,
        })
    }

    /// With a PID namespace of its own.
    pub(crate) fn own_pids(&mut self) {
        self.container.security.namespaces.pid = crate::request::NamespaceMode::Container;
    }

    pub(crate) fn spec(&self) -> oci::Spec {
        self.try_spec().expect("a spec")
    }
}
