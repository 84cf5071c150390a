//! Images as volumes of containers.

use std::path::Path;

use corten_api::cri;
use corten_image::testing::ImageBuilder;
use corten_tests::client::Container;
use corten_tests::{Machine, Scene};

fn volume(image: &str, path: &str, sub_path: &str) -> cri::Mount {
    cri::Mount {
        container_path: path.into(),
        readonly: true,
        image: Some(cri::ImageSpec { image: image.into(), ..Default::default() }),
        image_sub_path: sub_path.into(),
        ..Default::default()
    }
}

/// An image of data: a file, a program, and a link that leads out of it.
fn data() -> ImageBuilder {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("etc/deep")).unwrap();
    std::fs::write(root.path().join("etc/passwd"), "of the volume\n").unwrap();
    std::fs::write(root.path().join("etc/deep/file"), "deep\n").unwrap();
    std::os::unix::fs::symlink("/etc", root.path().join("absolute")).unwrap();
    std::os::unix::fs::symlink("../../../../..", root.path().join("etc/up")).unwrap();
    let tar = std::process::Command::new("tar")
        .args(["--owner=7", "--group=8", "-C"])
        .arg(root.path())
        .args(["-c", "."])
        .output()
        .unwrap();
    ImageBuilder::new().tar(tar.stdout)
}

fn with(mounts: Vec<cri::Mount>) -> impl Fn(&mut Container) {
    move |container| container.config.mounts = mounts.clone()
}

#[test]
fn images_are_mounted_readonly_whole_and_in_part() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let image = machine.push(&data(), "data");
        let data = scene.client.pull(&image).await.unwrap();
        let programs = scene.image.clone();
        let mounts = with(vec![
            volume(&image, "/whole", ""),
            volume(&data, "/part", "etc/deep"),
            volume(&data, "/linked", "/absolute/deep"),
            volume(&data, "/file", "etc/passwd"),
            volume(&data, "/top", "etc/up"),
            volume(&programs, "/tools", ""),
        ]);
        let look = "cat /whole/etc/passwd /part/file /linked/file /file /top/etc/passwd; \
            stat -c '%u %g' /whole/etc/passwd; /tools/bin/echo runs; \
            touch /whole/new /part/new 2>&1 | grep -c Read-only; \
            grep -c /etc/passwd /etc/passwd; true";
        let want = "of the volume\ndeep\ndeep\nof the volume\nof the volume\n7 8\nruns\n2\n0\n";
        let id = scene.idle(&mounts).await;
        assert_eq!(scene.client.shell(&id, look).await, want);
        // The status tells which image it is.
        let status = scene.client.status(&id).await.unwrap();
        let refs =
            status.mounts.iter().map(|mount| mount.image.as_ref().unwrap().image_ref.clone());
        assert_eq!(refs.collect::<Vec<_>>()[..2], [data.clone(), data]);
        // Nothing of it is mounted on the host.
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let state = machine.path("state").display().to_string();
        assert!(!table.lines().any(|line| line.contains(&format!("{state}/sandboxes"))), "{table}");
    });
}

#[test]
fn in_a_user_namespace_files_have_their_owners() {
    Machine::run(async |machine, daemon| {
        let mapping = vec![cri::IdMapping { host_id: 700_000, container_id: 0, length: 65_536 }];
        let user = cri::UserNamespace {
            mode: cri::NamespaceMode::Pod.into(),
            uids: mapping.clone(),
            gids: mapping.clone(),
        };
        let mut scene =
            Scene::new(machine, daemon, |pod| pod.namespaces().userns_options = Some(user.clone()))
                .await;
        let image = machine.push(&data(), "data");
        scene.client.pull(&image).await.unwrap();
        // The kubelet gives every volume the pod's mappings.
        let mut whole = volume(&image, "/whole", "");
        whole.uid_mappings.clone_from(&mapping);
        whole.gid_mappings = mapping;
        let mounts = with(vec![whole, volume(&image, "/part", "etc")]);
        let says = scene
            .says("stat -c '%u %g' /whole/etc/passwd /part/passwd", |container| {
                mounts(container);
                let security = container.security();
                let namespaces = security.namespace_options.get_or_insert_default();
                namespaces.userns_options = Some(user.clone());
            })
            .await;
        assert_eq!(says, "7 8\n7 8\n");
    });
}

#[test]
fn what_cannot_be_mounted_says_so_in_the_kubelets_words() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let image = machine.push(&data(), "data");
        let word = "ImageVolumeMountFailed: ";
        let error = scene.refused(with(vec![volume(&image, "/v", "")])).await;
        assert!(error.starts_with(word) && error.contains("pull it first"), "{error}");
        scene.client.pull(&image).await.unwrap();
        for path in ["not-there", "etc/passwd/below", "../nothing"] {
            let error = scene.refused(with(vec![volume(&image, "/v", path)])).await;
            assert!(error.starts_with(word) && error.contains(path), "{error}");
        }
        let mut writable = volume(&image, "/v", "");
        writable.readonly = false;
        let error = scene.refused(with(vec![writable])).await;
        assert!(error.contains("read-only"), "{error}");
    });
}

#[test]
fn a_removed_image_stays_as_long_as_a_volume_of_it() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let image = machine.push(&data(), "data");
        scene.client.pull(&image).await.unwrap();
        let id = scene.idle(with(vec![volume(&image, "/v", "")])).await;
        let layers = machine.path("data/layers");
        let before = count(&layers);
        let spec = Some(cri::ImageSpec { image, ..Default::default() });
        let request = cri::RemoveImageRequest { image: spec };
        scene.client.images.remove_image(request).await.unwrap();
        // A daemon that begins collects what nobody uses.
        daemon.restart().await;
        scene.client = daemon.client().await;
        assert_eq!(scene.client.shell(&id, "cat /v/etc/passwd").await, "of the volume\n");
        assert_eq!(count(&layers), before);
        scene.client.stop(&id, 0).await.unwrap();
        scene.client.remove(&id).await.unwrap();
        corten_tests::poll::until("the layer goes", async || {
            (count(&layers) < before).then_some(())
        })
        .await;
    });
}

fn count(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}
