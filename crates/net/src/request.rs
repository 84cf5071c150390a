//! What is asked of a network, and what it answers.

use std::path::PathBuf;

use corten_base::SandboxId;
use corten_spec::request::{Dns, Map, PortMapping};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::IpNet;

/// A pod that is to be attached or detached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRequest {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// Path of the pod's network namespace. It may be gone when detaching.
    pub netns: PathBuf,
    /// Pod name.
    pub pod_name: String,
    /// Kubernetes namespace of the pod.
    pub pod_namespace: String,
    /// Pod uid.
    pub pod_uid: String,
    /// Host ports; those with host port 0 are left out.
    pub ports: Vec<PortMapping>,
    /// Annotations of the pod (bandwidth limits are among them).
    pub annotations: Map,
    /// Other names of the pod, for plugins that serve names.
    pub aliases: Vec<String>,
    /// DNS of the pod, for plugins that want it.
    pub dns: Option<Dns>,
}

/// An attached network: kept by the caller, and all that detaching needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// Links, those in the pod and those on the host.
    pub interfaces: Vec<Interface>,
    /// Addresses of the pod, the primary one first.
    pub ips: Vec<IpNet>,
    /// DNS that the network wishes for.
    pub dns: Option<Dns>,
    /// What the provider needs to know again.
    pub provider: Provider,
}

/// A network link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Hardware address, with colons; empty where there is none.
    pub mac: String,
    /// In the pod, and not on the host.
    pub in_pod: bool,
}

/// Who made an attachment, with that one's own record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Provider {
    /// The built-in bridge.
    Bridge(BridgeRecord),
    /// CNI plugins.
    Cni(CniRecord),
}

/// What the bridge keeps about a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeRecord {
    /// Name of the bridge.
    pub bridge: String,
    /// Host ports that lead to the pod.
    pub ports: Vec<PortMapping>,
}

/// What the CNI client keeps about a pod: enough to run DEL even if the
/// configuration has changed since.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CniRecord {
    /// The network configuration list, as it was.
    pub configuration: Value,
    /// What the plugins were told of the pod.
    pub runtime: Value,
    /// The result of ADD; none when ADD did not end.
    pub result: Option<Value>,
}
