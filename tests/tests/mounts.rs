//! Volumes: what of the host a container sees, how, and what it may do there.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use corten_api::cri::{self, MountPropagation};
use corten_tests::{Machine, Scene};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};

/// A directory of the machine with one file, writable for everybody.
fn volume(machine: &Machine, name: &str) -> PathBuf {
    let path = machine.path(name);
    fs::create_dir_all(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(path.join("file"), "of the host\n").unwrap();
    path
}

fn at(host: &Path) -> cri::Mount {
    cri::Mount {
        container_path: "/vol".into(),
        host_path: host.display().to_string(),
        ..Default::default()
    }
}

/// A tmpfs on the machine, gone when the test is done.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn new(path: &Path, propagation: MountPropagationFlags) -> Self {
        fs::create_dir_all(path).unwrap();
        mount("corten-test", path, "tmpfs", MountFlags::empty(), None).unwrap();
        mount_change(path, propagation).unwrap();
        Self(path.to_owned())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

const WRITE: &str = "cat /vol/file; (echo x > /vol/new) 2>/dev/null && echo written || echo kept";

#[test]
fn volumes_read_and_written() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let host = volume(machine, "vol");
        let text = scene.says(WRITE, |c| c.config.mounts = vec![at(&host)]).await;
        assert_eq!(text, "of the host\nwritten\n");
        assert_eq!(fs::read_to_string(host.join("new")).unwrap(), "x\n");
        let readonly = cri::Mount { readonly: true, ..at(&host) };
        let text = scene.says(WRITE, |c| c.config.mounts = vec![readonly.clone()]).await;
        assert_eq!(text, "of the host\nkept\n");

        // One file alone, over one that the image has, and one that it has not.
        let file = host.join("file");
        let files = ["/etc/passwd", "/not/yet/there"]
            .map(|path| cri::Mount { container_path: path.into(), ..at(&file) });
        let text =
            scene.says("cat /etc/passwd /not/yet/there", |c| c.config.mounts = files.into()).await;
        assert_eq!(text, "of the host\nof the host\n");

        // A link on the host is followed there; one of the image stays inside.
        symlink(&host, machine.path("link")).unwrap();
        let text = scene.says(WRITE, |c| c.config.mounts = vec![at(&machine.path("link"))]).await;
        assert_eq!(text, "of the host\nwritten\n");
        let inside = cri::Mount { container_path: "/trap/vol".into(), ..at(&host) };
        let text =
            scene.says("ln -s /etc /trap2; echo ok", |c| c.config.mounts = vec![inside]).await;
        assert_eq!(text, "ok\n");

        // What is not there is not made up.
        let error = scene.refused(|c| c.config.mounts = vec![at(Path::new("/no/such"))]).await;
        assert!(error.contains("/no/such"), "{error}");
        let relative = cri::Mount { host_path: "vol".into(), ..at(&host) };
        let error = scene.refused(|c| c.config.mounts = vec![relative]).await;
        assert!(error.contains("absolute"), "{error}");
        // A volume in a volume: the outer first, whatever the order.
        let inner = volume(machine, "inner");
        fs::create_dir(host.join("below")).unwrap();
        let below = cri::Mount { container_path: "/vol/below".into(), ..at(&inner) };
        let text = scene
            .says("cat /vol/below/file /vol/file", |c| c.config.mounts = vec![below, at(&host)])
            .await;
        assert_eq!(text, "of the host\nof the host\n");
    });
}

#[test]
fn options_of_volumes() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let host = volume(machine, "vol");
        let program = host.join("busybox");
        fs::copy("/bin/busybox", &program).unwrap();
        let run = "/vol/busybox true 2>/dev/null && echo ran || echo refused; \
            grep ' /vol ' /proc/self/mountinfo | cut -d' ' -f6";
        let text = scene.says(run, |c| c.config.mounts = vec![at(&host)]).await;
        assert!(text.starts_with("ran\n"), "{text}");
        let options = ["noexec", "nodev", "nosuid"].map(str::to_owned).to_vec();
        let with = cri::Mount { mount_options: options, ..at(&host) };
        let text = scene.says(run, |c| c.config.mounts = vec![with.clone()]).await;
        assert_eq!(text.lines().next(), Some("refused"), "{text}");
        for option in ["rw", "noexec", "nodev", "nosuid"] {
            assert!(text.contains(option), "{option}: {text}");
        }
        let with = cri::Mount { readonly: true, ..with };
        let text = scene.says(run, |c| c.config.mounts = vec![with]).await;
        assert!(text.contains("ro,nosuid,nodev,noexec"), "{text}");
        let bad = cri::Mount { mount_options: vec!["suid".into()], ..at(&host) };
        let error = scene.refused(|c| c.config.mounts = vec![bad]).await;
        assert!(error.contains("suid"), "{error}");
    });
}

#[test]
fn readonly_with_all_below() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let host = volume(machine, "vol");
        let _below = Tmpfs::new(&host.join("below"), MountPropagationFlags::PRIVATE);
        let write = "for f in /vol/x /vol/below/x; do (echo > $f) 2>/dev/null && echo written || echo kept; done";
        let readonly = cri::Mount { readonly: true, ..at(&host) };
        let text = scene.says(write, |c| c.config.mounts = vec![readonly.clone()]).await;
        assert_eq!(text, "kept\nwritten\n", "read-only alone is of the mount itself");
        let recursive = cri::Mount { recursive_read_only: true, ..readonly.clone() };
        let text = scene.says(write, |c| c.config.mounts = vec![recursive.clone()]).await;
        assert_eq!(text, "kept\nkept\n");
        // The options of the mount itself hold beside it.
        let both = cri::Mount { mount_options: vec!["noexec".into()], ..recursive };
        let flags = "grep ' /vol' /proc/self/mountinfo | cut -d' ' -f5,6";
        let text = scene.says(flags, |c| c.config.mounts = vec![both.clone()]).await;
        let of = |path: &str| text.lines().find_map(|l| l.strip_prefix(path)).unwrap().to_owned();
        assert!(of("/vol ").contains("ro") && of("/vol ").contains("noexec"), "{text}");
        assert!(of("/vol/below ").starts_with("ro"), "{text}");
        let bad = cri::Mount { readonly: false, ..both };
        let error = scene.refused(|c| c.config.mounts = vec![bad]).await;
        assert!(error.contains("recursive_read_only"), "{error}");
    });
}

#[test]
fn propagation() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |pod| {
            let linux = pod.config.linux.get_or_insert_default();
            linux.security_context.get_or_insert_default().privileged = true;
        })
        .await;
        let host = machine.path("shared");
        let shared = Tmpfs::new(&host, MountPropagationFlags::SHARED);
        fs::create_dir(host.join("later")).unwrap();
        fs::create_dir(host.join("back")).unwrap();
        let with = |propagation: MountPropagation| {
            let mount = cri::Mount { propagation: propagation.into(), ..at(&host) };
            move |c: &mut corten_tests::client::Container| {
                c.security().privileged = true;
                c.config.mounts = vec![mount];
            }
        };
        let private = scene.idle(with(MountPropagation::PropagationPrivate)).await;
        let slave = scene.idle(with(MountPropagation::PropagationHostToContainer)).await;
        let both = scene.idle(with(MountPropagation::PropagationBidirectional)).await;

        // Mounted on the host while they run.
        let source = volume(machine, "vol");
        mount_bind(&source, host.join("later")).unwrap();
        let look = "cat /vol/later/file 2>/dev/null || echo nothing";
        assert_eq!(scene.client.shell(&private, look).await, "nothing\n");
        assert_eq!(scene.client.shell(&slave, look).await, "of the host\n");
        assert_eq!(scene.client.shell(&both, look).await, "of the host\n");

        // Mounted inside.
        let make = "mount -t tmpfs inside /vol/back && echo made > /vol/back/made";
        scene.client.shell(&slave, make).await;
        assert!(!host.join("back/made").exists(), "a slave gives nothing back");
        scene.client.shell(&both, make).await;
        assert_eq!(fs::read_to_string(host.join("back/made")).unwrap(), "made\n");
        // The root stays the container's own: what it mounts elsewhere is not seen.
        scene.client.shell(&both, "mkdir /mine && mount -t tmpfs mine /mine").await;
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!table.contains(" mine "), "{table}");
        unmount(host.join("back"), UnmountFlags::DETACH).unwrap();
        unmount(host.join("later"), UnmountFlags::DETACH).unwrap();

        // What cannot propagate is refused, with the remedy.
        mount_change(&host, MountPropagationFlags::PRIVATE).unwrap();
        for mode in [
            MountPropagation::PropagationHostToContainer,
            MountPropagation::PropagationBidirectional,
        ] {
            let error = scene.refused(with(mode)).await;
            assert!(error.contains("make-rshared"), "{error}");
        }
        for id in [private, slave, both] {
            scene.client.stop(&id, 0).await.unwrap();
        }
        drop(shared);
    });
}

/// The ids of the pod's user namespace.
const FIRST: u32 = 200_000;
const COUNT: u32 = 65_536;

fn ids() -> Vec<cri::IdMapping> {
    vec![cri::IdMapping { host_id: FIRST, container_id: 0, length: COUNT }]
}

fn mapped(pod: &mut corten_tests::client::Pod) {
    pod.namespaces().userns_options =
        Some(cri::UserNamespace { mode: cri::NamespaceMode::Pod.into(), uids: ids(), gids: ids() });
}

fn mapped_container(container: &mut corten_tests::client::Container) {
    let options = container.security().namespace_options.get_or_insert_default();
    options.userns_options =
        Some(cri::UserNamespace { mode: cri::NamespaceMode::Pod.into(), uids: ids(), gids: ids() });
}

#[test]
fn a_pod_in_a_user_namespace() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, mapped).await;
        let main = scene.idle(mapped_container).await;
        let map = scene.client.shell(&main, "cat /proc/self/uid_map /proc/self/gid_map").await;
        let numbers: Vec<&str> = map.split_whitespace().collect();
        assert_eq!(numbers, ["0", "200000", "65536", "0", "200000", "65536"]);
        // Root inside; the image's files are its own, and it can change them.
        let text = scene
            .client
            .shell(&main, "id -u; stat -c '%u:%g' /bin/busybox /etc /tmp /etc/hostname /dev/shm /dev/null; \
                echo more >> /etc/passwd && tail -1 /etc/passwd; chown 1000:1000 /etc/group && \
                stat -c %u /etc/group; mkdir /etc/new && touch /etc/new/f && rm /bin/yes && echo fine")
            .await;
        assert_eq!(text, "0\n0:0\n0:0\n0:0\n0:0\n0:0\n65534:65534\nmore\n1000\nfine\n");
        // On the host these are nobody's in particular: ids of the pod.
        let pid = scene.client.clone().shell(&main, "exit 0").await;
        assert_eq!(pid, "");
        let mut uids = Vec::new();
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let Ok(cgroup) = fs::read_to_string(process.path().join("cgroup")) else { continue };
            if line == b"sleep\x001000\0" && cgroup.contains(machine.cgroup()) {
                uids.push(fs::metadata(process.path()).unwrap().uid());
            }
        }
        assert_eq!(uids, [FIRST]);

        // /proc and /sys are real, and those of the pod; the network works.
        let text = scene
            .client
            .shell(
                &main,
                "cat /proc/1/cmdline | tr '\\0' ' '; ls /sys/class/net; hostname; \
                ls /sys/fs/cgroup | head -1; ping -c1 -W5 127.0.0.1 > /dev/null && echo pinged; \
                ls -l /dev/pts/ptmx | cut -c1; echo x > /dev/null && head -c4 /dev/zero | wc -c",
            )
            .await;
        assert!(text.contains("sleep 1000 eth0\nlo\npod\n"), "{text}");
        assert!(text.contains("pinged\nc\n4\n"), "{text}");
        // Another container of the pod is in the same namespace.
        let text = scene
            .says("cat /proc/self/uid_map; readlink /proc/self/ns/user", mapped_container)
            .await;
        let own =
            scene.client.shell(&main, "cat /proc/self/uid_map; readlink /proc/self/ns/user").await;
        assert_eq!(text, own);
        // A user who is not root, and one whom the map does not have.
        let text = scene
            .says("id -u; touch /tmp/mine && stat -c %u /tmp/mine", |c| {
                mapped_container(c);
                c.security().run_as_user = Some(cri::Int64Value { value: 1000 });
            })
            .await;
        assert_eq!(text, "1000\n1000\n");
        let error = scene
            .refused(|c| {
                mapped_container(c);
                c.security().run_as_user = Some(cri::Int64Value { value: 70_000 });
            })
            .await;
        assert!(error.contains("70000"), "{error}");
    });
}

#[test]
fn volumes_of_a_pod_in_a_user_namespace() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, mapped).await;
        let host = volume(machine, "vol");
        fs::set_permissions(&host, fs::Permissions::from_mode(0o755)).unwrap();
        let look = "stat -c '%u:%g' /vol/file; (echo x > /vol/new) 2>/dev/null && echo written || echo kept";
        let text = scene
            .says(look, |c| {
                mapped_container(c);
                c.config.mounts = vec![at(&host)];
            })
            .await;
        assert_eq!(text, "65534:65534\nkept\n", "without an idmap it is foreign");
        let idmapped = cri::Mount { uid_mappings: ids(), gid_mappings: ids(), ..at(&host) };
        let text = scene
            .says(look, |c| {
                mapped_container(c);
                c.config.mounts = vec![idmapped.clone()];
            })
            .await;
        assert_eq!(text, "0:0\nwritten\n");
        let written = fs::metadata(host.join("new")).unwrap();
        assert_eq!((written.uid(), written.gid()), (0, 0), "what lands on disk is not shifted");
        let readonly = cri::Mount { readonly: true, recursive_read_only: true, ..idmapped };
        let text = scene
            .says("stat -c %u /vol/file; touch /vol/n 2>&1; true", |c| {
                mapped_container(c);
                c.config.mounts = vec![readonly];
            })
            .await;
        assert!(text.starts_with("0\n") && text.contains("Read-only"), "{text}");
    });
}

#[test]
fn a_shared_pod_and_a_readonly_root_in_a_user_namespace() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |pod| {
            mapped(pod);
            pod.namespaces().pid = cri::NamespaceMode::Pod.into();
        })
        .await;
        let shared = |c: &mut corten_tests::client::Container| {
            mapped_container(c);
            let options = c.security().namespace_options.get_or_insert_default();
            options.pid = cri::NamespaceMode::Pod.into();
        };
        let one = scene.idle(shared).await;
        let two = scene
            .idle(|c| {
                shared(c);
                c.security().readonly_rootfs = true;
            })
            .await;
        let text =
            scene.client.shell(&two, "touch /x 2>&1; cat /proc/*/cmdline | tr '\\0' ' '").await;
        assert!(text.contains("Read-only") && text.matches("sleep 1000").count() == 2, "{text}");
        scene.client.shell(&one, "echo a > /dev/shm/a").await;
        assert_eq!(scene.client.shell(&two, "cat /dev/shm/a").await, "a\n");
    });
}
