//! What can be computed in advance: the plans of the container and of the
//! exec, by the same compiler that Corten has, for the same request.

use std::sync::Arc;

use anyhow::{Context, Result};
use corten_kernel::cgroup::{self, Cgroups};
use corten_kernel::launch::FdIndex;
use corten_spec::container::{
    CgroupLayout, ContainerInput, ExecRequest, ImageSettings, NamespacePaths, NodePolicy,
    SandboxFiles, container_spec, exec_process,
};
use corten_spec::oci::{self, NamespaceType};
use corten_spec::request::{
    ContainerConfig, NamespaceMode, NamespaceOptions, Profile, Resources, SandboxConfig, Security,
};
use corten_spec::{
    ExecBase, LowerInput, bind_sources, cgroup_resources, files, filter, lower, lower_exec,
    resolve_user, v1_cgroups,
};

/// Host name of every pod: their plans are then the same.
const NAME: &str = "floor";
/// Files that containers of a pod see in /etc, by their names there.
pub const FILES: [&str; 3] = ["hostname", "hosts", "resolv.conf"];
/// Stands for the pod's /dev/shm, which is not a path but a mount.
const SHM: &str = "shm";

/// What is known before the first pod.
pub struct Plans {
    /// The container's plan.
    pub container: Vec<u8>,
    /// That of `true` in it.
    pub exec: Vec<u8>,
    /// Limits of the container.
    pub resources: cgroup::Resources,
    /// What lies in [`FILES`].
    pub texts: [String; 3],
    /// What the binds of the container's plan are, in order.
    pub binds: Vec<Bind>,
}

/// Source of a bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bind {
    /// One of [`FILES`].
    File(usize),
    /// The pod's /dev/shm.
    Shm,
}

impl Plans {
    /// Compiles them for a container's spec.
    pub fn compile(cgroups: &Cgroups, spec: &oci::Spec) -> Result<Self> {
        let sources = bind_sources(spec, &[]);
        let binds: Vec<Bind> = sources
            .iter()
            .map(|source| match FILES.iter().position(|name| *name == source.path) {
                Some(index) => Ok(Bind::File(index)),
                None if source.path == SHM => Ok(Bind::Shm),
                None => anyhow::bail!("nothing is known of the bind of {:?}", source.path),
            })
            .collect::<Result<_>>()?;
        let first = binds.len() as u16 + 1;
        let places: Vec<FdIndex> = (1..first).map(FdIndex).collect();
        let namespaces = [NamespaceType::Network, NamespaceType::Ipc, NamespaceType::Uts]
            .into_iter()
            .zip(first..);
        let namespaces: Vec<_> = namespaces.map(|(kind, at)| (kind, FdIndex(at))).collect();
        let layout = layout(cgroups);
        let end = first + namespaces.len() as u16;
        let v1_cgroups = v1_cgroups(spec, &layout, end);
        let seccomp = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
        let filter = seccomp.map(filter).transpose()?.map(Arc::new);
        let container = lower(
            spec,
            &LowerInput {
                id: NAME,
                bundle: "/",
                fd_count: end + v1_cgroups.len() as u16,
                root: FdIndex(0),
                binds: &places,
                namespaces: &namespaces,
                pid_of: "",
                own_mounts: &[],
                v1_cgroups: &v1_cgroups,
                host_mounts: None,
            },
            filter.as_deref(),
        )?;
        let request = ExecRequest { args: vec!["true".into()], ..ExecRequest::default() };
        let base = ExecBase::new(spec, filter);
        let exec = lower_exec(&base, &exec_process(base.process(), &request)?, false)?;
        let resources = cgroup_resources(&spec.linux.clone().unwrap_or_default());
        let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let texts = [files::hostname(NAME)?, files::hosts(NAME, &[])?, resolv_conf];
        Ok(Self { container, exec, resources, texts, binds })
    }
}

/// The container's spec: what the daemon makes of the bench's request, but
/// that the container sets its pod's host name and sysctls itself, on its way
/// through these namespaces. `passwd` and `group` are the image's.
pub fn spec(cgroups: &Cgroups, passwd: &[u8], group: &[u8]) -> Result<oci::Spec> {
    let namespaces =
        NamespaceOptions { pid: NamespaceMode::Container, ..NamespaceOptions::default() };
    let sandbox = SandboxConfig {
        name: NAME.into(),
        uid: NAME.into(),
        namespace: NAME.into(),
        hostname: NAME.into(),
        namespaces: namespaces.clone(),
        seccomp: Profile::RuntimeDefault,
        ..SandboxConfig::default()
    };
    let container = ContainerConfig {
        name: "main".into(),
        image: "busybox".into(),
        command: vec!["sleep".into(), "1000000".into()],
        resources: Resources {
            cpu_shares: Some(super::pod::CPU_SHARES),
            memory_limit_bytes: Some(super::pod::MEMORY_BYTES),
            oom_score_adj: Some(super::pod::OOM_SCORE_ADJ),
            ..Resources::default()
        },
        security: Security { namespaces, seccomp: Profile::RuntimeDefault, ..Security::default() },
        ..ContainerConfig::default()
    };
    let [hostname, hosts, resolv_conf] = FILES.map(|name| Some(name.to_owned()));
    let joined = || Some("held".to_owned());
    let mut spec = container_spec(&ContainerInput {
        sandbox_id: NAME,
        sandbox: &sandbox,
        container: &container,
        resources: &container.resources,
        image: &ImageSettings::default(),
        user: &resolve_user(&Default::default(), "", passwd, group)?,
        policy: &policy(cgroups),
        files: &SandboxFiles { resolv_conf, hostname, hosts, shm: Some(SHM.into()) },
        namespaces: &NamespacePaths {
            net: joined(),
            ipc: joined(),
            uts: joined(),
            ..NamespacePaths::default()
        },
        hostname: NAME,
        rootfs: "rootfs",
        cgroup_path: "/floor",
        mounts: &[],
        devices: &[],
        seccomp_profile: None,
        labels: None,
        pod_annotations: &[],
        container_annotations: &[],
    })
    .context("unable to make the container's spec")?;
    spec.hostname = NAME.into();
    Ok(spec)
}

fn layout(cgroups: &Cgroups) -> CgroupLayout {
    if cgroups.is_unified() {
        return CgroupLayout::V2;
    }
    CgroupLayout::V1 { hierarchies: cgroups.v1_hierarchies() }
}

/// As the daemon finds this machine.
fn policy(cgroups: &Cgroups) -> NodePolicy {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bounding = bounding.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    let nofile = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    let kernel = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let nofile = nofile.maximum.unwrap_or(u64::MAX);
    NodePolicy { kernel, ..NodePolicy::new(bounding.unwrap_or(0), nofile, layout(cgroups)) }
}
