//! The small documents of archives, and manifests made for them.

use std::collections::BTreeMap;

use corten_base::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::manifest::{Descriptor, OCI_MANIFEST};

pub(super) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// The name of the image, complete.
pub(super) const NAME_ANNOTATION: &str = "io.containerd.image.name";
/// Its tag, or its name; who writes it decides.
pub(super) const REF_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// One image of `manifest.json` in what `docker save` writes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerImage {
    pub config: String,
    // Go writes null for what is empty.
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub layers: Option<Vec<String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ManifestFile<'a> {
    schema_version: u32,
    media_type: &'a str,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// `index.json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IndexFile<'a> {
    pub schema_version: u32,
    pub media_type: &'a str,
    pub manifests: Vec<Descriptor>,
}

/// A manifest of layers that are not compressed.
pub(super) fn manifest(
    config: &[u8],
    layers: &[(Digest, u64)],
) -> Result<Vec<u8>, serde_json::Error> {
    let layer = |&(digest, size): &(Digest, u64)| descriptor(OCI_LAYER, digest, size);
    serde_json::to_vec(&ManifestFile {
        schema_version: 2,
        media_type: OCI_MANIFEST,
        config: descriptor(OCI_CONFIG, digest_of(config), config.len() as u64),
        layers: layers.iter().map(layer).collect(),
    })
}

pub(super) fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor { media_type: media_type.into(), digest, size, platform: None, annotations: None }
}

/// What a name in an index says.
pub(super) fn annotations(name: &str, tag: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (NAME_ANNOTATION.to_owned(), name.to_owned()),
        (REF_ANNOTATION.to_owned(), tag.to_owned()),
    ])
}

pub(super) fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}
