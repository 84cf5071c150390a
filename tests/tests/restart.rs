//! The daemon dies at any moment, and nothing of a pod's life notices.

use std::path::Path;

use corten_api::cri::{self, ContainerState, NamespaceMode, PodSandboxState};
use corten_kernel::cgroup::Cgroups;
use corten_tests::client::{Container, Pod, log_lines, log_path};
use corten_tests::group::processes;
use corten_tests::{Client, Daemon, Machine, until};
use rustix::process::{Pid, Signal, kill_process};

/// Everything that a client can see.
async fn everything(client: &mut Client) -> String {
    let pods = client.pods().await;
    let containers = client.containers().await;
    let images = client.images.list_images(cri::ListImagesRequest::default()).await;
    let images = images.expect("a list").into_inner().images;
    let mut seen = format!("{pods:#?}\n{containers:#?}\n{images:#?}\n");
    for pod in &pods {
        seen.push_str(&format!("{:#?}\n", client.pod_status(&pod.id).await.expect("a pod")));
    }
    for container in &containers {
        seen.push_str(&format!("{:#?}\n", client.status(&container.id).await.expect("a status")));
    }
    seen
}

/// A life whose daemon dies after some steps: after the one, or after each.
struct Walk<'a> {
    daemon: &'a mut Daemon,
    dies_after: Option<usize>,
    steps: usize,
}

impl Walk<'_> {
    async fn client(&mut self) -> Client {
        self.steps += 1;
        if self.dies_after.is_none_or(|step| step + 1 == self.steps) {
            let before = everything(&mut self.daemon.client().await).await;
            self.daemon.restart().await;
            let after = everything(&mut self.daemon.client().await).await;
            assert_eq!(before, after, "after step {}", self.steps - 1);
        }
        self.daemon.client().await
    }
}

/// The number of steps of [`life`].
const STEPS: usize = 12;

async fn life(machine: &Machine, daemon: &mut Daemon, dies_after: Option<usize>) {
    let image = machine.image("busybox");
    let mut pod =
        Pod::new(machine, &format!("walk-{dies_after:?}").replace(['(', ')'], "").to_lowercase());
    if dies_after.is_some_and(|step| step % 2 == 0) {
        pod.namespaces().pid = NamespaceMode::Pod.into();
    }
    let mut walk = Walk { daemon, dies_after, steps: 0 };
    walk.client().await.pull(&image).await.unwrap();
    let id = walk.client().await.run_pod(&pod).await.unwrap();
    assert_eq!(walk.client().await.run_pod(&pod).await.unwrap(), id, "asked again");
    let script = "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.01; done";
    let container = Container::shell("main", &image, script);
    let main = walk.client().await.create(&id, &pod, &container).await.unwrap();
    assert_eq!(walk.client().await.create(&id, &pod, &container).await.unwrap(), main);
    walk.client().await.start(&main).await.unwrap();
    assert_eq!(walk.client().await.shell(&main, "cat /proc/1/comm | wc -l").await, "1\n");
    until("the trap is set", async || {
        (!log_lines(&log_path(&pod, &container)).is_empty()).then_some(())
    })
    .await;
    walk.client().await.stop(&main, 20).await.unwrap();
    let mut client = walk.client().await;
    let status = client.status(&main).await.unwrap();
    assert_eq!((status.exit_code, status.reason.as_str()), (7, "Error"));
    let lines = log_lines(&log_path(&pod, &container));
    let said: Vec<_> = lines.iter().map(|(_, _, text)| text.as_str()).collect();
    assert_eq!(said, ["up", "bye"]);
    walk.client().await.remove(&main).await.unwrap();
    walk.client().await.stop_pod(&id).await.unwrap();
    walk.client().await.remove_pod(&id).await.unwrap();
    assert_eq!(walk.steps, STEPS);
    assert!(walk.daemon.client().await.pods().await.is_empty());
}

#[test]
fn a_daemon_killed_after_every_step_of_a_life() {
    Machine::run(async |machine, daemon| life(machine, daemon, None).await);
}

#[test]
fn a_daemon_killed_after_one_step_of_a_life() {
    Machine::run(async |machine, daemon| {
        for step in 0..STEPS {
            life(machine, daemon, Some(step)).await;
        }
    });
}

/// A container that does nothing until it is told to go on, then this.
fn waits_then(machine: &Machine, name: &str, image: &str, then: &str) -> Container {
    std::fs::create_dir_all(machine.path("go")).unwrap();
    let script = format!("until [ -e /go/now ]; do sleep 0.01; done; {then}");
    let mut container = Container::shell(name, image, &script);
    container.config.mounts.push(cri::Mount {
        container_path: "/go".into(),
        host_path: machine.path("go").display().to_string(),
        readonly: true,
        ..Default::default()
    });
    container
}

fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[test]
fn what_ends_without_a_daemon_is_known_afterwards() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let image = machine.image("busybox");
        client.pull(&image).await.unwrap();
        let pod = Pod::new(machine, "ends");
        let id = client.run_pod(&pod).await.unwrap();
        let ends = waits_then(machine, "ends", &image, "exit 42");
        let mut eats = waits_then(machine, "eats", &image, "exec tail /dev/zero");
        eats.linux().resources = Some(cri::LinuxContainerResources {
            memory_limit_in_bytes: 16 << 20,
            memory_swap_limit_in_bytes: 16 << 20,
            ..Default::default()
        });
        let killed = Container::shell("killed", &image, "exec sleep 1000");
        let stays = Container::shell("stays", &image, "exec sleep 1000");
        let mut ids = Vec::new();
        for container in [&ends, &eats, &killed, &stays] {
            ids.push(client.run(&id, &pod, container).await.unwrap());
        }
        daemon.kill();
        std::fs::write(machine.path("go/now"), "").unwrap();
        for pid in processes(machine, &id, &ids[2]) {
            kill(pid, Signal::KILL);
        }
        until("three have ended", async || {
            ids[..3]
                .iter()
                .all(|container| processes(machine, &id, container).is_empty())
                .then_some(())
        })
        .await;
        daemon.start_again().await;
        let mut client = daemon.client().await;
        let expected = [(42, "Error"), (137, "OOMKilled"), (137, "Error")];
        for (container, (code, reason)) in ids.iter().zip(expected) {
            let status = client.status(container).await.unwrap();
            assert_eq!(status.state(), ContainerState::ContainerExited, "{status:?}");
            assert_eq!((status.exit_code, status.reason.as_str()), (code, reason), "{status:?}");
            assert!(status.started_at > 0 && status.finished_at >= status.started_at, "{status:?}");
        }
        assert_eq!(client.status(&ids[3]).await.unwrap().state(), ContainerState::ContainerRunning);
        client.shell(&ids[3], "true").await;
    });
}

#[test]
fn no_line_of_a_log_is_lost() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let image = machine.image("busybox");
        client.pull(&image).await.unwrap();
        let pod = Pod::new(machine, "writes");
        let id = client.run_pod(&pod).await.unwrap();
        let script = "n=0; until [ -e /go/now ]; do i=0; while [ $i -lt 1000 ]; do \
            i=$((i+1)); n=$((n+1)); echo line $n of a writer at full speed; done; done; echo end $n";
        let mut container = waits_then(machine, "main", &image, "");
        container.config.command = vec!["/bin/sh".into(), "-c".into(), script.into()];
        let main = client.run(&id, &pod, &container).await.unwrap();
        let log = log_path(&pod, &container);
        let size = || std::fs::metadata(&log).map_or(0, |file| file.len());
        for _ in 0..2 {
            let before = size();
            until("it writes", async || (size() > before).then_some(())).await;
            daemon.kill();
            let before = size();
            until("it writes on", async || (size() > before).then_some(())).await;
            daemon.start_again().await;
        }
        std::fs::write(machine.path("go/now"), "").unwrap();
        assert_eq!(daemon.client().await.ended(&main).await.exit_code, 0);
        let lines = log_lines(&log);
        let (last, lines) = lines.split_last().expect("a log");
        assert_eq!(last.2, format!("end {}", lines.len()));
        for (at, (stream, tag, text)) in lines.iter().enumerate() {
            assert_eq!((stream.as_str(), tag.as_str()), ("stdout", "F"));
            assert_eq!(*text, format!("line {} of a writer at full speed", at + 1));
        }
    });
}

/// The pid of the shim of this sandbox.
fn shim_of(sandbox: &str) -> i32 {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let line = format!("corten-shim\0{sandbox}\0");
    pids.find(|pid| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|found| found == line.as_bytes())
    })
    .expect("a shim")
}

fn lose_a_shim(pid_mode: NamespaceMode, without_daemon: bool) {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let image = machine.image("busybox");
        client.pull(&image).await.unwrap();
        let mut pod = Pod::new(machine, "lost");
        pod.namespaces().pid = pid_mode.into();
        let id = client.run_pod(&pod).await.unwrap();
        let mut ids = Vec::new();
        for (name, script) in [("runs", "exec sleep 1000"), ("forks", "sleep 1000 & sleep 1000")] {
            let container = Container::shell(name, &image, script);
            ids.push(client.run(&id, &pod, &container).await.unwrap());
        }
        let ended = Container::shell("ended", &image, "exit 3");
        let ended = client.run(&id, &pod, &ended).await.unwrap();
        client.ended(&ended).await;
        let waits = Container::shell("created", &image, "exec sleep 1000");
        ids.push(client.create(&id, &pod, &waits).await.unwrap());
        if without_daemon {
            daemon.kill();
        }
        kill(shim_of(&id), Signal::KILL);
        if without_daemon {
            daemon.start_again().await;
        }
        let mut client = daemon.client().await;
        until("the pod is not ready", async || {
            let status = client.pod_status(&id).await.unwrap();
            (status.state() == PodSandboxState::SandboxNotready).then_some(())
        })
        .await;
        for container in &ids {
            let status = client.ended(container).await;
            assert_eq!((status.exit_code, status.reason.as_str()), (255, "Unknown"), "{status:?}");
            assert!(!status.message.is_empty());
            until("its processes end", async || {
                processes(machine, &id, container).is_empty().then_some(())
            })
            .await;
        }
        assert_eq!(client.status(&ended).await.unwrap().exit_code, 3);
        until("the network is released", async || {
            let netns = std::fs::read_dir(machine.path("state/netns")).unwrap().count();
            (netns == 0).then_some(())
        })
        .await;
        let error = client.create(&id, &pod, &Container::shell("more", &image, "true")).await;
        assert!(error.unwrap_err().message().contains("not ready"));
        let other = Pod::new(machine, "other");
        client.run_pod(&other).await.unwrap();
    });
}

#[test]
fn a_pod_whose_shim_is_killed_is_not_ready() {
    lose_a_shim(NamespaceMode::Container, false);
}

#[test]
fn a_pod_with_an_init_whose_shim_is_killed() {
    lose_a_shim(NamespaceMode::Pod, false);
}

#[test]
fn a_pod_whose_shim_is_killed_while_there_is_no_daemon() {
    lose_a_shim(NamespaceMode::Pod, true);
}

#[test]
fn pods_run_on_when_the_daemon_is_asked_to_leave() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let image = machine.image("busybox");
        client.pull(&image).await.unwrap();
        let pod = Pod::new(machine, "on");
        let id = client.run_pod(&pod).await.unwrap();
        let container = Container::shell("main", &image, "exec sleep 1000");
        let main = client.run(&id, &pod, &container).await.unwrap();
        let before = everything(&mut client).await;
        let running = processes(machine, &id, &main);
        assert_eq!(running.len(), 1);
        drop(client);
        daemon.stop().await;
        assert_eq!(processes(machine, &id, &main), running);
        daemon.start_again().await;
        let mut client = daemon.client().await;
        assert_eq!(everything(&mut client).await, before);
        client.shell(&main, "true").await;
    });
}

#[test]
fn a_second_daemon_says_so_and_leaves() {
    Machine::run(async |machine, daemon| {
        let (code, said) = daemon.another(&machine.path("config.toml"));
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains("in use") || said.contains("another"), "{said}");
        let socket = machine.path("corten.sock").display().to_string();
        let text = machine.configuration().replace(&socket, &format!("{socket}2"));
        let config = machine.path("second.toml");
        std::fs::write(&config, &text).unwrap();
        let (code, said) = daemon.another(&config);
        assert_eq!(code, Some(3), "{said}");
        let data = machine.path("data").display().to_string();
        let text = machine.configuration().replace(&data, &format!("{data}2"));
        std::fs::write(&config, &text).unwrap();
        let (code, said) = daemon.another(&config);
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains(&format!("process {}", daemon.pid())), "{said}");
        daemon.client().await.pods().await;
    });
}

/// What a reboot does: nothing runs, and what was volatile is gone.
fn reboot(machine: &Machine, sandboxes: &[String]) {
    for sandbox in sandboxes {
        kill(shim_of(sandbox), Signal::KILL);
    }
    let cgroups = Cgroups::probe().unwrap();
    for sandbox in cgroups.children(machine.cgroup()).unwrap() {
        let group = format!("{}/{sandbox}", machine.cgroup());
        cgroups.open(&group).unwrap().kill(Signal::KILL).unwrap();
        corten_tests::poll::until_now("it is empty", || cgroups.remove(&group).ok());
    }
    for netns in std::fs::read_dir(machine.path("state/netns")).unwrap().flatten() {
        rustix::mount::unmount(netns.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    }
    std::fs::remove_dir_all(machine.path("state")).unwrap();
}

#[test]
fn pods_of_an_earlier_boot_are_listed_as_ended() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let image = machine.image("busybox");
        client.pull(&image).await.unwrap();
        let mut pods = Vec::new();
        let mut containers = Vec::new();
        for name in ["one", "two"] {
            let pod = Pod::new(machine, name);
            let id = client.run_pod(&pod).await.unwrap();
            let container = Container::shell("main", &image, "exec sleep 1000");
            containers.push(client.run(&id, &pod, &container).await.unwrap());
            pods.push(id);
        }
        let ended = Container::shell("ended", &image, "exit 5");
        let ended = client.run(&pods[0], &Pod::new(machine, "one"), &ended).await.unwrap();
        client.ended(&ended).await;
        drop(client);
        // Left in peace it has everything on disk; what a power cut may take is
        // the last moment.
        daemon.stop().await;
        reboot(machine, &pods);
        daemon.start_in_another_boot().await;
        let mut client = daemon.client().await;
        for pod in &pods {
            let status = until("the pod is not ready", async || {
                let status = client.pod_status(pod).await.unwrap();
                (status.state() == PodSandboxState::SandboxNotready).then_some(status)
            })
            .await;
            assert_eq!(status.id, *pod);
        }
        for container in &containers {
            let status = client.ended(container).await;
            assert_eq!((status.exit_code, status.reason.as_str()), (255, "Unknown"));
            assert!(status.message.contains("restarted"), "{}", status.message);
        }
        assert_eq!(client.status(&ended).await.unwrap().exit_code, 5);
        let mut addresses = Vec::new();
        for network in std::fs::read_dir(machine.path("state/leases")).unwrap().flatten() {
            let names = std::fs::read_dir(network.path()).unwrap().flatten();
            addresses.extend(names.map(|entry| entry.file_name()));
        }
        addresses.retain(|name| name.to_string_lossy().parse::<std::net::IpAddr>().is_ok());
        assert_eq!(addresses.len(), 0, "{addresses:?}");
        client.remove_pod(&pods[0]).await.unwrap();
        // The same pod can run again.
        let pod = Pod::new(machine, "one");
        let id = client.run_pod(&pod).await.unwrap();
        let container = Container::shell("main", &image, "exec sleep 1000");
        let main = client.run(&id, &pod, &container).await.unwrap();
        client.shell(&main, "true").await;
        client.remove_everything().await;
        drop(client);
        daemon.stop().await;
        daemon.start_again().await;
    });
}

/// Makes a file useless.
fn damage(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

#[test]
fn a_damaged_record_is_reported_and_the_others_come_back() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let image = machine.image("busybox");
        client.pull(&image).await.unwrap();
        let mut made = Vec::new();
        for name in ["one", "two", "three"] {
            let pod = Pod::new(machine, name);
            let id = client.run_pod(&pod).await.unwrap();
            let container = Container::shell("main", &image, "exec sleep 1000");
            let main = client.run(&id, &pod, &container).await.unwrap();
            made.push((id, main));
        }
        drop(client);
        daemon.stop().await;
        let sandboxes = machine.path("state/sandboxes");
        damage(&sandboxes.join(&made[0].0).join("record"));
        damage(&sandboxes.join(&made[1].0).join("containers").join(&made[1].1).join("record"));
        daemon.start_again().await;
        assert!(daemon.log().contains("the record of a sandbox is damaged"), "{}", daemon.log());
        assert!(daemon.log().contains("the record of a container is damaged"));
        let mut client = daemon.client().await;
        // The durable copies take their places.
        for (sandbox, container) in &made {
            let status = client.pod_status(sandbox).await.unwrap();
            assert_eq!(status.state(), PodSandboxState::SandboxReady);
            client.shell(container, "true").await;
        }
    });
}
