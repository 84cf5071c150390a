//! With systemd: a scope for each pod, and the daemon as a service of it. Seen
//! in the virtual machine (`cargo xtask vm`); elsewhere there is nothing to
//! see.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use corten_api::cri;
use corten_image::testing::Registry;
use corten_tests::client::{Container, Pod};
use corten_tests::group::{by_systemd, setting};
use corten_tests::{Client, Machine, Scene, images, until};

const MIB: i64 = 1 << 20;
/// How long systemd may not answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// A pod's slice as the kubelet names it, whole.
const PARENT: &str = "/cortest.slice/cortest-burstable.slice/cortest-burstable-pod7_1.slice";

fn skipped() -> bool {
    if by_systemd() {
        return false;
    }
    eprintln!("skipped: systemd is not PID 1 here, or cgroups are not v2 alone");
    true
}

/// What systemctl prints. While systemd executes itself anew, which one of
/// these tests asks it to, it answers nobody: then it is asked again.
fn systemctl(arguments: &[&str]) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = Command::new("systemctl").args(arguments).output();
        let output = output.expect("systemctl can be run");
        if output.status.success() {
            return String::from_utf8_lossy(&output.stdout).trim().to_owned();
        }
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(Instant::now() < deadline, "systemctl {}: {error}", arguments.join(" "));
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn property(unit: &str, name: &str) -> String {
    systemctl(&["show", "--value", "--property", name, unit])
}

fn cgroup_of(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    text.trim().trim_start_matches("0::").to_owned()
}

/// The first process of a container, as its group has it.
fn first_pid(group: &str) -> u32 {
    setting("pids", group, "cgroup.procs", "cgroup.procs").lines().next().unwrap().parse().unwrap()
}

async fn shim_of(client: &mut Client, pod: &str) -> u32 {
    let verbose = cri::PodSandboxStatusRequest { pod_sandbox_id: pod.into(), verbose: true };
    let status = client.runtime.pod_sandbox_status(verbose).await.unwrap().into_inner();
    let info: serde_json::Value = serde_json::from_str(&status.info["info"]).unwrap();
    info["shim_pid"].as_u64().unwrap_or_else(|| panic!("{info}")) as u32
}

async fn gone(unit: &str) {
    until("the unit is gone", async || (property(unit, "LoadState") == "not-found").then_some(()))
        .await;
}

fn limited(container: &mut Container) {
    container.linux().resources = Some(cri::LinuxContainerResources {
        memory_limit_in_bytes: 64 * MIB,
        memory_swap_limit_in_bytes: 64 * MIB,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        cpuset_cpus: "0".into(),
        ..Default::default()
    });
}

fn limits(group: &str) -> [String; 3] {
    [("memory", "memory.max"), ("cpu", "cpu.max"), ("cpuset", "cpuset.cpus")]
        .map(|(controller, file)| setting(controller, group, file, file))
}

#[test]
fn a_pod_is_a_scope() {
    if skipped() {
        return;
    }
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |pod| {
            pod.config.linux.get_or_insert_default().cgroup_parent = PARENT.to_owned();
        })
        .await;
        let unit = format!("corten-{}.scope", scene.id);
        let group = format!("{PARENT}/{unit}");
        let id = scene.idle(limited).await;
        let own = format!("{group}/{id}");
        let expected = [(64 * MIB).to_string(), "50000 100000".into(), "0".into()];
        assert_eq!(limits(&own), expected);
        assert_eq!(property(&unit, "ActiveState"), "active");
        assert_eq!(property(&unit, "ControlGroup"), group);
        assert_eq!(property(&unit, "Slice"), PARENT.rsplit('/').next().unwrap());
        assert_eq!(property(&unit, "Delegate"), "yes");
        assert_eq!(property(&unit, "TasksMax"), "infinity");
        let status = systemctl(&["status", "--no-pager", "--full", &unit]);
        assert!(status.contains("active (running)") && status.contains("sleep 1000"), "{status}");
        let shim = shim_of(&mut scene.client, &scene.id).await;
        assert_eq!(cgroup_of(shim), format!("{group}/shim"));
        let pid = first_pid(&own);

        // systemd reads its units anew, and starts anew: it is ours below the scope.
        for command in ["daemon-reload", "daemon-reexec"] {
            systemctl(&[command]);
            assert_eq!(property(&unit, "ActiveState"), "active");
            assert_eq!(limits(&own), expected, "after {command}");
        }
        scene.client.update(&id, |r| r.memory_limit_in_bytes = 80 * MIB).await.unwrap();
        systemctl(&["daemon-reload"]);
        assert_eq!(limits(&own)[0], (80 * MIB).to_string());

        // Another daemon finds everything as it was, and the bus anew.
        daemon.restart().await;
        scene.client = daemon.client().await;
        assert_eq!((first_pid(&own), cgroup_of(shim)), (pid, format!("{group}/shim")));
        let mut hungry = scene.shell("exec tail /dev/zero");
        limited(&mut hungry);
        let said = scene.run(&hungry).await;
        assert_eq!((said.status.exit_code, said.status.reason.as_str()), (137, "OOMKilled"));
        assert_eq!(property(&unit, "ActiveState"), "active", "the pod goes on");
        let script = "mknod /dev/x c 1 5 && cat /dev/x | head -c1; mknod /dev/k c 1 1; \
            cat /dev/k 2>&1; true";
        assert!(scene.client.shell(&id, script).await.contains("not permitted"), "devices");

        scene.client.stop_pod(&scene.id).await.unwrap();
        gone(&unit).await;
        assert!(!Path::new("/sys/fs/cgroup").join(&group[1..]).exists());
        scene.client.remove_pod(&scene.id).await.unwrap();
    });
}

#[test]
fn many_pods_at_once() {
    if skipped() {
        return;
    }
    Machine::run(async |machine, daemon| {
        let client = daemon.client().await;
        let mut runs = tokio::task::JoinSet::new();
        for number in 0..8 {
            let (mut client, mut pod) = (client.clone(), Pod::new(machine, &format!("p{number}")));
            pod.namespaces().network = cri::NamespaceMode::Node.into();
            runs.spawn(async move { client.run_pod(&pod).await.unwrap() });
        }
        let pods = runs.join_all().await;
        for pod in &pods {
            let unit = format!("corten-{pod}.scope");
            assert_eq!(property(&unit, "ActiveState"), "active");
            assert_eq!(property(&unit, "ControlGroup"), machine.pod_group(pod));
        }
        // Nobody listens on the bus for what is over.
        let mut client = daemon.client().await;
        client.remove_everything().await;
        for pod in &pods {
            gone(&format!("corten-{pod}.scope")).await;
        }
    });
}

#[test]
fn who_stops_the_scope_stops_the_pod() {
    if skipped() {
        return;
    }
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let id = scene.idle(|_| {}).await;
        systemctl(&["stop", &format!("corten-{}.scope", scene.id)]);
        let status = scene.client.ended(&id).await;
        assert_ne!(status.exit_code, 0, "{status:?}");
        until("the pod is not ready", async || {
            let status = scene.client.pod_status(&scene.id).await.unwrap();
            (status.state == cri::PodSandboxState::SandboxNotready as i32).then_some(())
        })
        .await;
    });
}

/// The daemon as `make install` leaves it, in a machine made for that.
#[test]
fn the_service() {
    if skipped() || !Path::new("/usr/lib/systemd/system/cortend.service").exists() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        systemctl(&["daemon-reload"]);
        let started = Command::new("systemctl").args(["start", "cortend"]).status().unwrap();
        let log = || {
            let lines = ["-u", "cortend", "--no-pager", "-n", "30"];
            let output = Command::new("journalctl").args(lines).output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        // It has said that it serves: the unit is of the type that waits for it.
        assert!(started.success(), "{}", log());
        assert_eq!(property("cortend", "Type"), "notify");
        assert_eq!(property("cortend", "StatusText"), "serving");
        let socket = Path::new("/run/corten/corten.sock");
        let mut client = Client::connect(socket).await;
        let registry = Registry::start();
        images::named("busybox").push(&registry, "busybox", "latest");
        let image = format!("{}/busybox:latest", registry.address());
        client.pull(&image).await.unwrap();
        let mut pod = Pod::logging_to(Path::new("/var/log/pods"), "served");
        pod.namespaces().network = cri::NamespaceMode::Node.into();
        pod.config.hostname = String::new();
        let id = client.run_pod(&pod).await.unwrap();
        let container = Container::shell("main", &image, "exec sleep 1000");
        let main = client.run(&id, &pod, &container).await.unwrap();
        let group = format!("/corten.slice/corten-{id}.scope/{main}");
        let pid = first_pid(&group);
        let daemon = || property("cortend", "MainPID").parse::<u32>().unwrap();
        assert_eq!(cgroup_of(daemon()), "/system.slice/cortend.service");

        // Killed, it is back by itself.
        let first = daemon();
        systemctl(&["kill", "--kill-whom=main", "--signal=KILL", "cortend"]);
        // In between there is no main process, and the text of the one before.
        until("systemd starts it again", async || {
            let again = property("cortend", "NRestarts") == "1";
            (again && property("cortend", "ActiveState") == "active").then_some(())
        })
        .await;
        assert_ne!(daemon(), first);
        assert_eq!(property("cortend", "StatusText"), "serving");
        runs(socket, &main, &group, pid).await;
        systemctl(&["restart", "cortend"]);
        runs(socket, &main, &group, pid).await;
        // Stopped, it leaves its pods alone.
        systemctl(&["stop", "cortend"]);
        assert_eq!(property("cortend", "ActiveState"), "inactive");
        assert_eq!(property("cortend", "Result"), "success");
        assert_eq!(first_pid(&group), pid);
        systemctl(&["start", "cortend"]);
        let mut client = runs(socket, &main, &group, pid).await;
        client.remove_everything().await;
        gone(&format!("corten-{id}.scope")).await;
        systemctl(&["stop", "cortend"]);
    });
}

/// A container runs, as the daemon and the kernel see it.
async fn runs(socket: &Path, container: &str, group: &str, pid: u32) -> Client {
    let mut client = Client::connect(socket).await;
    let status = client.status(container).await.unwrap();
    assert_eq!(status.state, cri::ContainerState::ContainerRunning as i32);
    assert_eq!(first_pid(group), pid);
    assert_eq!(client.shell(container, "echo here").await, "here\n");
    client
}
