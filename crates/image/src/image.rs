//! An image as the rest of the house sees it.

use std::collections::BTreeMap;

use corten_base::{Digest, Reference};
use serde::Deserialize;

/// An image, as one namespace knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Digest of the configuration: the same id everywhere.
    pub id: Digest,
    /// Names with a tag.
    pub tags: Vec<Reference>,
    /// Names with the digest of the manifest or index that they were pulled by.
    pub digests: Vec<Reference>,
    /// diffIDs, bottom first.
    pub layers: Vec<Digest>,
    /// What containers of it run by default.
    pub config: ImageConfig,
    /// Bytes of the layers as the registry sends them, and of the configuration.
    pub size_bytes: u64,
    /// Whether the node wants it kept.
    pub pinned: bool,
    /// When it was built, RFC 3339; empty if it does not say.
    pub created: String,
    /// Digest of the platform's manifest.
    pub manifest: Digest,
}

/// Defaults of an image's containers, in the order and words of the image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageConfig {
    /// `NAME=value`
    pub env: Vec<String>,
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Arguments, or the program where there is no entrypoint.
    pub cmd: Vec<String>,
    /// Working directory; empty for `/`.
    pub working_dir: String,
    /// `user`, `uid`, `user:group`; empty for root.
    pub user: String,
    /// By name or number; empty for SIGTERM.
    pub stop_signal: String,
    /// Paths that want a volume.
    pub volumes: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `port/protocol`
    pub exposed_ports: Vec<String>,
    /// `linux`
    pub os: String,
    /// `amd64`, …
    pub architecture: String,
}

/// The configuration file of an image, OCI or Docker.
pub(crate) struct ConfigFile {
    pub config: ImageConfig,
    pub diff_ids: Vec<Digest>,
    pub created: String,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    config: Option<Settings>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Option<Vec<Digest>>,
}

// Go writes null for what is empty.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct Settings {
    #[serde(default)]
    env: Option<Vec<String>>,
    #[serde(default)]
    entrypoint: Option<Vec<String>>,
    #[serde(default)]
    cmd: Option<Vec<String>>,
    #[serde(default)]
    working_dir: Option<String>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    stop_signal: Option<String>,
    #[serde(default)]
    volumes: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    exposed_ports: Option<BTreeMap<String, serde::de::IgnoredAny>>,
}

impl ConfigFile {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let file: File = serde_json::from_slice(bytes)?;
        let settings = file.config.unwrap_or_default();
        let keys = |map: Option<BTreeMap<String, _>>| {
            map.unwrap_or_default().into_keys().collect::<Vec<String>>()
        };
        Ok(Self {
            config: ImageConfig {
                env: settings.env.unwrap_or_default(),
                entrypoint: settings.entrypoint.unwrap_or_default(),
                cmd: settings.cmd.unwrap_or_default(),
                working_dir: settings.working_dir.unwrap_or_default(),
                user: settings.user.unwrap_or_default(),
                stop_signal: settings.stop_signal.unwrap_or_default(),
                volumes: keys(settings.volumes),
                labels: settings.labels.unwrap_or_default(),
                exposed_ports: keys(settings.exposed_ports),
                os: file.os,
                architecture: file.architecture,
            },
            diff_ids: file.rootfs.diff_ids.unwrap_or_default(),
            created: file.created.unwrap_or_default(),
        })
    }
}
