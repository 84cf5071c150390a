//! What is written down about sandboxes and containers.
//!
//! Each has a record in the volatile state directory, rewritten at every
//! transition *before* the work of the new state begins: the intent. The same
//! bytes go, without waiting, into the durable store, for what must be known
//! after a reboot: what there was, how it ended, which addresses it held.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use corten_base::limits::RECORD_BYTES_MAX;
use corten_base::{ContainerId, Digest, Namespace, SandboxId};
use corten_net::Attachment;
use corten_spec::request::{ContainerConfig, Resources, SandboxConfig};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::placement::Scope;
use crate::state::{ContainerState, SandboxState};
use crate::view::ProcessUser;

/// First bytes of every record.
const MAGIC: &[u8; 4] = b"CRTN";
/// Version of the records that this daemon writes.
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 8;

/// Everything known about a sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxRecord {
    /// Its id.
    pub id: SandboxId,
    /// Its namespace of names.
    pub namespace: Namespace,
    /// What was asked for.
    pub config: Arc<SandboxConfig>,
    /// Where it stands.
    pub state: SandboxState,
    /// Nanoseconds since 1970.
    pub created_at_ns: i64,
    /// The boot that it belongs to; nothing of it runs in another one.
    pub boot_id: String,
    /// The shim, once started.
    pub shim_pid: Option<i32>,
    /// cgroup that holds its containers.
    pub cgroup: String,
    /// We made `cgroup`, and remove it.
    pub owns_cgroup: bool,
    /// The unit of systemd that `cgroup` is, where systemd makes cgroups.
    #[serde(default)]
    pub scope: Option<Scope>,
    /// The network was asked to attach it, and must be asked to detach it.
    pub network_intended: bool,
    /// What the network answered.
    pub attachment: Option<Attachment>,
    /// The pinned network namespace, unless the host's.
    pub netns: Option<PathBuf>,
    /// The SELinux level that keeps it apart from other pods; empty where
    /// SELinux is off.
    #[serde(default)]
    pub selinux_level: String,
    /// Limits of the whole pod as they are now.
    #[serde(default)]
    pub resources: Resources,
    /// What the pod costs beside its containers, as it is now.
    #[serde(default)]
    pub overhead: Resources,
}

/// Everything known about a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Its id.
    pub id: ContainerId,
    /// Its sandbox.
    pub sandbox: SandboxId,
    /// Its namespace of names.
    pub namespace: Namespace,
    /// What was asked for.
    pub config: Arc<ContainerConfig>,
    /// Where it stands.
    pub state: ContainerState,
    /// Nanoseconds since 1970.
    pub created_at_ns: i64,
    /// Nanoseconds since 1970, or 0.
    pub started_at_ns: i64,
    /// Nanoseconds since 1970, or 0.
    pub finished_at_ns: i64,
    /// Exit code, once ended.
    pub exit_code: i32,
    /// One word for how it ended.
    pub reason: String,
    /// A sentence to the reason.
    pub message: String,
    /// Its image.
    pub image_id: Digest,
    /// `repository@digest`, or the image's id.
    pub image_ref: String,
    /// The image's layers, bottom first.
    pub layers: Vec<Digest>,
    /// Images that it has as volumes.
    #[serde(default)]
    pub volumes: Vec<ImageVolume>,
    /// Its cgroup.
    pub cgroup: String,
    /// Its log file; empty for none.
    pub log_path: String,
    /// Limits as they are now.
    pub resources: Resources,
    /// User of the first process.
    pub user: ProcessUser,
    /// The signal that Stop sends.
    pub stop_signal: i32,
    /// The first process, while it runs.
    pub pid: Option<i32>,
}

/// An image that a container has as a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageVolume {
    /// Which of the container's mounts.
    pub mount: usize,
    /// The image.
    pub image_id: Digest,
    /// Its layers, bottom first.
    pub layers: Vec<Digest>,
}

/// The bytes of a record: magic, kind, version, JSON.
pub fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(4096);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0, 0]);
    serde_json::to_writer(&mut bytes, record)
        .map_err(|error| Error::internal(format!("unable to encode a record: {error}")))?;
    Ok(bytes)
}

/// Reads a record back; `name` is for the error.
pub fn decode<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    let wrong = |why: String| Error::internal(format!("unable to read the record {name}: {why}"));
    if bytes.len() < HEADER_BYTES || &bytes[..4] != MAGIC {
        return Err(wrong("it is not a record of Corten".into()));
    }
    let version = u16::from_le_bytes([bytes[4], bytes[5]]);
    if version != VERSION {
        return Err(wrong(format!(
            "it has version {version}, this daemon reads {VERSION}; was a newer one here?"
        )));
    }
    serde_json::from_slice(&bytes[HEADER_BYTES..]).map_err(|error| wrong(error.to_string()))
}

/// Writes a record into the state directory, whole or not at all. (No fsync:
/// the state directory does not outlive the kernel.)
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("new");
    let problem = |error: std::io::Error| {
        Error::internal(format!("unable to write the record {}: {error}", path.display()))
    };
    std::fs::write(&temporary, bytes).map_err(problem)?;
    std::fs::rename(&temporary, path).map_err(problem)
}

/// Reads a record from the state directory.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let name = path.display().to_string();
    let length = std::fs::metadata(path)
        .map_err(|error| Error::internal(format!("unable to read the record {name}: {error}")))?
        .len();
    if length > RECORD_BYTES_MAX as u64 {
        return Err(Error::internal(format!("the record {name} is too long ({length} bytes)")));
    }
    let bytes = std::fs::read(path)
        .map_err(|error| Error::internal(format!("unable to read the record {name}: {error}")))?;
    decode(&name, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_versions_are_reported() {
        let mut bytes = encode(&"x").unwrap();
        assert_eq!(decode::<String>("r", &bytes).unwrap(), "x");
        bytes[4] = 9;
        let error = decode::<String>("r", &bytes).unwrap_err();
        assert!(error.message().contains("version 9"), "{error}");
        assert!(decode::<String>("r", b"CR").is_err());
    }

    #[test]
    fn a_torn_write_leaves_the_old_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        write(&path, &encode(&1u32).unwrap()).unwrap();
        std::fs::write(path.with_extension("new"), b"torn").unwrap();
        assert_eq!(read::<u32>(&path).unwrap(), 1);
    }
}
