//! The OCI runtime specification (1.2, with what 1.3 added) for Linux, as plain data.
//!
//! One canonical description of a container: our launcher lowers it to a plan,
//! and any other OCI runtime reads it as `config.json`. Field meanings are those
//! of the specification; the texts here only say units and what absence means.

mod linux;
mod process;
mod resources;
mod seccomp;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use linux::*;
pub use process::*;
pub use resources::*;
pub use seccomp::*;

/// The version that we write. runc 1.1 reads any 1.x; what is newer than 1.0.2
/// in a spec of ours is written only when it was asked for.
pub const VERSION: &str = "1.2.0";

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A container.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// Version of the specification.
    pub oci_version: String,
    /// What runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// Its root filesystem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// Host name; empty leaves the UTS namespace as it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// NIS domain name; empty leaves it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domainname: String,
    /// Mounts, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub mounts: Vec<Mount>,
    /// Programs to run along the way.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_is_default")]
    pub hooks: Hooks,
    /// Free text.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub annotations: BTreeMap<String, String>,
    /// What only Linux has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linux: Option<Linux>,
}

impl Spec {
    /// The spec as `config.json` for an OCI runtime.
    pub fn to_json(&self) -> Vec<u8> {
        // Every type here is made of strings, numbers and lists: it cannot fail.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// Reads a `config.json`.
    pub fn from_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

/// Other writers put `null` for an empty list.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// The root filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Root {
    /// Where it is on the host.
    pub path: String,
    /// Read-only inside.
    #[serde(skip_serializing_if = "is_default")]
    pub readonly: bool,
}

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount {
    /// Where, in the container.
    pub destination: String,
    /// Filesystem type; `bind` (or a `bind` option) for binds.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Host path of a bind, else what mountinfo shows.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Options as of fstab.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub options: Vec<String>,
    /// Idmap of the mount.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub uid_mappings: Vec<LinuxIdMapping>,
    /// Idmap of the mount.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub gid_mappings: Vec<LinuxIdMapping>,
}

impl Mount {
    /// Whether this is a bind mount, by type or by option.
    pub fn is_bind(&self) -> bool {
        self.kind == "bind" || self.options.iter().any(|o| o == "bind" || o == "rbind")
    }

    /// Whether an option is there.
    pub fn has_option(&self, option: &str) -> bool {
        self.options.iter().any(|o| o == option)
    }
}

/// The hooks, by the moment at which they run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    /// Deprecated; as createRuntime, before it.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub prestart: Vec<Hook>,
    /// In the runtime's namespaces, before the root switch.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub create_runtime: Vec<Hook>,
    /// In the container's namespaces, before the root switch, the program looked
    /// up on the host.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub create_container: Vec<Hook>,
    /// In the container, at Start, just before the command.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub start_container: Vec<Hook>,
    /// In the runtime's namespaces, after Start.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub poststart: Vec<Hook>,
    /// In the runtime's namespaces, after the container is gone.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub poststop: Vec<Hook>,
}

/// One hook.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// Absolute path of the program.
    pub path: String,
    /// argv, the first being the program's name; empty means just the path.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub args: Vec<String>,
    /// The whole environment.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// Seconds until it is killed; none for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runc_prints_can_be_read() {
        let text = br#"{
            "ociVersion": "1.0.2-dev",
            "process": {"terminal": true, "user": {"uid": 0, "gid": 0}, "args": ["sh"],
                "env": ["PATH=/bin", "TERM=xterm"], "cwd": "/",
                "capabilities": {"bounding": ["CAP_KILL"], "effective": [], "permitted": null},
                "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
                "noNewPrivileges": true},
            "root": {"path": "rootfs", "readonly": true},
            "hostname": "runc",
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                 "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}],
            "hooks": null,
            "linux": {"resources": {"devices": [{"allow": false, "access": "rwm"}]},
                "namespaces": [{"type": "pid"}, {"type": "network", "path": "/run/netns/x"}],
                "maskedPaths": ["/proc/acpi"], "readonlyPaths": ["/proc/bus"]}
        }"#;
        let spec = Spec::from_json(text).unwrap();
        let process = spec.process.as_ref().unwrap();
        assert_eq!(process.env[0].as_bytes(), b"PATH=/bin");
        assert_eq!(spec.linux.as_ref().unwrap().namespaces[1].path, "/run/netns/x");
        let again = Spec::from_json(&spec.to_json()).unwrap();
        assert_eq!(again, spec);
    }

    #[test]
    fn an_empty_spec_is_short() {
        let text = String::from_utf8(Spec::default().to_json()).unwrap();
        assert_eq!(text.split_whitespace().collect::<String>(), r#"{"ociVersion":""}"#);
    }
}
