//! Images over the daemon: pulled, named, found, removed, saved and loaded.

use std::path::Path;
use std::process::Command;

use corten_api::cri;
use corten_tests::client::{Container, Pod};
use corten_tests::{Client, Daemon, Machine, binaries, until};
use tonic::Code;

async fn list(client: &mut Client) -> Vec<cri::Image> {
    let response = client.images.list_images(cri::ListImagesRequest::default()).await;
    response.unwrap().into_inner().images
}

fn spec(image: &str) -> Option<cri::ImageSpec> {
    Some(cri::ImageSpec { image: image.into(), ..Default::default() })
}

async fn status(client: &mut Client, image: &str) -> Option<cri::Image> {
    let request = cri::ImageStatusRequest { image: spec(image), verbose: false };
    client.images.image_status(request).await.unwrap().into_inner().image
}

async fn remove(client: &mut Client, image: &str) {
    let request = cri::RemoveImageRequest { image: spec(image) };
    client.images.remove_image(request).await.unwrap();
}

async fn used_bytes(client: &mut Client) -> u64 {
    let info = client.images.image_fs_info(cri::ImageFsInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.image_filesystems.len(), 1);
    let usage = &info.image_filesystems[0];
    assert!(usage.timestamp > 0);
    let mountpoint = &usage.fs_id.as_ref().unwrap().mountpoint;
    assert!(Path::new(mountpoint).is_dir(), "{mountpoint}");
    usage.used_bytes.as_ref().unwrap().value
}

/// What is in a directory of the store; the empty layers belong to it.
fn stored(machine: &Machine, place: &str) -> Vec<String> {
    let list = std::fs::read_dir(machine.path("data").join(place)).unwrap();
    let names = list.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with("+empty")).collect()
}

#[test]
fn an_image_is_found_by_every_name_it_has() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let tag = machine.image("busybox");
        let id = client.pull(&tag).await.unwrap();
        let image = status(&mut client, &tag).await.unwrap();
        assert_eq!((&image.id, &image.repo_tags), (&id, &vec![tag.clone()]));
        assert_eq!(image.repo_digests.len(), 1);
        assert!(image.size > 0 && !image.pinned);
        let digest = image.repo_digests[0].clone();
        let (repository, hash) = digest.split_once('@').unwrap();
        let hex = id.strip_prefix("sha256:").unwrap();
        let both = format!("{repository}:latest@{hash}");
        for name in [&tag, repository, &digest, &both, &id, hex, &hex[..12]] {
            let found = status(&mut client, name).await;
            assert_eq!(found.as_ref(), Some(&image), "{name}");
            let filter = Some(cri::ImageFilter { image: spec(name) });
            let request = cri::ListImagesRequest { filter };
            let listed = client.images.list_images(request).await.unwrap().into_inner().images;
            assert_eq!(listed, std::slice::from_ref(&image), "{name}");
        }
        for name in ["none", "registry.invalid/busybox", &format!("{repository}:other")] {
            assert_eq!(status(&mut client, name).await, None, "{name}");
        }
        // By digest it is the same image, and has no more tags than before.
        assert_eq!(client.pull(&digest).await.unwrap(), id);
        assert_eq!(list(&mut client).await, [image]);
        remove(&mut client, &tag).await;
        assert_eq!(client.pull(&digest).await.unwrap(), id);
        let untagged = status(&mut client, &digest).await.unwrap();
        assert_eq!((untagged.repo_tags.len(), untagged.repo_digests), (0, vec![digest]));
        let verbose = cri::ImageStatusRequest { image: spec(&id), verbose: true };
        let info = client.images.image_status(verbose).await.unwrap().into_inner().info;
        let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
        assert_eq!(info["config"]["cmd"][0], "/bin/sh");
    });
}

#[test]
fn an_image_goes_with_all_its_names_and_its_layers() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        assert_eq!(used_bytes(&mut client).await, 0);
        let (one, two) = (machine.image("busybox"), machine.image_as("busybox", "second"));
        let id = client.pull(&one).await.unwrap();
        let used = used_bytes(&mut client).await;
        assert!(used > 500_000, "{used}");
        assert_eq!(client.pull(&two).await.unwrap(), id);
        assert_eq!(used_bytes(&mut client).await, used, "nothing is there twice");
        let image = &list(&mut client).await[0];
        assert_eq!((image.repo_tags.len(), image.repo_digests.len()), (2, 2), "{image:?}");
        // A new daemon knows it all.
        daemon.restart().await;
        let mut client = daemon.client().await;
        assert_eq!(list(&mut client).await.len(), 1);
        assert_eq!(used_bytes(&mut client).await, used);
        for name in [&one, &two] {
            assert_eq!(status(&mut client, name).await.unwrap().id, id);
        }
        // A container holds what it runs on, not the image's names.
        let pod = Pod::new(machine, "holder");
        let pod_id = client.run_pod(&pod).await.unwrap();
        let container = Container::shell("main", &one, "exec sleep 1000");
        let main = client.run(&pod_id, &pod, &container).await.unwrap();
        remove(&mut client, &one).await;
        assert!(list(&mut client).await.is_empty());
        assert_eq!(status(&mut client, &two).await, None);
        assert_eq!(client.shell(&main, "echo $((6 * 7))").await, "42\n");
        assert_eq!(stored(machine, "layers").len(), 1);
        // Removed again, or never there: nothing is wrong with that.
        for name in [one.as_str(), &id, "none"] {
            remove(&mut client, name).await;
        }
        client.stop(&main, 0).await.unwrap();
        client.remove(&main).await.unwrap();
        until("the layer goes with the last container", async || {
            (stored(machine, "layers").is_empty() && stored(machine, "blobs").is_empty())
                .then_some(())
        })
        .await;
        assert_eq!(used_bytes(&mut client).await, 0);
    });
}

#[test]
fn a_mirror_serves_what_its_registry_cannot() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        machine.image("busybox");
        let name = "127.0.0.1:1/busybox:latest";
        let hosts = machine.path("hosts/127.0.0.1:1");
        std::fs::create_dir_all(&hosts).unwrap();
        let text = format!("[host.\"http://{}\"]\n", machine.registry());
        std::fs::write(hosts.join("hosts.toml"), text).unwrap();
        let id = client.pull(name).await.unwrap();
        let image = status(&mut client, name).await.unwrap();
        assert_eq!((image.id, image.repo_tags), (id, vec![name.to_owned()]));
        assert!(image.repo_digests[0].starts_with("127.0.0.1:1/busybox@"));
    });
}

#[test]
fn what_is_not_there_or_no_name_is_told_apart() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        machine.image("busybox");
        let registry = machine.registry();
        let zeros = "0".repeat(64);
        for (name, code) in [
            (format!("{registry}/none:latest"), Code::NotFound),
            (format!("{registry}/busybox:none"), Code::NotFound),
            (format!("{registry}/busybox@sha256:{zeros}"), Code::NotFound),
            (format!("{registry}/Busybox:latest"), Code::InvalidArgument),
            ("-".into(), Code::InvalidArgument),
            (String::new(), Code::InvalidArgument),
        ] {
            let error = client.pull(&name).await.unwrap_err();
            assert_eq!(error.code(), code, "{name}: {error}");
        }
        assert!(list(&mut client).await.is_empty());
        assert!(stored(machine, "layers").is_empty());
    });
}

/// Runs `corten` and returns what it printed.
fn corten(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = Command::new(binaries::directory().join("corten"))
        .arg("--host")
        .arg(format!("unix://{}", daemon.socket().display()))
        .args(["-n", "k8s.io"])
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn what_is_saved_can_be_loaded_and_run() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let tag = machine.image("busybox");
        client.pull(&tag).await.unwrap();
        let file = machine.path("image.tar").display().to_string();
        for format in ["oci", "docker"] {
            corten(daemon, &["save", "--format", format, "-o", &file, &tag]);
            remove(&mut client, &tag).await;
            assert!(stored(machine, "layers").is_empty());
            let said = corten(daemon, &["load", "-i", &file]);
            assert!(said.contains(&tag), "{said}");
            let pod = Pod::new(machine, format);
            let pod_id = client.run_pod(&pod).await.unwrap();
            let container = Container::shell("main", &tag, "exec sleep 1000");
            let main = client.run(&pod_id, &pod, &container).await.unwrap();
            assert_eq!(client.shell(&main, "cat /etc/group | head -1").await, "root:x:0:\n");
            client.stop_pod(&pod_id).await.unwrap();
            client.remove_pod(&pod_id).await.unwrap();
            std::fs::remove_file(&file).unwrap();
        }
        // An archive that is none.
        std::fs::write(&file, "nothing").unwrap();
        let output = Command::new(binaries::directory().join("corten"))
            .args(["--host", &format!("unix://{}", daemon.socket().display())])
            .args(["-n", "k8s.io", "load", "-i", &file])
            .output()
            .unwrap();
        assert!(!output.status.success());
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(words.contains("unable to load"), "{words}");
    });
}

#[test]
fn pinned_images_are_shown_as_such_and_removed_when_asked() {
    Machine::run(async |machine, daemon| {
        let (kept, other) = (machine.image("busybox"), machine.image_as("nginx", "other"));
        let path = machine.path("config.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}\nimage.pinned = [{kept:?}]\n")).unwrap();
        daemon.restart().await;
        let mut client = daemon.client().await;
        for (name, pinned) in [(&kept, true), (&other, false)] {
            client.pull(name).await.unwrap();
            assert_eq!(status(&mut client, name).await.unwrap().pinned, pinned, "{name}");
        }
        remove(&mut client, &kept).await;
        assert_eq!(list(&mut client).await.len(), 1);
    });
}

/// The kubelet sets no deadline, but crictl does, and so does whoever tests
/// with it: a registry that says nothing must not hold the answer.
#[test]
fn a_pull_ends_at_its_clients_deadline() {
    Machine::run(async |_, daemon| {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let image = format!("{}/silent:latest", silent.local_addr().unwrap());
        let mut client = daemon.client().await;
        let request = cri::PullImageRequest { image: spec(&image), ..Default::default() };
        let mut request = tonic::Request::new(request);
        request.set_timeout(std::time::Duration::from_secs(2));
        let error = client.images.pull_image(request).await.unwrap_err();
        // On a busy machine our own clock may be the first, and it says so.
        let ours = error.code() == Code::Cancelled && error.message().contains("Timeout expired");
        assert!(ours || error.code() == Code::DeadlineExceeded, "{error:?}");
        assert!(list(&mut client).await.is_empty());
    });
}
