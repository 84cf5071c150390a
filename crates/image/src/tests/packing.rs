//! Images as tools pack them, from a real registry.

use corten_base::Namespace;
use corten_store::LayerStart;

use super::images;
use crate::testing::{ImageBuilder, Packing, Registry};
use crate::{Images, ImagesConfig, Platform, PullErrorKind};

fn namespace() -> Namespace {
    Namespace::kubernetes()
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_come_however_they_are_packed() {
    let registry = Registry::start();
    let content: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    let mut ids = Vec::new();
    for (number, packing) in
        [Packing::Gzip, Packing::GzipMembers, Packing::Zstd, Packing::Plain].into_iter().enumerate()
    {
        for docker in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let images = images(dir.path());
            let mut builder =
                ImageBuilder::new().packing(packing).layer(&[("data", 0o644, content.as_slice())]);
            if docker {
                builder = builder.docker();
            }
            let tag = format!("v{number}-{docker}");
            let reference = builder.push(&registry, "a/b", &tag);
            let image = images.pull(&namespace(), &reference, None, None).await.unwrap();
            let files = walk(&dir.path().join("store/layers"), "data");
            assert_eq!(files.len(), 1, "{packing:?}");
            assert!(std::fs::read(&files[0]).unwrap() == content, "{packing:?}");
            ids.push(image.id);
        }
    }
    // How layers are packed is no part of what the image is.
    ids.dedup();
    assert_eq!(ids.len(), 1);
}

fn walk(dir: &std::path::Path, name: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(walk(&entry.path(), name));
        } else if entry.file_name() == name {
            found.push(entry.path());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_gives_the_image_for_the_platform() {
    let registry = Registry::start();
    let platform = |architecture: &str, variant: &str| Platform {
        os: "linux".into(),
        architecture: architecture.into(),
        variant: variant.into(),
    };
    let all = [("arm", "v6"), ("arm", "v7"), ("amd64", ""), ("arm64", "v8"), ("amd64", "v4")];
    for docker in [false, true] {
        let of = |(architecture, variant): (&str, &str)| {
            let builder = ImageBuilder::new()
                .platform(platform(architecture, variant))
                .layer(&[("name", 0o644, architecture.as_bytes())])
                .cmd(&[architecture, variant]);
            if docker { builder.docker() } else { builder }
        };
        let builders: Vec<ImageBuilder> = all.into_iter().map(of).collect();
        let reference = ImageBuilder::index(&builders, &registry, "many", &format!("v{docker}"));
        for (wanted, got) in [
            (("amd64", ""), Some(["amd64", ""])),
            (("arm64", "v8"), Some(["arm64", "v8"])),
            (("arm", "v7"), Some(["arm", "v7"])),
            (("arm", "v6"), Some(["arm", "v6"])),
            (("arm", "v5"), None),
            (("riscv64", ""), None),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let store =
                std::sync::Arc::new(corten_store::Store::open(&dir.path().join("store")).unwrap());
            let config =
                ImagesConfig { platform: platform(wanted.0, wanted.1), ..ImagesConfig::default() };
            let images = Images::open(store.clone(), config).unwrap();
            let result = images.pull(&namespace(), &reference, None, None).await;
            let Some(got) = got else {
                let error = result.unwrap_err();
                assert_eq!(error.kind, PullErrorKind::Invalid, "{error}");
                assert!(error.message.contains("linux/arm/v6"), "what there is: {error}");
                continue;
            };
            let image = result.unwrap();
            assert_eq!(image.config.cmd, got, "{wanted:?}");
            // The digest that people see is the index's; by it, the same is pulled.
            let by_digest = &image.digests[0];
            let again = images.pull(&namespace(), by_digest, None, None).await.unwrap();
            assert_eq!((again.id, &again.tags), (image.id, &vec![reference.clone()]));
            let layer = store.begin_layer(Some(image.layers[0])).unwrap();
            assert!(matches!(layer, LayerStart::Present(_)));
        }
    }
}
