//! What this node is like, looked at once.

use std::borrow::Cow;

use corten_kernel::cgroup::Cgroups;
use corten_spec::container::{CgroupLayout, NodePolicy};
use corten_spec::request::SandboxConfig;
use rustix::process::{Resource, getrlimit};

use crate::error::{Error, Result};
use crate::runtimes::RuntimeSettings;

/// Facts and defaults of the node.
pub struct Node {
    /// What every container is made by.
    pub policy: NodePolicy,
}

impl Node {
    /// Looks.
    pub fn probe(cgroups: &Cgroups) -> Self {
        let layout = if cgroups.is_unified() {
            CgroupLayout::V2
        } else {
            CgroupLayout::V1 { hierarchies: cgroups.v1_hierarchies() }
        };
        let nofile = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        let policy = NodePolicy::new(bounding_set(), nofile, layout);
        Self {
            policy: NodePolicy {
                apparmor: super::apparmor::is_on(),
                kernel: kernel_version(),
                host_devices: super::devices::all(),
                ..policy
            },
        }
    }

    /// What holds for the containers of a handler.
    pub fn policy_of(&self, handler: &RuntimeSettings) -> Cow<'_, NodePolicy> {
        if !handler.privileged_without_host_devices {
            return Cow::Borrowed(&self.policy);
        }
        Cow::Owned(NodePolicy { privileged_devices: false, ..self.policy.clone() })
    }

    /// The host name that a pod's containers see.
    pub fn hostname_of(&self, config: &SandboxConfig) -> String {
        if config.hostname.is_empty() {
            rustix::system::uname().nodename().to_string_lossy().into_owned()
        } else {
            config.hostname.clone()
        }
    }
}

/// The capabilities that we can give: our own bounding set.
fn bounding_set() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0)
}

fn kernel_version() -> (u32, u32) {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// What tells one boot of the machine from another.
pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::internal(format!("unable to read {path}: {error}")))?;
    Ok(text.trim().to_owned())
}
