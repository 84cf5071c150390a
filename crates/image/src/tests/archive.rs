//! Archives: made, loaded, saved, and made wrong.

use std::io::{Cursor, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use corten_base::Namespace;
use serde_json::{Value, json};

use super::images;
use crate::testing::{digest_of, tar_of};
use crate::{ArchiveFormat, Images, LoadedImage, PullErrorKind, archive_pipe};

/// Output of a save.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn save(images: &Images, name: &str, format: ArchiveFormat) -> Vec<u8> {
    let output = Output::default();
    images.save(&namespace(), vec![name.into()], format, output.clone()).await.unwrap();
    std::mem::take(&mut output.0.lock().unwrap())
}

async fn load(images: &Images, archive: &[u8]) -> Result<Vec<LoadedImage>, crate::PullError> {
    images.load(&namespace(), Cursor::new(archive.to_vec())).await
}

fn namespace() -> Namespace {
    "default".parse().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A layout with one image of one gzip layer; `change` makes it wrong.
fn layout(change: impl FnOnce(&mut Vec<(String, Vec<u8>)>)) -> Vec<u8> {
    let layer = tar_of(&[("bin/tool", 0o755, b"one"), ("etc/.wh.gone", 0, b"")]);
    let packed = gzip(&layer);
    let config =
        json!({ "os": "linux", "architecture": "amd64", "config": { "Cmd": ["/bin/tool"] },
        "rootfs": { "type": "layers", "diff_ids": [digest_of(&layer)] } })
        .to_string();
    let manifest = json!({ "schemaVersion": 2,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest_of(config.as_bytes()), "size": config.len() },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": digest_of(&packed), "size": packed.len() }] })
    .to_string();
    let index = json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": digest_of(manifest.as_bytes()), "size": manifest.len(),
        "annotations": { "io.containerd.image.name": "docker.io/library/tool:v1",
            "org.opencontainers.image.ref.name": "v1" } }] })
    .to_string();
    let blob = |bytes: &[u8]| (format!("blobs/sha256/{}", digest_of(bytes).hex()), bytes.to_vec());
    // The index comes last: loading must not depend on the order.
    let mut files = vec![
        blob(&packed),
        blob(config.as_bytes()),
        blob(manifest.as_bytes()),
        ("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".into(), index.into_bytes()),
    ];
    change(&mut files);
    tar(&files)
}

fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let files: Vec<(&str, u32, &[u8])> =
        files.iter().map(|(path, bytes)| (path.as_str(), 0o644, bytes.as_slice())).collect();
    tar_of(&files)
}

/// Nothing may be left of a load that failed.
fn nothing_left(dir: &Path, images: &Images) {
    assert!(images.list(&namespace()).is_empty());
    images.collect().unwrap();
    let store = dir.join("store");
    for place in ["ingest", "layers"] {
        let left: Vec<_> = std::fs::read_dir(store.join(place))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with("+empty"))
            .collect();
        assert!(left.is_empty(), "{place}: {left:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_is_loaded_whatever_packs_it() {
    let plain = layout(|_| {});
    let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
    for archive in [plain.clone(), gzip(&plain), zstd] {
        let dir = tempfile::tempdir().unwrap();
        let images = images(dir.path());
        let loaded = load(&images, &archive).await.unwrap();
        assert_eq!(loaded.len(), 1);
        assert_eq!(loaded[0].references[0].to_string(), "docker.io/library/tool:v1");
        let image = images.find(&namespace(), "tool:v1").unwrap();
        assert_eq!(image.id, loaded[0].image.id);
        assert_eq!(image.config.cmd, ["/bin/tool"]);
        assert_eq!(image.digests.len(), 1);
        // Loaded again, it is the same.
        assert_eq!(load(&images, &archive).await.unwrap()[0].image, image);
        assert_eq!(images.list(&namespace()).len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_saved_and_loaded_stays_the_same() {
    for format in [ArchiveFormat::Oci, ArchiveFormat::Docker] {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (first, second) = (images(one.path()), images(two.path()));
        load(&first, &layout(|_| {})).await.unwrap();
        let archive = save(&first, "tool:v1", format).await;
        assert_eq!(archive, save(&first, "tool:v1", format).await, "deterministic");
        let loaded = load(&second, &archive).await.unwrap();
        assert_eq!(loaded[0].references[0].to_string(), "docker.io/library/tool:v1");
        assert_eq!(loaded[0].image.config.cmd, ["/bin/tool"]);
        assert_eq!(archive, save(&second, "tool:v1", format).await, "stable");
        // By id, it brings no name.
        let id = loaded[0].image.id.to_string();
        let nameless = save(&second, &id, format).await;
        second.remove(&namespace(), &id).await.unwrap().unwrap();
        let loaded = load(&second, &nameless).await.unwrap();
        assert_eq!((loaded[0].references.len(), loaded[0].image.id.to_string()), (0, id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_archives_leave_nothing() {
    type Change = fn(&mut Vec<(String, Vec<u8>)>);
    let flip = |files: &mut Vec<(String, Vec<u8>)>, at: usize| {
        let middle = files[at].1.len() / 2;
        files[at].1[middle] ^= 1;
    };
    let cases: [(&str, Change); 6] = [
        ("lacks", |files| drop(files.remove(0))),
        ("bytes, not the", |files| files[0].1.push(0)),
        ("has digest", |files| files[2].1.push(b' ')),
        ("neither", |files| files.truncate(4)),
        ("malformed", |files| files[4].1.truncate(20)),
        ("no manifest", |files| {
            let mut index: Value = serde_json::from_slice(&files[4].1).unwrap();
            index["manifests"][0]["annotations"]["io.containerd.image.name"] = json!("No Name");
            files[4].1 = index.to_string().into_bytes();
        }),
    ];
    let dir = tempfile::tempdir().unwrap();
    let images = images(dir.path());
    for (words, change) in cases {
        let error = load(&images, &layout(change)).await.unwrap_err();
        assert_eq!(error.kind, PullErrorKind::Invalid, "{error}");
        let expected =
            if words == "no manifest" { "names an invalid image reference" } else { words };
        assert!(error.message.contains(expected), "{words}: {error}");
        nothing_left(dir.path(), &images);
    }
    let error = load(&images, &layout(|files| flip(files, 0))).await.unwrap_err();
    assert_eq!(error.kind, PullErrorKind::Invalid, "{error}");
    nothing_left(dir.path(), &images);
    let whole = layout(|_| {});
    let error = load(&images, &whole[..whole.len() / 2]).await.unwrap_err();
    assert_eq!(error.kind, PullErrorKind::Invalid, "{error}");
    nothing_left(dir.path(), &images);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_loads_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let images = images(dir.path());
    let archive = layout(|_| {});
    let (sender, reader) = archive_pipe();
    let name = namespace();
    let (sent, loaded) = tokio::join!(
        // All bytes are there; only the end is not said.
        async {
            sender.send(archive.clone().into()).await && {
                drop(sender);
                true
            }
        },
        images.load(&name, reader)
    );
    assert!(sent);
    assert_eq!(loaded.unwrap_err().kind, PullErrorKind::Cancelled);
    nothing_left(dir.path(), &images);
    let (sender, reader) = archive_pipe();
    let sending = async {
        for piece in archive.chunks(100) {
            assert!(sender.send(piece.to_vec().into()).await);
        }
        sender.finish().await;
    };
    let ((), loaded) = tokio::join!(sending, images.load(&name, reader));
    assert_eq!(loaded.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_docker_archive_may_share_layers_by_links() {
    let layer = tar_of(&[("a", 0o644, b"a".as_slice())]);
    let config = json!({ "os": "linux", "architecture": "amd64", "config": null,
        "rootfs": { "diff_ids": [digest_of(&layer)] } })
    .to_string();
    let list = json!([{ "Config": "config.json", "RepoTags": ["one:1", "two:2"], "Layers": ["y/layer.tar"] }])
        .to_string();
    let mut archive = Vec::new();
    let mut tar = corten_store::TarWriter::new(&mut archive);
    for (path, bytes) in [("x/layer.tar", layer.as_slice()), ("config.json", config.as_bytes())] {
        tar.item(&corten_store::TarItem::file(path.as_bytes(), bytes.len() as u64)).unwrap();
        tar.data(bytes, bytes.len() as u64).unwrap();
    }
    let link = corten_store::TarItem {
        kind: corten_store::TarKind::Symlink(b"../x/layer.tar"),
        ..corten_store::TarItem::file(b"y/layer.tar", 0)
    };
    tar.item(&link).unwrap();
    tar.item(&corten_store::TarItem::file(b"manifest.json", list.len() as u64)).unwrap();
    tar.data(list.as_bytes(), list.len() as u64).unwrap();
    tar.finish().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let images = images(dir.path());
    let loaded = load(&images, &archive).await.unwrap();
    assert_eq!(loaded[0].references.len(), 2);
    for name in ["one:1", "two:2"] {
        assert_eq!(images.find(&namespace(), name).unwrap().layers, [digest_of(&layer)]);
    }
}
