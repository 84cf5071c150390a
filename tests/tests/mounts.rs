//! Volumes: what of the host a container sees, how, and what it may do there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
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
