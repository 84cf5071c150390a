//! Which namespaces a container is in, and what it shares with whom.

use corten_api::cri::{self, NamespaceMode};
use corten_tests::client::Container;
use corten_tests::{Machine, Scene, until};

/// Every process of the PID namespace: its pid and its command.
const PROCESSES: &str = "for p in /proc/[0-9]*; do \
    echo ${p#/proc/}:$(tr '\\0' ' ' < $p/cmdline); done 2>/dev/null";

fn pid_mode(mode: NamespaceMode) -> impl Fn(&mut Container) {
    move |container| {
        let options = container.security().namespace_options.get_or_insert_default();
        options.pid = mode.into();
    }
}

async fn namespace(scene: &mut Scene, id: &str, kind: &str) -> String {
    scene.client.shell(id, &format!("readlink /proc/self/ns/{kind}")).await.trim().to_owned()
}

fn own(kind: &str) -> String {
    let link = std::fs::read_link(format!("/proc/thread-self/ns/{kind}")).unwrap();
    link.display().to_string()
}

#[test]
fn a_pod_that_shares_its_processes() {
    Machine::run(async |machine, daemon| {
        let mut scene =
            Scene::new(machine, daemon, |pod| pod.namespaces().pid = NamespaceMode::Pod.into())
                .await;
        let one = scene.idle(pid_mode(NamespaceMode::Pod)).await;
        let two = scene.idle(pid_mode(NamespaceMode::Pod)).await;
        assert_eq!(
            namespace(&mut scene, &one, "pid").await,
            namespace(&mut scene, &two, "pid").await
        );
        let seen = scene.client.shell(&one, PROCESSES).await;
        assert_eq!(seen.matches("sleep 1000").count(), 2, "{seen}");
        assert!(!seen.contains("1:sleep"), "PID 1 is the pod's: {seen}");

        // What leads to PID 1 leads to nothing of use.
        let root = scene
            .client
            .shell(&one, "ls -a /proc/1/root/ 2>/dev/null | wc -l; cat /proc/1/status")
            .await;
        assert!(root.starts_with('0') || root.starts_with('2'), "{root}");
        let cap = corten_tests::scene::field(&root, "CapEff");
        assert_eq!(u64::from_str_radix(cap, 16).unwrap(), 0, "{root}");

        // Orphans become the children of PID 1, and do not stay as zombies.
        scene.client.shell(&one, "(sh -c 'exit 3' & ) ; (sleep 0.1 &) ; true").await;
        until("no zombie is left", async || {
            let state = "cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z ' || true";
            (scene.client.clone().shell(&two, state).await.trim() == "0").then_some(())
        })
        .await;

        // One container's end is not the other's; a stop ends all of its tree.
        let (_, tree, _) = scene
            .client
            .exec(&one, &["sh", "-c", "setsid sleep 2000 >/dev/null 2>&1 & echo $!"], 10)
            .await
            .unwrap();
        assert!(!tree.trim().is_empty());
        scene.client.stop(&one, 0).await.unwrap();
        until("its processes are gone", async || {
            let seen = scene.client.clone().shell(&two, PROCESSES).await;
            (!seen.contains("sleep 2000") && seen.matches("sleep 1000").count() == 1).then_some(())
        })
        .await;
    });
}

#[test]
fn processes_of_one_container_and_of_a_target() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let one = scene.idle(|_| {}).await;
        let two = scene.idle(|_| {}).await;
        assert_ne!(
            namespace(&mut scene, &one, "pid").await,
            namespace(&mut scene, &two, "pid").await
        );
        let seen = scene.client.shell(&one, PROCESSES).await;
        assert!(seen.contains("1:sleep 1000") && seen.matches("sleep 1000").count() == 1, "{seen}");

        let aim = one.clone();
        let target = scene
            .idle(move |c| {
                let options = c.security().namespace_options.get_or_insert_default();
                options.pid = NamespaceMode::Target.into();
                options.target_id = aim;
            })
            .await;
        assert_eq!(
            namespace(&mut scene, &one, "pid").await,
            namespace(&mut scene, &target, "pid").await
        );
        let seen = scene.client.shell(&target, PROCESSES).await;
        assert_eq!(seen.matches("sleep 1000").count(), 2, "{seen}");
        let root = scene.client.shell(&target, "ls /proc/1/root/bin/sh").await;
        assert_eq!(root, "/proc/1/root/bin/sh\n");
        // It ends with its target: the namespace's init is gone.
        scene.client.stop(&one, 0).await.unwrap();
        assert_eq!(scene.client.ended(&target).await.exit_code, 137);
        let error = scene
            .refused(|c| {
                let options = c.security().namespace_options.get_or_insert_default();
                options.pid = NamespaceMode::Target.into();
                options.target_id = one.clone();
            })
            .await;
        assert!(error.contains("not running"), "{error}");
    });
}

#[test]
fn namespaces_of_the_host() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |pod| {
            pod.config.hostname.clear();
            let options = pod.namespaces();
            options.network = NamespaceMode::Node.into();
            options.pid = NamespaceMode::Node.into();
            options.ipc = NamespaceMode::Node.into();
        })
        .await;
        let id = scene
            .idle(|c| {
                let options = c.security().namespace_options.get_or_insert_default();
                options.network = NamespaceMode::Node.into();
                options.pid = NamespaceMode::Node.into();
                options.ipc = NamespaceMode::Node.into();
            })
            .await;
        for kind in ["net", "pid", "ipc", "uts", "user"] {
            assert_eq!(namespace(&mut scene, &id, kind).await, own(kind), "{kind}");
        }
        for kind in ["mnt", "cgroup"] {
            assert_ne!(namespace(&mut scene, &id, kind).await, own(kind), "{kind}");
        }
        let host = rustix_hostname();
        assert_eq!(
            scene.client.shell(&id, "hostname; cat /etc/hostname").await,
            format!("{host}\n{host}\n")
        );
        // It sees the host's processes, and a kill of the container ends all of its own.
        let seen = scene.client.shell(&id, PROCESSES).await;
        assert!(seen.contains("cortend"), "{seen}");
        scene.client.shell(&id, "(setsid sleep 3131 >/dev/null 2>&1 &)").await;
        scene.client.stop(&id, 0).await.unwrap();
        assert_eq!(scene.client.status(&id).await.unwrap().exit_code, 137);
        // The host's /dev/shm.
        let name = format!("corten-test-{}", std::process::id());
        let text = scene.says(&format!("echo hi > /dev/shm/{name}"), |_| {}).await;
        assert_eq!(text, "");
        let path = std::path::Path::new("/dev/shm").join(name);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "hi\n");
        std::fs::remove_file(path).unwrap();
    });
}

fn rustix_hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned()
}

#[test]
fn what_the_containers_of_a_pod_share() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |pod| {
            pod.config.hostname = "our-pod".into();
            pod.config.dns_config = Some(cri::DnsConfig {
                servers: vec!["10.9.8.7".into()],
                searches: vec!["a.example".into(), "b.example".into()],
                options: vec!["ndots:5".into()],
            });
            let linux = pod.config.linux.get_or_insert_default();
            linux.sysctls = [
                ("net.ipv4.ip_local_port_range", "20000 30000"),
                ("kernel.shm_rmid_forced", "1"),
                ("net/ipv4/tcp_keepalive_time", "77"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        })
        .await;
        let one = scene.idle(|_| {}).await;
        let two = scene.idle(|_| {}).await;
        for kind in ["net", "ipc", "uts"] {
            let of_one = namespace(&mut scene, &one, kind).await;
            assert_eq!(of_one, namespace(&mut scene, &two, kind).await, "{kind}");
            assert_ne!(of_one, own(kind), "{kind}");
        }
        for kind in ["mnt", "pid", "cgroup"] {
            let of_one = namespace(&mut scene, &one, kind).await;
            assert_ne!(of_one, namespace(&mut scene, &two, kind).await, "{kind}");
        }
        let text = scene.client.shell(&one, "hostname; cat /etc/hostname; echo $HOSTNAME").await;
        assert_eq!(text, "our-pod\nour-pod\nour-pod\n");
        let text = scene.client.shell(&one, "cat /etc/resolv.conf").await;
        assert_eq!(text, "search a.example b.example\nnameserver 10.9.8.7\noptions ndots:5\n");
        let sysctls = "cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shm_rmid_forced \
            /proc/sys/net/ipv4/tcp_keepalive_time /proc/sys/net/ipv4/ip_unprivileged_port_start";
        assert_eq!(scene.client.shell(&two, sysctls).await, "20000\t30000\n1\n77\n0\n");
        // The pod's shared memory: one tmpfs, of 64 MiB, for all of its containers.
        scene.client.shell(&one, "echo shared > /dev/shm/f && chmod 600 /dev/shm/f").await;
        assert_eq!(scene.client.shell(&two, "cat /dev/shm/f").await, "shared\n");
        let size = scene.client.shell(&two, "df -k /dev/shm | tail -1").await;
        assert_eq!(size.split_whitespace().nth(1), Some("65536"), "{size}");
        // It outlives a container, but not the pod.
        scene.client.stop(&one, 0).await.unwrap();
        assert_eq!(scene.client.shell(&two, "cat /dev/shm/f").await, "shared\n");
    });
}

#[test]
fn a_sysctl_that_is_not_the_pods() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let mut pod = corten_tests::client::Pod::new(machine, "bad");
        // Each with the value that it has, in case that it is set after all.
        for key in ["vm.swappiness", "kernel.panic", "net.no.such.thing"] {
            let path = format!("/proc/sys/{}", key.replace('.', "/"));
            let value = std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
            let linux = pod.config.linux.get_or_insert_default();
            linux.sysctls = [(key.to_owned(), value)].into();
            let error = client.run_pod(&pod).await.unwrap_err();
            assert!(error.message().contains(key), "{error}");
        }
        assert!(client.pods().await.is_empty());
    });
}
