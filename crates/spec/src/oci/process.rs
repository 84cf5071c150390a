//! The process section of a spec.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{is_default, null_is_default};

/// What runs in the container.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    /// A terminal instead of pipes.
    #[serde(skip_serializing_if = "is_default")]
    pub terminal: bool,
    /// Size of the terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<ConsoleSize>,
    /// Whom it runs as.
    pub user: User,
    /// argv.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub args: Vec<String>,
    /// The environment, `NAME=value`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub env: Vec<EnvText>,
    /// Working directory, absolute.
    pub cwd: String,
    /// Capability sets; none keeps those of the launcher (runc: none at all).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<LinuxCapabilities>,
    /// Resource limits.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub rlimits: Vec<Rlimit>,
    /// `no_new_privs`.
    #[serde(skip_serializing_if = "is_default")]
    pub no_new_privileges: bool,
    /// AppArmor profile, by name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub apparmor_profile: String,
    /// `oom_score_adj`; none leaves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// Scheduler; none leaves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// SELinux context.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub selinux_label: String,
    /// I/O priority; none leaves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<IoPriority>,
    /// CPUs for the moments before and after an exec's move into its cgroup.
    #[serde(rename = "execCPUAffinity", skip_serializing_if = "Option::is_none")]
    pub exec_cpu_affinity: Option<CpuAffinity>,
}

/// One `NAME=value` of an environment: any bytes but NUL.
///
/// JSON has no bytes: a value that is not UTF-8 is written to `config.json`
/// with replacement characters, and goes to our own plan as it is.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct EnvText(Vec<u8>);

impl EnvText {
    /// `name=value`.
    pub fn pair(name: &str, value: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(name.len() + 1 + value.len());
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(b'=');
        bytes.extend_from_slice(value);
        Self(bytes)
    }

    /// All of it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What stands before the first `=`.
    pub fn name(&self) -> &[u8] {
        self.0.split(|byte| *byte == b'=').next().unwrap_or(&self.0)
    }

    /// What stands after the first `=`, if there is one.
    pub fn value(&self) -> Option<&[u8]> {
        let at = self.0.iter().position(|byte| *byte == b'=')?;
        Some(&self.0[at + 1..])
    }
}

impl From<&str> for EnvText {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<String> for EnvText {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl fmt::Debug for EnvText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl Serialize for EnvText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(&self.0))
    }
}

impl<'de> Deserialize<'de> for EnvText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConsoleSize {
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
}

/// Whom a process runs as.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    /// User id, inside.
    pub uid: u32,
    /// Group id, inside.
    pub gid: u32,
    /// umask; none leaves 0022.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// Supplementary groups.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub additional_gids: Vec<u32>,
}

/// The capability sets, by names with `CAP_`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxCapabilities {
    /// The bounding set.
    #[serde(deserialize_with = "null_is_default")]
    pub bounding: Vec<String>,
    /// The effective set.
    #[serde(deserialize_with = "null_is_default")]
    pub effective: Vec<String>,
    /// The inheritable set.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub inheritable: Vec<String>,
    /// The permitted set.
    #[serde(deserialize_with = "null_is_default")]
    pub permitted: Vec<String>,
    /// The ambient set.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub ambient: Vec<String>,
}

/// A resource limit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_…`
    #[serde(rename = "type")]
    pub kind: String,
    /// Hard limit.
    pub hard: u64,
    /// Soft limit.
    pub soft: u64,
}

/// Scheduler settings, as `sched_setattr`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Scheduler {
    /// `SCHED_…`
    pub policy: String,
    /// -20 to 19.
    #[serde(skip_serializing_if = "is_default")]
    pub nice: i32,
    /// 1 to 99, for real-time policies.
    #[serde(skip_serializing_if = "is_default")]
    pub priority: i32,
    /// `SCHED_FLAG_…`
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub flags: Vec<String>,
    /// Nanoseconds, for SCHED_DEADLINE.
    #[serde(skip_serializing_if = "is_default")]
    pub runtime: u64,
    /// Nanoseconds, for SCHED_DEADLINE.
    #[serde(skip_serializing_if = "is_default")]
    pub deadline: u64,
    /// Nanoseconds, for SCHED_DEADLINE.
    #[serde(skip_serializing_if = "is_default")]
    pub period: u64,
}

/// I/O priority, as `ioprio_set`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IoPriority {
    /// `IOPRIO_CLASS_…`
    pub class: String,
    /// 0 to 7.
    pub priority: i32,
}

/// CPU lists around an exec.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuAffinity {
    /// Before it is in the cgroup.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub initial: String,
    /// After.
    #[serde(rename = "final", skip_serializing_if = "String::is_empty")]
    pub last: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_keeps_any_bytes_and_prints_text() {
        let env = EnvText::pair("KEY", b"a=\xff");
        assert_eq!(env.as_bytes(), b"KEY=a=\xff");
        assert_eq!(env.name(), b"KEY");
        assert_eq!(env.value(), Some(&b"a=\xff"[..]));
        assert_eq!(serde_json::to_string(&env).unwrap(), "\"KEY=a=\u{fffd}\"");
        assert_eq!(EnvText::from("BARE").value(), None);
    }
}
