//! Pods in user namespaces: root inside, nobody in particular outside.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use corten_api::cri;
use corten_tests::client::{Container, Pod};
use corten_tests::{Machine, Scene};

/// The ids of the pod's user namespace.
const FIRST: u32 = 200_000;
const COUNT: u32 = 65_536;

fn ids() -> Vec<cri::IdMapping> {
    vec![cri::IdMapping { host_id: FIRST, container_id: 0, length: COUNT }]
}

fn mapped(pod: &mut Pod) {
    pod.namespaces().userns_options =
        Some(cri::UserNamespace { mode: cri::NamespaceMode::Pod.into(), uids: ids(), gids: ids() });
}

fn mapped_container(container: &mut Container) {
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
        let host = machine.path("vol");
        fs::create_dir(&host).unwrap();
        fs::set_permissions(&host, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(host.join("file"), "").unwrap();
        let volume = cri::Mount {
            container_path: "/vol".into(),
            host_path: host.display().to_string(),
            ..Default::default()
        };
        let look = "stat -c '%u:%g' /vol/file; (echo x > /vol/new) 2>/dev/null && echo written || echo kept";
        let text = scene
            .says(look, |c| {
                mapped_container(c);
                c.config.mounts = vec![volume.clone()];
            })
            .await;
        assert_eq!(text, "65534:65534\nkept\n", "without an idmap it is foreign");
        let idmapped = cri::Mount { uid_mappings: ids(), gid_mappings: ids(), ..volume };
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
        let shared = |c: &mut Container| {
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

#[test]
fn a_privileged_container_in_a_user_namespace() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |pod| {
            mapped(pod);
            let linux = pod.config.linux.get_or_insert_default();
            linux.security_context.get_or_insert_default().privileged = true;
        })
        .await;
        let privileged = |c: &mut Container| {
            mapped_container(c);
            c.security().privileged = true;
        };
        // All that its namespace can give; nothing of the host.
        let text = scene
            .says(
                "mkdir /m && mount -t tmpfs m /m && touch /m/f && echo 1 > /proc/sys/net/ipv4/ip_forward \
                && hostname changed && hostname; cat /proc/self/uid_map; \
                (echo 1 > /proc/sys/vm/drop_caches) 2>/dev/null && echo dropped || echo kept; \
                mknod /m/vda b 254 0 2>/dev/null && echo made || echo refused",
                privileged,
            )
            .await;
        assert!(text.starts_with("changed\n") && text.contains("200000"), "{text}");
        assert!(text.ends_with("kept\nrefused\n"), "{text}");
    });
}

#[test]
fn a_user_namespace_with_the_hosts_network() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |pod| {
            mapped(pod);
            pod.config.hostname.clear();
            pod.namespaces().network = cri::NamespaceMode::Node.into();
        })
        .await;
        let text = scene
            .says("readlink /proc/self/ns/net; (echo x > /sys/class/net/lo/mtu) 2>/dev/null; hostname; id -u", |c| {
                mapped_container(c);
                let options = c.security().namespace_options.get_or_insert_default();
                options.network = cri::NamespaceMode::Node.into();
            })
            .await;
        let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(text, format!("{}\n{host}0\n", own.display()));
    });
}

/// What the status announces is what the other tests have seen.
#[test]
fn features_are_announced() {
    Machine::run(async |_machine, daemon| {
        let mut client = daemon.client().await;
        let status = client.runtime.status(cri::StatusRequest::default()).await;
        let status = status.unwrap().into_inner();
        let features = status.features.unwrap();
        assert!(features.supplemental_groups_policy && features.mount_options);
        assert!(features.user_namespaces_host_network);
        for handler in status.runtime_handlers {
            let features = handler.features.unwrap();
            assert!(features.recursive_read_only_mounts && features.user_namespaces);
        }
    });
}
