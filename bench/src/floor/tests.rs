//! A pod of the kernel alone lives, leaves nothing, and is the pod of others.

use std::path::PathBuf;

use corten_spec::oci::Spec;
use corten_tests::client::{Container, Pod};
use corten_tests::{Daemon, Machine};

use super::*;
use crate::runtimes::confine;

#[test]
fn a_pod_lives_and_leaves_nothing() {
    let mut asked = Vec::new();
    for pool in [Pool::Ahead, Pool::Within] {
        say(&mut asked, &pool).expect("it is written");
    }
    let below = tempfile::tempdir().expect("a directory");
    let mut answers = Vec::new();
    serve(below.path(), &asked[..], &mut answers).expect("pods");
    let mut answers = &answers[..];
    for _ in 0..2 {
        let told = hear::<Told>(&mut answers).expect("an answer").expect("a second one");
        let life = told.expect("a pod");
        let times = [life.sandbox, life.create, life.start, life.exec, life.down];
        assert!(times.iter().all(|time| *time > 0.0), "{life:?}");
    }
    assert_eq!(std::fs::read_dir(below.path()).expect("a list").count(), 0);
    let group = cgroup_name();
    assert!(!Cgroups::probe().expect("cgroups").exists(&group).expect("a path"), "{group}");
}

/// What the floor leaves out, it must not leave out by mistake.
#[test]
fn its_container_is_the_one_that_the_daemon_makes() {
    Machine::run(async |machine, daemon| {
        let theirs = of_daemon(machine, daemon).await;
        let cgroups = Cgroups::probe().expect("cgroups");
        let ours = plan::spec(&cgroups, PASSWD, GROUP).expect("a spec");
        let text = |spec: Spec| serde_json::to_string_pretty(&without_names(spec)).expect("JSON");
        let (ours, theirs) = (text(ours), text(theirs));
        let differ = ours.lines().zip(theirs.lines()).find(|(ours, theirs)| ours != theirs);
        assert_eq!(differ, None);
        assert_eq!(ours.len(), theirs.len());
    });
}

/// The spec of a container like those of the bench.
async fn of_daemon(machine: &Machine, daemon: &mut Daemon) -> Spec {
    let mut client = daemon.client().await;
    let image = machine.image("busybox");
    client.pull(&image).await.expect("an image");
    let pod = Pod::new(machine, "floor");
    let mut container = Container::new("main", &image, &["sleep", "1000000"]);
    confine(&mut container);
    container.linux().resources = Some(corten_api::cri::LinuxContainerResources {
        cpu_shares: pod::CPU_SHARES as i64,
        memory_limit_in_bytes: pod::MEMORY_BYTES,
        oom_score_adj: pod::OOM_SCORE_ADJ.into(),
        ..Default::default()
    });
    let id = client.run_pod(&pod).await.expect("a pod");
    client.create(&id, &pod, &container).await.expect("a container");
    let file = find(machine.path("state"), "spec.json").expect("a spec");
    serde_json::from_slice(&std::fs::read(file).expect("a file")).expect("a spec")
}

fn find(directory: PathBuf, name: &str) -> Option<PathBuf> {
    std::fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path()).find_map(|path| {
        let is_it = path.file_name().is_some_and(|there| there == name);
        if is_it { Some(path) } else { find(path, name) }
    })
}

/// But for ids, paths, and where the pod's name is set.
fn without_names(mut spec: Spec) -> Spec {
    spec.annotations.clear();
    spec.hostname.clear();
    for mount in spec.mounts.iter_mut().filter(|mount| mount.is_bind()) {
        mount.source.clear();
    }
    let linux = spec.linux.get_or_insert_default();
    linux.cgroups_path.clear();
    for namespace in linux.namespaces.iter_mut().filter(|one| !one.path.is_empty()) {
        namespace.path = "joined".into();
    }
    spec
}
