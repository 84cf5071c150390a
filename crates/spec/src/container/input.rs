//! What a container spec is made of, besides the request itself.

use serde::{Deserialize, Serialize};

use super::NodePolicy;
use crate::request::{ContainerConfig, Resources, SandboxConfig};
use crate::user::ResolvedUser;

/// What of an image's configuration a container needs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageSettings {
    /// `NAME=value`
    pub env: Vec<String>,
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Arguments, or the program where there is no entrypoint.
    pub cmd: Vec<String>,
    /// Working directory.
    pub working_dir: String,
    /// `user`, `uid`, `user:group`; see `user::resolve_user`.
    pub user: String,
    /// By name or number; see `signal::stop_signal`.
    pub stop_signal: String,
    /// Paths that the image wants as volumes.
    pub volumes: Vec<String>,
}

/// What was found at a mount's source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MountFact {
    /// The path to bind: the host path with its links resolved, or where the
    /// image of an image mount is.
    pub source: String,
    /// The mount that it lies on is shared (`shared:` in mountinfo).
    pub shared: bool,
    /// The mount that it lies on is a slave (`master:` in mountinfo).
    pub slave: bool,
}

/// A device node of the host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostDevice {
    /// Where it is on the host.
    pub host_path: String,
    /// Where it shall be in the container.
    pub path: String,
    /// A block device; else a character device.
    pub block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner, as seen on the host.
    pub uid: u32,
    /// Group, as seen on the host.
    pub gid: u32,
    /// Of `r`, `w`, `m`, as asked for.
    pub access: String,
}

/// Files of the pod, as paths on the host; none where the container gets none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SandboxFiles {
    /// At /etc/resolv.conf.
    pub resolv_conf: Option<String>,
    /// At /etc/hostname.
    pub hostname: Option<String>,
    /// At /etc/hosts.
    pub hosts: Option<String>,
    /// At /dev/shm, where the pod has its own IPC namespace.
    pub shm: Option<String>,
}

/// Paths of the namespaces that a container joins; none where it does not.
/// For our own launcher they are only names: it is handed descriptors.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamespacePaths {
    /// User.
    pub user: Option<String>,
    /// Network.
    pub net: Option<String>,
    /// IPC.
    pub ipc: Option<String>,
    /// UTS.
    pub uts: Option<String>,
    /// PID, where it is shared by the pod or that of a target container.
    pub pid: Option<String>,
}

/// SELinux labels, chosen at RunPodSandbox.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labels {
    /// Of the process.
    pub process: String,
    /// Of its mounts.
    pub mount: String,
}

/// All that a container's spec is made of.
#[derive(Debug, Clone)]
pub struct ContainerInput<'a> {
    /// Full id of the pod.
    pub sandbox_id: &'a str,
    /// The pod.
    pub sandbox: &'a SandboxConfig,
    /// The container.
    pub container: &'a ContainerConfig,
    /// Its limits: those that were asked for, or of the last update since.
    pub resources: &'a Resources,
    /// Its image.
    pub image: &'a ImageSettings,
    /// Who runs, resolved against the image's files.
    pub user: &'a ResolvedUser,
    /// What the node says.
    pub policy: &'a NodePolicy,
    /// Files of the pod.
    pub files: &'a SandboxFiles,
    /// Namespaces of the pod.
    pub namespaces: &'a NamespacePaths,
    /// The host name that the container sees (also with the host's network).
    pub hostname: &'a str,
    /// Root filesystem.
    pub rootfs: &'a str,
    /// Path below the cgroup root.
    pub cgroup_path: &'a str,
    /// One for each of the container's mounts, in the same order.
    pub mounts: &'a [MountFact],
    /// What the container's device requests came to (a directory to several).
    pub devices: &'a [HostDevice],
    /// The text of the Localhost seccomp profile, if there is one.
    pub seccomp_profile: Option<&'a [u8]>,
    /// SELinux labels, where SELinux is on.
    pub labels: Option<Labels>,
    /// Annotations of the pod that the handler lets through; see [`allowed`].
    pub pod_annotations: &'a [String],
    /// Annotations of the container that the handler lets through.
    pub container_annotations: &'a [String],
}
