//! Containers that are frozen into files and go on elsewhere, where the
//! machine has a CRIU that can work on its kernel.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use corten_api::cri::{self, ContainerState};
use corten_tests::client::Pod;
use corten_tests::machine::Settings;
use corten_tests::{Machine, Scene, until};
use tonic::Code;

fn settings(criu: &Path) -> Settings {
    Settings {
        builtin_network: true,
        configuration: format!("[checkpoint]\ncriu = '{}'\n", criu.display()),
        ..Settings::default()
    }
}

/// A CRIU that works here; `CORTEN_CRIU` says where, if it is not in its place.
fn criu() -> Option<PathBuf> {
    let named = std::env::var_os("CORTEN_CRIU");
    let program = named.clone().unwrap_or("/usr/sbin/criu".into());
    let works = Command::new(&program).arg("check").output().is_ok_and(|out| out.status.success());
    if !works {
        assert!(named.is_none(), "the criu that was named cannot work on this kernel");
        eprintln!("passed over: there is no criu that can work on this kernel");
    }
    works.then(|| program.into())
}

#[test]
fn without_a_criu_that_works_the_cause_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let broken = directory.path().join("criu");
    fs::write(&broken, "#!/bin/sh\necho 'Error: the vDSO is a stranger' >&2\nexit 1\n").unwrap();
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).unwrap();
    for (criu, cause) in [(broken, "the vDSO is a stranger"), ("/no/such".into(), "/no/such")] {
        Machine::run_with(settings(&criu), async |machine, daemon| {
            let mut scene = Scene::new(machine, daemon, |_| {}).await;
            let main = scene.idle(|_| {}).await;
            let runtime = &mut scene.client.runtime;
            let location = machine.path("archive.tar").display().to_string();
            let request = cri::CheckpointContainerRequest {
                container_id: main.clone(),
                location: location.clone(),
                timeout: 0,
            };
            let container = runtime.checkpoint_container(request).await.unwrap_err();
            let request = cri::CheckpointPodRequest {
                pod_sandbox_id: scene.id.clone(),
                output_path: location.clone(),
                container_ids: vec![main],
                ..Default::default()
            };
            let pod = runtime.checkpoint_pod(request.clone()).await.unwrap_err();
            let options = [("fast".to_owned(), "yes".to_owned())].into();
            let unknown = cri::CheckpointPodRequest { options, ..request.clone() };
            let unknown = runtime.checkpoint_pod(unknown).await.unwrap_err();
            assert_eq!(unknown.code(), Code::InvalidArgument, "{unknown}");
            let nobody = cri::CheckpointPodRequest { pod_sandbox_id: "f00".into(), ..request };
            assert_eq!(runtime.checkpoint_pod(nobody).await.unwrap_err().code(), Code::NotFound);
            let request = cri::RestorePodRequest {
                checkpoint_path: location,
                config: Some(Pod::new(machine, "restored").config),
                ..Default::default()
            };
            let restored = runtime.restore_pod(request).await.unwrap_err();
            for error in [container, pod, restored] {
                assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
                assert!(error.message().contains(cause), "{error}");
            }
        });
    }
}

/// Counts, and remembers in a file where it began.
const COUNT: &str = "trap 'echo bye; exit 7' TERM; echo begun >> /began; i=0; \
    while :; do i=$((i+1)); echo $i > /dev/shm/count-$HOSTNAME; echo $i; sleep 0.01; done";

fn last(text: &str) -> u32 {
    text.lines().filter_map(|line| line.parse().ok()).next_back().unwrap_or(0)
}

#[test]
fn a_container_goes_on_after_its_checkpoint() {
    let Some(criu) = criu() else { return };
    Machine::run_with(settings(&criu), async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let container = scene.shell(COUNT);
        let main = scene.start(&container).await.unwrap();
        scene.logged(&container, "3").await;
        let location = machine.path("archive.tar");
        let request = cri::CheckpointContainerRequest {
            container_id: main.clone(),
            location: location.display().to_string(),
            timeout: 30,
        };
        scene.client.runtime.checkpoint_container(request).await.unwrap();
        assert_eq!(fs::metadata(&location).unwrap().mode() & 0o777, 0o600);
        let list = Command::new("tar").arg("-tf").arg(&location).output().unwrap().stdout;
        let list = String::from_utf8(list).unwrap();
        for name in
            ["spec.dump", "config.dump", "rootfs-diff.tar", "dump.log", "checkpoint/pstree.img"]
        {
            assert!(list.lines().any(|line| line == name), "{name} is not in {list}");
        }
        assert!(!location.with_extension("part").exists());
        let then = last(&scene.log_of(&container));
        until("it counts on", async || (last(&scene.log_of(&container)) > then).then_some(()))
            .await;
        // One with a terminal cannot be captured, and says so.
        let terminal = scene.idle(|container| container.config.tty = true).await;
        let request = cri::CheckpointContainerRequest {
            container_id: terminal,
            location: machine.path("other.tar").display().to_string(),
            timeout: 0,
        };
        let error = scene.client.runtime.checkpoint_container(request).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert!(error.message().contains("terminal"), "{error}");
    });
}

#[test]
fn a_pod_goes_on_as_another() {
    let Some(criu) = criu() else { return };
    Machine::run_with(settings(&criu), async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let one = scene.shell(COUNT);
        let two = scene.shell("echo two; exec sleep 1000");
        let mut ids = vec![scene.start(&one).await.unwrap(), scene.start(&two).await.unwrap()];
        scene.logged(&one, "5").await;
        scene.logged(&two, "two").await;
        let output = machine.path("checkpoint");
        fs::create_dir(&output).unwrap();
        let request = cri::CheckpointPodRequest {
            pod_sandbox_id: scene.id.clone(),
            output_path: output.display().to_string(),
            container_ids: ids[..1].to_vec(),
            ..Default::default()
        };
        let error = scene.client.runtime.checkpoint_pod(request.clone()).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "not all were named: {error}");
        let request = cri::CheckpointPodRequest { container_ids: ids.clone(), ..request };
        scene.client.runtime.checkpoint_pod(request).await.unwrap();
        assert_eq!(fs::read_dir(&output).unwrap().count(), 3);
        let then = last(&scene.log_of(&one));
        until("it counts on", async || (last(&scene.log_of(&one)) > then).then_some(())).await;
        scene.client.remove_pod(&scene.id).await.unwrap();

        let pod = Pod::new(machine, "restored");
        let mut request = cri::RestorePodRequest {
            checkpoint_path: output.display().to_string(),
            config: Some(pod.config.clone()),
            container_configs: vec![one.config.clone()],
            ..Default::default()
        };
        let error = scene.client.runtime.restore_pod(request.clone()).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "one is missing: {error}");
        request.container_configs.push(two.config.clone());
        let restored = scene.client.runtime.restore_pod(request).await.unwrap().into_inner();
        fs::remove_dir_all(&output).unwrap();
        scene.pod = pod;
        let names: Vec<_> =
            restored.restored_containers.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["c1", "c2"]);
        ids = restored.restored_containers.into_iter().map(|one| one.container_id).collect();
        for id in &ids {
            assert_eq!(
                scene.client.status(id).await.unwrap().state(),
                ContainerState::ContainerCreated
            );
        }
        // The daemon may come and go in between.
        daemon.restart().await;
        scene.client = daemon.client().await;
        for id in &ids {
            let started = scene.client.start(id).await;
            assert!(
                started.is_ok(),
                "{started:?} {:?} {:?}",
                scene.log_of(&one),
                scene.log_of(&two)
            );
        }
        until("it counts on", async || (last(&scene.log_of(&one)) > 5).then_some(())).await;
        let first = scene.log_of(&one).lines().find_map(|line| line.parse::<u32>().ok()).unwrap();
        assert!(first >= 5, "it went on at {first}");
        // Its files, its place in the new pod's namespaces, its cgroup.
        let look = "cat /began; hostname; cat /proc/1/comm; ls /sys/class/net | tr '\n' ' '; \
            cut -d: -f3 /proc/self/cgroup | grep -v exec | sort -u";
        assert_eq!(scene.client.shell(&ids[0], look).await, "begun\nrestored\nsh\neth0 lo /\n");
        scene.client.stop(&ids[0], 20).await.unwrap();
        assert_eq!(scene.client.status(&ids[0]).await.unwrap().exit_code, 7);
        assert!(scene.log_of(&one).ends_with("bye\n"));
        let status = scene.client.status(&ids[1]).await.unwrap();
        assert_eq!(status.state(), ContainerState::ContainerRunning);
        scene.client.remove_pod(&restored.pod_sandbox_id).await.unwrap();
    });
}
