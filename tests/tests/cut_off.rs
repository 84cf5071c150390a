//! Calls that a dying daemon cuts off: whoever asks again gets what was asked
//! for, and nothing is left of the first.

use std::time::Duration;

use corten_api::cri::{self, NamespaceMode, PodSandboxState};
use corten_tests::client::{Container, Pod};
use corten_tests::group::processes;
use corten_tests::{Daemon, Machine, until};

/// Rounds of calls that a dying daemon cuts off.
const ROUNDS: u64 = 20;

/// Kills the daemon while a call is under way, and starts it again.
async fn cut_off<T: Send + 'static>(
    daemon: &mut Daemon,
    round: u64,
    call: impl Future<Output = T> + Send + 'static,
) {
    let call = tokio::spawn(call);
    // Not luck: whatever the moment is, the same must be seen afterwards.
    tokio::time::sleep(Duration::from_micros(round * round * 120)).await;
    daemon.kill();
    let _ = call.await;
    daemon.start_again().await;
}

#[test]
fn a_cut_off_run_of_a_pod_is_asked_for_again() {
    Machine::run(async |machine, daemon| {
        for round in 0..ROUNDS {
            let mut pod = Pod::new(machine, &format!("cut{round}"));
            if round % 2 == 1 {
                pod.namespaces().pid = NamespaceMode::Pod.into();
            }
            let (mut client, asked) = (daemon.client().await, pod.clone());
            cut_off(daemon, round, async move { client.run_pod(&asked).await }).await;
            let mut client = daemon.client().await;
            if round % 3 == 0 {
                continue;
            }
            let id = client.run_pod(&pod).await.unwrap();
            let pods = client.pods().await;
            let same = |pod: &&cri::PodSandbox| {
                pod.metadata.as_ref().is_some_and(|data| data.name == format!("cut{round}"))
            };
            let found: Vec<_> = pods.iter().filter(same).collect();
            assert_eq!(found.len(), 1, "{pods:?}");
            assert_eq!((&found[0].id, found[0].state()), (&id, PodSandboxState::SandboxReady));
        }
    });
}

/// A network of one plugin that does nothing before there is the file `go`.
fn hesitant_network(machine: &Machine) {
    let at = |name: &str| machine.path(name).display().to_string();
    let script = format!(
        r#"#!/bin/sh
touch {began}.$CNI_COMMAND
[ $CNI_COMMAND = VERSION ] || until [ -e {go} ]; do sleep 0.01; done
[ $CNI_COMMAND = DEL ] || echo '{{"cniVersion":"1.0.0","supportedVersions":["1.0.0"],"ips":[{{"address":"10.1.1.1/24"}}]}}'
"#,
        began = at("began"),
        go = at("go"),
    );
    for directory in ["cni", "plugins"] {
        std::fs::create_dir_all(machine.path(directory)).unwrap();
    }
    std::fs::write(machine.path("plugins/hesitant"), script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(machine.path("plugins/hesitant"), mode).unwrap();
    let list = r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"hesitant"}]}"#;
    std::fs::write(machine.path("cni/10-hesitant.conflist"), list).unwrap();
}

#[test]
fn who_asks_again_while_it_is_taken_back_gets_a_new_one() {
    Machine::run_with(corten_tests::machine::Settings::default(), async |machine, daemon| {
        hesitant_network(machine);
        let began = async |command: &str| {
            let file = machine.path(&format!("began.{command}"));
            until("the plugin has begun", async || file.exists().then_some(())).await;
        };
        let (mut client, pod) = (daemon.client().await, Pod::new(machine, "again"));
        until("the network is configured", async || {
            let status = client.runtime.status(cri::StatusRequest::default()).await.unwrap();
            let conditions = status.into_inner().status.unwrap().conditions;
            conditions.iter().all(|condition| condition.status).then_some(())
        })
        .await;
        let asked = pod.clone();
        let cut_off = tokio::spawn(async move { client.run_pod(&asked).await });
        began("ADD").await;
        daemon.kill();
        assert!(cut_off.await.unwrap().is_err());
        daemon.start_again().await;
        began("DEL").await;
        let (mut client, asked) = (daemon.client().await, pod.clone());
        let again = tokio::spawn(async move { client.run_pod(&asked).await });
        // Whenever that is, it is right; most often it is asked by now.
        tokio::time::sleep(Duration::from_millis(100)).await;
        std::fs::write(machine.path("go"), "").unwrap();
        let id = again.await.unwrap().unwrap();
        let pods = daemon.client().await.pods().await;
        assert_eq!(pods.iter().map(|pod| &pod.id).collect::<Vec<_>>(), [&id]);
    });
}

#[test]
fn a_cut_off_creation_is_asked_for_again() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let image = machine.image("busybox");
        client.pull(&image).await.unwrap();
        let pod = Pod::new(machine, "cut");
        let id = client.run_pod(&pod).await.unwrap();
        for round in 0..ROUNDS {
            let named = || Container::shell(&format!("c{round}"), &image, "exec sleep 1000");
            let (mut client, asked, container) = (daemon.client().await, pod.clone(), named());
            let sandbox = id.clone();
            cut_off(
                daemon,
                round,
                async move { client.create(&sandbox, &asked, &container).await },
            )
            .await;
            let mut client = daemon.client().await;
            if round % 3 == 0 {
                continue;
            }
            let container = client.create(&id, &pod, &named()).await.unwrap();
            client.start(&container).await.unwrap();
            client.shell(&container, "true").await;
            let (name, mut found) = (format!("c{round}"), client.containers().await);
            found.retain(|there| there.metadata.as_ref().is_some_and(|data| data.name == name));
            assert_eq!(found.len(), 1, "{found:?}");
            client.remove(&container).await.unwrap();
        }
    });
}

#[test]
fn a_cut_off_command_ends_and_others_follow() {
    /// More than comes with the answer of a shim.
    const SCRIPT: &str = "sleep 0.03; head -c 20000 /dev/zero";
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let image = machine.image("busybox");
        client.pull(&image).await.unwrap();
        let pod = Pod::new(machine, "commands");
        let id = client.run_pod(&pod).await.unwrap();
        let container = Container::shell("main", &image, "exec sleep 1000");
        let main = client.run(&id, &pod, &container).await.unwrap();
        let running = processes(machine, &id, &main);
        for round in (0..ROUNDS).step_by(2) {
            // With a time limit it has a group of its own.
            let limit = if round % 4 == 0 { 0 } else { 30 };
            let (mut client, of) = (daemon.client().await, main.clone());
            let command = async move { client.exec(&of, &["sh", "-c", SCRIPT], limit).await };
            cut_off(daemon, round, command).await;
            let mut client = daemon.client().await;
            let (code, said, _) = client.exec(&main, &["echo", "next"], limit).await.unwrap();
            assert_eq!((code, said.as_str()), (0, "next\n"), "round {round}");
            until("the command has ended", async || {
                (processes(machine, &id, &main) == running).then_some(())
            })
            .await;
        }
    });
}

#[test]
fn a_cut_off_pull_is_asked_for_again() {
    Machine::run(async |machine, daemon| {
        let image = machine.image("nginx");
        for round in 0..ROUNDS {
            let (mut client, asked) = (daemon.client().await, image.clone());
            cut_off(daemon, round, async move { client.pull(&asked).await }).await;
            let mut client = daemon.client().await;
            let id = client.pull(&image).await.unwrap();
            let images = client.images.list_images(cri::ListImagesRequest::default()).await;
            assert_eq!(images.unwrap().into_inner().images.len(), 1);
            let image = Some(cri::ImageSpec { image: id, ..Default::default() });
            client.images.remove_image(cri::RemoveImageRequest { image }).await.unwrap();
        }
    });
}
