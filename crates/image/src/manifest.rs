//! Manifests and indexes, OCI and Docker.

use std::collections::BTreeMap;

use corten_base::Digest;
use corten_base::limits::{IMAGE_LAYERS_MAX, INDEX_MANIFESTS_MAX};
use serde::{Deserialize, Serialize};

use crate::config::Platform;
use crate::error::PullError;

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// What we ask registries for.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1";

/// A blob by digest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<PlatformEntry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PlatformEntry {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// What a reference leads to.
#[derive(Debug)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Vec<Descriptor>),
}

/// An image of one platform.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    #[serde(default, rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Reads what the registry sent; `media_type` is its Content-Type.
    pub(crate) fn parse(bytes: &[u8], media_type: &str) -> Result<Self, PullError> {
        let raw: Raw = serde_json::from_slice(bytes)
            .map_err(|error| PullError::invalid(format!("the manifest is malformed: {error}")))?;
        if raw.schema_version == 1 || raw.fs_layers.is_some() {
            return Err(PullError::invalid(
                "the image has a manifest of schema 1, which was given up by registries in 2020: \
                 push it again with a current tool",
            ));
        }
        // What is an index to one reader and a manifest to another has been an attack.
        if raw.manifests.is_some() && (raw.config.is_some() || raw.layers.is_some()) {
            return Err(PullError::invalid(
                "the manifest is an index and an image at the same time",
            ));
        }
        let declared = if raw.media_type.is_empty() { media_type } else { &raw.media_type };
        match (raw.manifests, raw.config, raw.layers) {
            (Some(manifests), ..) => {
                if declared == OCI_MANIFEST || declared == DOCKER_MANIFEST {
                    return Err(PullError::invalid(
                        "the manifest is an index, but says that it is an image",
                    ));
                }
                if manifests.len() > INDEX_MANIFESTS_MAX {
                    return Err(PullError::invalid(format!(
                        "the index has {} manifests, more than {INDEX_MANIFESTS_MAX}",
                        manifests.len()
                    )));
                }
                Ok(Self::Index(manifests))
            }
            (None, Some(config), layers) => {
                if declared == OCI_INDEX || declared == DOCKER_LIST {
                    return Err(PullError::invalid(
                        "the manifest is an image, but says that it is an index",
                    ));
                }
                let manifest = Manifest { config, layers: layers.unwrap_or_default() };
                manifest.check()?;
                Ok(Self::Manifest(manifest))
            }
            (None, None, _) => Err(PullError::invalid(format!(
                "the registry's answer (Content-Type {media_type:?}) is neither an image nor an index"
            ))),
        }
    }
}

impl Manifest {
    fn check(&self) -> Result<(), PullError> {
        if self.layers.len() > IMAGE_LAYERS_MAX {
            return Err(PullError::invalid(format!(
                "the image has {} layers, more than {IMAGE_LAYERS_MAX}",
                self.layers.len()
            )));
        }
        for layer in &self.layers {
            let kind = layer.media_type.as_str();
            let refuse = |why: &str| {
                Err(PullError::invalid(format!("layer {} ({kind}) {why}", layer.digest)))
            };
            if kind.contains("encrypted") {
                return refuse("is encrypted; encrypted images are not supported");
            }
            if kind.contains("foreign") || kind.contains("nondistributable") {
                return refuse("is not distributable: the registry may not hold it");
            }
            let is_layer = kind.is_empty()
                || kind.starts_with("application/vnd.oci.image.layer.v1.tar")
                || kind.starts_with("application/vnd.docker.image.rootfs.diff.tar");
            if !is_layer {
                return refuse("is no file system layer: this is an artifact, not an image");
            }
        }
        Ok(())
    }
}

/// The manifest of an index that runs best on `platform`; the first among equals.
pub(crate) fn choose<'a>(
    manifests: &'a [Descriptor],
    platform: &Platform,
) -> Result<&'a Descriptor, PullError> {
    let rank = |entry: &Descriptor| match &entry.platform {
        Some(p) => platform.rank(&p.os, &p.architecture, &p.variant),
        None => Some(1),
    };
    let mut best: Option<(u32, &Descriptor)> = None;
    for entry in manifests {
        if let Some(rank) = rank(entry)
            && best.is_none_or(|(so_far, _)| rank > so_far)
        {
            best = Some((rank, entry));
        }
    }
    best.map(|(_, entry)| entry).ok_or_else(|| {
        let there: Vec<String> = manifests
            .iter()
            .filter_map(|entry| entry.platform.as_ref())
            // Attestations are in indexes too.
            .filter(|p| p.os != "unknown")
            .take(20)
            .map(|p| {
                let mut name = format!("{}/{}", p.os, p.architecture);
                if !p.variant.is_empty() {
                    name = format!("{name}/{}", p.variant);
                }
                name.chars().filter(|c| !c.is_control()).take(60).collect()
            })
            .collect();
        PullError::invalid(format!(
            "the image is not made for {platform}; its platforms are: {}",
            there.join(", ")
        ))
    })
}
