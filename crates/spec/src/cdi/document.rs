//! One file of a vendor.

use corten_base::limits::CDI_FILE_BYTES_MAX;
use serde::Deserialize;

use super::{is_device, is_kind};
use crate::oci::null_is_default;
use crate::request::Map;

/// The versions of the interface whose words we know.
const VERSIONS: std::ops::RangeInclusive<(u32, u32)> = (0, 3)..=(1, 1);

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `.json`
    Json,
    /// `.yaml`, `.yml`
    Yaml,
}

impl Format {
    /// By the end of a file's name; none for what is no file of a vendor.
    pub fn of(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1 {
            "json" => Some(Self::Json),
            "yaml" | "yml" => Some(Self::Yaml),
            _ => None,
        }
    }
}

/// What a vendor says about a class of devices. A key that we do not know is
/// an error: an edit that is passed over can cost somebody his data.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Document {
    cdi_version: String,
    /// `vendor.com/class`
    pub kind: String,
    #[serde(default, rename = "annotations", deserialize_with = "null_is_default")]
    _annotations: Map,
    /// Its devices; at least one.
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) devices: Vec<Device>,
    /// Made once, whichever of the devices are asked for.
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) container_edits: Edits,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Device {
    pub name: String,
    #[serde(default, rename = "annotations", deserialize_with = "null_is_default")]
    _annotations: Map,
    #[serde(default, deserialize_with = "null_is_default")]
    pub container_edits: Edits,
}

/// What is changed in a container's spec.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Edits {
    #[serde(deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub device_nodes: Vec<DeviceNode>,
    #[serde(deserialize_with = "null_is_default")]
    pub net_devices: Vec<NetDevice>,
    #[serde(deserialize_with = "null_is_default")]
    pub mounts: Vec<MountEdit>,
    #[serde(deserialize_with = "null_is_default")]
    pub hooks: Vec<HookEdit>,
    #[serde(alias = "additionalGIDs", deserialize_with = "null_is_default")]
    pub additional_gids: Vec<u32>,
    pub intel_rdt: Option<serde_json::Value>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DeviceNode {
    pub path: String,
    #[serde(default)]
    pub host_path: String,
    #[serde(default, rename = "type")]
    pub kind: String,
    pub major: Option<i64>,
    pub minor: Option<i64>,
    pub file_mode: Option<u32>,
    #[serde(default)]
    pub permissions: String,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NetDevice {
    pub host_interface_name: String,
    #[serde(default)]
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct MountEdit {
    pub host_path: String,
    pub container_path: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub options: Vec<String>,
    #[serde(default, rename = "type")]
    pub kind: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct HookEdit {
    pub hook_name: HookName,
    pub path: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub args: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    pub timeout: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum HookName {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl Document {
    /// Reads a file, and checks what its types alone do not say.
    pub fn parse(format: Format, bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > CDI_FILE_BYTES_MAX {
            return Err(format!("it is longer than {CDI_FILE_BYTES_MAX} bytes"));
        }
        let document: Self = match format {
            Format::Json => serde_json::from_slice(bytes).map_err(|error| error.to_string())?,
            Format::Yaml => {
                // Other readers take 0660 for what people mean by it.
                let options = serde_saphyr::options! {
                    legacy_octal_numbers: true,
                    with_snippet: false,
                };
                serde_saphyr::from_slice_with_options(bytes, options)
                    .map_err(|error| error.to_string())?
            }
        };
        document.check()?;
        Ok(document)
    }

    fn check(&self) -> Result<(), String> {
        let mut numbers = self.cdi_version.trim_start_matches('v').split('.').map(str::parse);
        let version = match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
            _ => return Err(format!("its cdiVersion {:?} is no version", self.cdi_version)),
        };
        if !VERSIONS.contains(&version) {
            let ((a, b), (c, d)) = (VERSIONS.start(), VERSIONS.end());
            return Err(format!(
                "its cdiVersion {:?} is not known here: {a}.{b} to {c}.{d} are",
                self.cdi_version
            ));
        }
        if !is_kind(&self.kind) {
            return Err(format!("its kind {:?} is not of the form vendor.com/class", self.kind));
        }
        if self.devices.is_empty() {
            return Err("it has no devices".into());
        }
        for (index, device) in self.devices.iter().enumerate() {
            if !is_device(&device.name) {
                return Err(format!("{:?} is no name of a device", device.name));
            }
            if self.devices[..index].iter().any(|other| other.name == device.name) {
                return Err(format!("the device {:?} is there twice", device.name));
            }
            device.container_edits.check()?;
        }
        self.container_edits.check()
    }
}

impl Edits {
    fn check(&self) -> Result<(), String> {
        let absolute = |what: &str, path: &str| {
            if path.starts_with('/') && !path.contains('\0') {
                return Ok(());
            }
            Err(format!("{path:?} is no absolute path of a {what}"))
        };
        for text in self.env.iter().chain(self.hooks.iter().flat_map(|hook| &hook.env)) {
            if text.find('=').is_none_or(|at| at == 0) || text.contains('\0') {
                return Err(format!("{text:?} is not of the form NAME=value"));
            }
        }
        for node in &self.device_nodes {
            absolute("device node", &node.path)?;
            if !node.host_path.is_empty() {
                absolute("device node", &node.host_path)?;
            }
            if !["", "b", "c", "u", "p"].contains(&node.kind.as_str()) {
                return Err(format!("{:?} is no type of a device node", node.kind));
            }
            if !node.permissions.chars().all(|c| "rwm".contains(c)) {
                return Err(format!(
                    "the permissions {:?} are not of r, w and m",
                    node.permissions
                ));
            }
        }
        for mount in &self.mounts {
            absolute("mount", &mount.container_path)?;
            if mount.host_path.is_empty() {
                return Err(format!("the mount at {:?} has no hostPath", mount.container_path));
            }
        }
        for hook in &self.hooks {
            absolute("hook", &hook.path)?;
        }
        Ok(())
    }
}
