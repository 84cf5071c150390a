//! Disks that are full, and content that is gone.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::made::{images, made, namespace, nothing_left};
use super::server::Server;
use crate::PullErrorKind;
use crate::testing::{ImageBuilder, Packing, Registry, tar_of};

/// A small tmpfs, unmounted when the test ends.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(options: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "none"])
            .arg(dir.path())
            .status();
        assert!(mount.unwrap().success());
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_an_error_that_says_so_and_leaves_nothing() {
    let large = vec![7u8; 3 << 20];
    let many: Vec<(String, u32, &[u8])> =
        (0..300).map(|number| (format!("f{number}"), 0o644, &b"x"[..])).collect();
    let many: Vec<(&str, u32, &[u8])> =
        many.iter().map(|(name, mode, content)| (name.as_str(), *mode, *content)).collect();
    let registry = Registry::start();
    let little = ImageBuilder::new().layer(&[("data", 0o644, b"x".as_slice())]);
    let little = little.push(&registry, "little", "v1");
    for (number, (options, layer)) in [
        ("size=2m", tar_of(&[("data", 0o644, large.as_slice())])),
        ("size=2m,nr_inodes=200", tar_of(&many)),
    ]
    .into_iter()
    .enumerate()
    {
        let disk = Disk::new(options);
        let images = images(disk.path());
        let image = ImageBuilder::new().packing(Packing::Plain).tar(layer);
        let large = image.push(&registry, "large", &format!("v{number}"));
        let error = images.pull(&namespace(), &large, None, None).await.unwrap_err();
        assert_eq!(error.kind, PullErrorKind::DiskFull, "{options}: {error}");
        assert!(error.message.contains("No space left"), "{options}: {error}");
        nothing_left(disk.path(), &images).await;
        images.pull(&namespace(), &little, None, None).await.unwrap();
    }
}

/// The files of a store below `place`.
fn files(dir: &Path, place: &str) -> Vec<PathBuf> {
    let list = std::fs::read_dir(dir.join("store").join(place)).unwrap();
    list.map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_image_is_not_shown_and_repaired_by_a_pull() {
    let registry = Registry::start();
    let image = ImageBuilder::new().layer(&[("data", 0o644, b"x".as_slice())]);
    let one = image.push(&registry, "a/b", "v1");
    let two = image.push(&registry, "a/b", "v2");
    let dir = tempfile::tempdir().unwrap();
    let id = {
        let images = images(dir.path());
        images.pull(&namespace(), &two, None, None).await.unwrap();
        images.pull(&namespace(), &one, None, None).await.unwrap().id
    };
    let config = dir.path().join("store/blobs").join(id.hex());
    type Damage = fn(&Path, &Path);
    let damages: [Damage; 4] = [
        |_, config| std::fs::remove_file(config).unwrap(),
        |_, config| std::fs::write(config, "{}").unwrap(),
        |_, config| std::fs::write(config, "").unwrap(),
        |dir, _| {
            let layers = files(dir, "layers").into_iter();
            let of_image = layers.filter(|path| !path.display().to_string().contains("+empty"));
            of_image.for_each(|path| std::fs::remove_dir_all(path).unwrap());
        },
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        damage(dir.path(), &config);
        // Also a second start does not show it, and a third has it whole.
        for _ in 0..2 {
            let images = images(dir.path());
            assert!(images.list(&namespace()).is_empty(), "{number}");
            assert!(images.find(&namespace(), &one.to_string()).is_none(), "{number}");
        }
        images(dir.path()).pull(&namespace(), &one, None, None).await.unwrap();
        let images = images(dir.path());
        let found = images.find(&namespace(), &two.to_string()).unwrap();
        assert_eq!((found.id, found.tags.len()), (id, 2), "{number}");
        assert!(config.metadata().unwrap().len() > 10, "{number}");
        assert_eq!(files(dir.path(), "layers").len(), 3, "{number}");
    }
    let images = images(dir.path());
    images.remove(&namespace(), &one.to_string()).await.unwrap().unwrap();
    assert_eq!(files(dir.path(), "layers").len(), 2);
    assert!(files(dir.path(), "blobs").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_looks_waits_for_a_pull() {
    let (dir, made) = (tempfile::tempdir().unwrap(), made());
    let layer = made.layer_digest().to_string();
    let (sender, mut came) = tokio::sync::watch::channel(false);
    let server = Server::start(move |asked, _| {
        let mut answer = made.answer(asked);
        if made.is_layer(asked) {
            (answer.cut, answer.hang) = (Some(300_000), true);
            sender.send_replace(true);
        }
        answer
    })
    .await;
    let registry = Registry::start();
    let other = ImageBuilder::new().layer(&[("data", 0o644, b"x".as_slice())]);
    let other = other.push(&registry, "other", "v1");
    let images = images(dir.path());
    let stuck = format!("{}/a/b:v1", server.address).parse().unwrap();
    let name = namespace();
    let meanwhile = async {
        came.wait_for(|came| *came).await.unwrap();
        let image = images.pull(&name, &other, None, None).await.unwrap();
        assert_eq!(images.find(&name, &image.id.to_string()), Some(image.clone()));
        assert_eq!(images.list(&name).len(), 1);
        images.collect().unwrap();
        assert!(images.remove(&name, &other.to_string()).await.unwrap().is_some());
        assert!(images.usage() < 10_000);
    };
    tokio::select! {
        // It may stall and begin anew, but not end.
        result = async { loop { let _ = images.pull(&name, &stuck, None, None).await; } } => result,
        () = meanwhile => {}
    }
    assert!(!server.asked(&layer).is_empty());
    nothing_left(dir.path(), &images).await;
}
