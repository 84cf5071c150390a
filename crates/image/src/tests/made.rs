//! An image that a server of the test hands out, and what must be left of a failed pull.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use corten_base::{Digest, Namespace};
use corten_store::Store;
use serde_json::json;

use super::server::{Answer, Asked};
use crate::testing::{digest_of, tar_of};
use crate::{Images, ImagesConfig};

/// Images that try again at once.
pub(super) fn images(dir: &Path) -> Images {
    with_patience(dir, ImagesConfig::default().stall_timeout)
}

/// Likewise, that give a registry so long to go on: a short time is one that a
/// busy machine takes for itself now and then.
pub(super) fn with_patience(dir: &Path, stall_timeout: Duration) -> Images {
    let store = Arc::new(Store::open(&dir.join("store")).unwrap());
    let config = ImagesConfig {
        hosts_dirs: vec![dir.join("hosts")],
        stall_timeout,
        retry_pause: Duration::from_millis(1),
        ..ImagesConfig::default()
    };
    Images::open(store, config).unwrap()
}

pub(super) fn namespace() -> Namespace {
    Namespace::kubernetes()
}

/// An image of one plain layer.
#[derive(Clone)]
pub(super) struct Made {
    pub layer: Vec<u8>,
    pub config: String,
    pub manifest: String,
}

pub(super) fn made() -> Made {
    let content: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    of_layer(tar_of(&[("data", 0o644, content.as_slice())]))
}

pub(super) fn of_layer(layer: Vec<u8>) -> Made {
    let config = json!({ "os": "linux", "architecture": "amd64",
        "rootfs": { "type": "layers", "diff_ids": [digest_of(&layer)] } })
    .to_string();
    let manifest = json!({ "schemaVersion": 2,
        "config": { "digest": digest_of(config.as_bytes()), "size": config.len() },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": digest_of(&layer), "size": layer.len() }] })
    .to_string();
    Made { layer, config, manifest }
}

impl Made {
    pub(super) fn layer_digest(&self) -> Digest {
        digest_of(&self.layer)
    }

    /// What a good registry answers.
    pub(super) fn answer(&self, asked: &Asked) -> Answer {
        let path = asked.path.split('?').next().unwrap();
        if path.contains("/manifests/") {
            return Answer::ok(self.manifest.clone())
                .with("Content-Type", "application/vnd.oci.image.manifest.v1+json");
        }
        if path.ends_with(&self.layer_digest().to_string()) {
            return self.piece(asked);
        }
        if path.ends_with(&digest_of(self.config.as_bytes()).to_string()) {
            return Answer::ok(self.config.clone());
        }
        Answer::status(404)
    }

    pub(super) fn is_layer(&self, asked: &Asked) -> bool {
        asked.path.contains(&self.layer_digest().to_string())
    }

    fn piece(&self, asked: &Asked) -> Answer {
        let range = asked.header("range").and_then(|range| range.strip_prefix("bytes="));
        let Some(range) = range else {
            return Answer::ok(self.layer.clone()).with("ETag", "\"1\"");
        };
        let from: usize = range.trim_end_matches('-').parse().unwrap();
        let answer = Answer::ok(&self.layer[from..]);
        let length = self.layer.len();
        Answer { status: 206, ..answer }
            .with("Content-Range", format!("bytes {from}-{}/{length}", length - 1))
    }
}

/// Waits until nothing is left of pulls in the store.
pub(super) async fn nothing_left(dir: &Path, images: &Images) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    loop {
        images.collect().unwrap();
        let list = |place: &str| std::fs::read_dir(dir.join("store").join(place)).unwrap().count();
        // Two empty layers are always there.
        if list("ingest") == 0 && list("layers") == 2 && images.list(&namespace()).is_empty() {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "something is left");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
