//! What is asked for: a sandbox or a container, in our own plain types.
//!
//! `corten-cri` makes these from CRI's protobuf, `corten.v1` from what people
//! typed. Nothing here knows where it came from. They are also what is kept in
//! the records, so every type can be serialised.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Key and value pairs in a stable order.
pub type Map = BTreeMap<String, String>;

/// Whose namespace a process lives in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// Shared by the containers of the pod.
    #[default]
    Pod,
    /// The container's own.
    Container,
    /// The host's.
    Node,
    /// That of another container of the pod (its full id).
    Target(String),
}

/// The namespaces of a pod or container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NamespaceOptions {
    /// Pod or Node.
    pub network: NamespaceMode,
    /// Pod, Container, Node or Target.
    pub pid: NamespaceMode,
    /// Pod or Node.
    pub ipc: NamespaceMode,
    /// The pod's user namespace; none means the host's.
    pub user: Option<UserNamespace>,
}

/// Mappings of a pod's user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNamespace {
    /// Of user ids.
    pub uids: Vec<IdMapping>,
    /// Of group ids.
    pub gids: Vec<IdMapping>,
}

/// A run of ids mapped one to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id inside.
    pub container_id: u32,
    /// First id on the host.
    pub host_id: u32,
    /// How many.
    pub length: u32,
}

/// A port of the pod made reachable on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// The transport.
    pub protocol: Protocol,
    /// In the pod.
    pub container_port: u16,
    /// On the host; 0 for none.
    pub host_port: u16,
    /// Host address to listen on; empty for all.
    pub host_ip: String,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP
    #[default]
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

/// What goes into the pod's resolv.conf.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Dns {
    /// `nameserver` lines.
    pub servers: Vec<String>,
    /// The `search` line.
    pub searches: Vec<String>,
    /// The `options` line.
    pub options: Vec<String>,
}

/// A seccomp or AppArmor profile.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Profile {
    /// None.
    #[default]
    Unconfined,
    /// The runtime's own.
    RuntimeDefault,
    /// By path (seccomp) or by name (AppArmor).
    Localhost(String),
}

/// SELinux context, as CRI gives it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SelinuxOptions {
    /// user
    pub user: String,
    /// role
    pub role: String,
    /// type
    pub kind: String,
    /// level
    pub level: String,
}

/// How supplemental groups are made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum GroupsPolicy {
    /// Those asked for, and those of the image's /etc/group.
    #[default]
    Merge,
    /// Only those asked for.
    Strict,
}

/// The user of a process, as asked for; resolved against the image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunAs {
    /// Numeric user.
    pub uid: Option<u32>,
    /// User name, looked up in the image's /etc/passwd.
    pub username: String,
    /// Numeric group; only together with a user.
    pub gid: Option<u32>,
    /// More groups.
    pub supplemental_groups: Vec<u32>,
    /// How these join with the image's.
    pub groups_policy: GroupsPolicy,
}

/// Limits of a container or pod, in the units of the OCI runtime spec.
/// `None` leaves a thing as it is (or at the kernel's default).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Microseconds in each period; negative for no limit.
    pub cpu_quota: Option<i64>,
    /// v1 shares (2 to 262144); converted to `cpu.weight` on v2.
    pub cpu_shares: Option<u64>,
    /// CPU list, `0-3,7`.
    pub cpuset_cpus: String,
    /// Memory node list.
    pub cpuset_mems: String,
    /// Bytes; negative for no limit.
    pub memory_limit_bytes: Option<i64>,
    /// Bytes of memory and swap together; negative for no limit.
    pub memory_swap_limit_bytes: Option<i64>,
    /// Bytes.
    pub memory_reservation_bytes: Option<i64>,
    /// Processes and threads; negative for no limit.
    pub pids_limit: Option<i64>,
    /// Page size (`2MB`) to bytes.
    pub hugepage_limits: Vec<(String, u64)>,
    /// Raw cgroup v2 keys.
    pub unified: Map,
    /// -1000 to 1000.
    pub oom_score_adj: Option<i32>,
}

/// A sandbox that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// Pod name.
    pub name: String,
    /// Pod uid.
    pub uid: String,
    /// Kubernetes namespace of the pod.
    pub namespace: String,
    /// How often this pod was made before.
    pub attempt: u32,
    /// Host name; empty with the host's network.
    pub hostname: String,
    /// Where logs of the pod's containers go.
    pub log_directory: String,
    /// resolv.conf; none copies the host's.
    pub dns: Option<Dns>,
    /// Host ports.
    pub port_mappings: Vec<PortMapping>,
    /// Labels, returned as given.
    pub labels: Map,
    /// Annotations, returned as given.
    pub annotations: Map,
    /// cgroupfs-style parent; empty for Corten's own.
    pub cgroup_parent: String,
    /// Sysctls with dots.
    pub sysctls: Map,
    /// Namespaces.
    pub namespaces: NamespaceOptions,
    /// SELinux.
    pub selinux: Option<SelinuxOptions>,
    /// User of the sandbox's own init.
    pub run_as: RunAs,
    /// Seccomp of the sandbox's own init.
    pub seccomp: Profile,
    /// May hold privileged containers.
    pub privileged: bool,
    /// Limits of the whole pod (informative; the kubelet sets the pod cgroup).
    pub resources: Resources,
    /// Overhead (informative).
    pub overhead: Resources,
    /// Runtime handler; empty for the default.
    pub runtime_handler: String,
    /// No network but `lo` (`corten run --network none`).
    pub network_isolated: bool,
    /// The sandbox serves one container of people's (`corten run`), and is
    /// removed with it.
    pub solo: bool,
    /// Remove a solo sandbox when its container has ended (`corten run --rm`).
    pub auto_remove: bool,
}

/// How a mount propagates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum MountPropagation {
    /// rprivate
    #[default]
    Private,
    /// rslave
    HostToContainer,
    /// rshared
    Bidirectional,
}

/// A mount that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MountRequest {
    /// In the container.
    pub container_path: String,
    /// On the host; empty for image mounts.
    pub host_path: String,
    /// An image, mounted read-only.
    pub image: Option<String>,
    /// Path in that image.
    pub image_sub_path: String,
    /// Read-only.
    pub readonly: bool,
    /// Also everything below.
    pub recursive_readonly: bool,
    /// SELinux relabelling.
    pub selinux_relabel: bool,
    /// Propagation.
    pub propagation: MountPropagation,
    /// Idmap of the mount.
    pub uid_mappings: Vec<IdMapping>,
    /// Idmap of the mount.
    pub gid_mappings: Vec<IdMapping>,
    /// `noexec`, `nodev`, `nosuid`.
    pub options: Vec<String>,
    /// Make the host path as a directory when it is not there (docker's `-v`).
    pub create_host_path: bool,
}

/// A device that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DeviceRequest {
    /// In the container.
    pub container_path: String,
    /// On the host.
    pub host_path: String,
    /// Of `r`, `w`, `m`.
    pub permissions: String,
}

/// A container that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// The archive of a checkpoint to go on from, instead of the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_from: Option<String>,
    /// Container name.
    pub name: String,
    /// How often this container was made before.
    pub attempt: u32,
    /// The image as asked for (id, tag or digest), already on the node.
    pub image: String,
    /// The image as the user wrote it.
    pub user_specified_image: String,
    /// Replaces the image's entrypoint.
    pub command: Vec<String>,
    /// Replaces the image's cmd.
    pub args: Vec<String>,
    /// Replaces the image's working directory.
    pub working_dir: String,
    /// Environment; values need not be UTF-8.
    pub envs: Vec<(String, Vec<u8>)>,
    /// Mounts.
    pub mounts: Vec<MountRequest>,
    /// Devices.
    pub devices: Vec<DeviceRequest>,
    /// CDI devices by full name.
    pub cdi_devices: Vec<String>,
    /// Labels, returned as given.
    pub labels: Map,
    /// Annotations, returned as given.
    pub annotations: Map,
    /// Below the sandbox's log directory; empty for no log.
    pub log_path: String,
    /// Keep stdin.
    pub stdin: bool,
    /// Close stdin after the first attach.
    pub stdin_once: bool,
    /// Terminal.
    pub tty: bool,
    /// Stop signal by number; 0 for the image's.
    pub stop_signal: i32,
    /// Limits.
    pub resources: Resources,
    /// Security.
    pub security: Security,
}

/// The security settings of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Security {
    /// Capabilities to add, with or without `CAP_`; `ALL` for all.
    pub add_capabilities: Vec<String>,
    /// Capabilities to drop; `ALL` for all.
    pub drop_capabilities: Vec<String>,
    /// Capabilities to add to the ambient set too.
    pub add_ambient_capabilities: Vec<String>,
    /// Everything allowed.
    pub privileged: bool,
    /// Namespaces.
    pub namespaces: NamespaceOptions,
    /// SELinux.
    pub selinux: Option<SelinuxOptions>,
    /// User.
    pub run_as: RunAs,
    /// Read-only root filesystem.
    pub readonly_rootfs: bool,
    /// Seccomp.
    pub seccomp: Profile,
    /// AppArmor; none where nothing was said.
    pub apparmor: Option<Profile>,
    /// Paths to hide; none takes the default ones.
    pub masked_paths: Option<Vec<String>>,
    /// Paths to make read-only; none takes the default ones.
    pub readonly_paths: Option<Vec<String>>,
    /// `no_new_privs`.
    pub no_new_privileges: bool,
}
