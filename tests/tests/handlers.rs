//! Runtime handlers: a pod may have another OCI runtime make its containers,
//! and everything else stays as it is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use corten_api::cri::{self, ContainerState, NamespaceMode};
use corten_tests::client::{Container, Pod};
use corten_tests::machine::Settings;
use corten_tests::{Daemon, Machine, Scene, until};
use tonic::Code;

const IDS: cri::IdMapping = cri::IdMapping { host_id: 200_000, container_id: 0, length: 65_536 };

/// A machine with runc and crun, and more lines of configuration.
fn settings(configuration: &str) -> Settings {
    Settings {
        builtin_network: true,
        without_unified: true,
        oci_runtimes: true,
        configuration: configuration.to_owned(),
    }
}

/// Runs a test with each OCI runtime that is installed.
fn each(test: impl AsyncFn(&Machine, &mut Daemon, &str) + Send + Sync) {
    Machine::run_with(settings(""), async |machine, daemon| {
        for handler in ["runc", "crun"] {
            if Command::new(handler).arg("--version").output().is_err() {
                eprintln!("passed over: there is no {handler} on this machine");
                continue;
            }
            test(machine, daemon, handler).await;
            let known = machine.path("state/runtimes").join(handler);
            until("the runtime has forgotten everything", async || {
                entries(&known).is_empty().then_some(())
            })
            .await;
        }
    });
}

fn entries(directory: &Path) -> Vec<String> {
    let Ok(read) = fs::read_dir(directory) else { return Vec::new() };
    read.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

async fn scene(
    machine: &Machine,
    daemon: &Daemon,
    handler: &str,
    change: impl FnOnce(&mut Pod),
) -> Scene {
    Scene::named(machine, daemon, handler, |pod| {
        pod.handler = handler.to_owned();
        change(pod);
    })
    .await
}

#[test]
fn a_life() {
    each(async |machine, daemon, handler| {
        let mut scene = scene(machine, daemon, handler, |_| {}).await;
        let script = "trap 'echo bye >&2; exit 7' TERM; echo up; while :; do sleep 0.01; done";
        let container = scene.shell(script);
        let main = scene.start(&container).await.unwrap();
        scene.logged(&container, "up").await;
        assert_eq!(scene.client.shell(&main, "cat /proc/1/comm").await, "sh\n");
        let exec = ["sh", "-c", "echo out; echo err >&2; exit 3"];
        let said = scene.client.exec(&main, &exec, 10).await.unwrap();
        assert_eq!(said, (3, "out\n".to_owned(), "err\n".to_owned()));
        let late = scene.client.exec(&main, &["sleep", "1000"], 1).await.unwrap_err();
        assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
        let error = scene.client.exec(&main, &["/no/such"], 10).await.unwrap_err();
        assert!(
            error.message().contains(handler) && error.message().contains("/no/such"),
            "{error}"
        );

        // Nothing of it depends on the daemon.
        let before = scene.client.status(&main).await.unwrap();
        daemon.restart().await;
        scene.client = daemon.client().await;
        assert_eq!(scene.client.status(&main).await.unwrap(), before);
        assert_eq!(scene.client.shell(&main, "echo again").await, "again\n");
        scene.client.stop(&main, 20).await.unwrap();
        let status = scene.client.status(&main).await.unwrap();
        assert_eq!((status.exit_code, status.reason.as_str()), (7, "Error"));
        assert_eq!(scene.log_of(&container), "up\nbye\n");
        // What calls read and wrote in the meantime is gone.
        let bundle = machine.path("state/sandboxes").join(&scene.id).join("containers").join(&main);
        let left = entries(&bundle).into_iter().filter(|name| name.starts_with("exec-")).count();
        assert_eq!(left, 0);
        scene.client.remove(&main).await.unwrap();

        // One that ends at once, and one that cannot begin.
        let status =
            scene.run(&Container::shell("short", &scene.image.clone(), "exit 5")).await.status;
        assert_eq!((status.exit_code, status.reason.as_str()), (5, "Error"));
        assert!(status.started_at > 0 && status.finished_at >= status.started_at);
        let container = Container::new("none", &scene.image, &["/no/such"]);
        let id = scene.client.create(&scene.id, &scene.pod, &container).await.unwrap();
        let error = scene.client.start(&id).await.unwrap_err();
        assert!(error.message().contains("/no/such"), "{error}");
        let status = scene.client.ended(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
        // A running one goes with its pod.
        scene.idle(|_| {}).await;
        scene.client.stop_pod(&scene.id).await.unwrap();
        scene.client.remove_pod(&scene.id).await.unwrap();
    });
}

#[test]
fn the_daemon_dies_beside_containers_of_every_state() {
    each(async |machine, daemon, handler| {
        let mut scene = scene(machine, daemon, handler, |_| {}).await;
        let created = scene.shell("echo started; exec sleep 1000");
        let created = scene.client.create(&scene.id, &scene.pod, &created).await.unwrap();
        let running = scene.shell("read line < /go; exit 9");
        let running = scene.start(&running).await.unwrap();
        daemon.kill();
        daemon.start_again().await;
        scene.client = daemon.client().await;
        scene.client.start(&created).await.unwrap();
        let state = scene.client.status(&created).await.unwrap().state();
        assert_eq!(state, ContainerState::ContainerRunning);
        // The shell had no /go: it has ended, whoever listened.
        assert_eq!(scene.client.ended(&running).await.exit_code, 9);
        // Without its shim a pod is down, and the runtime is told.
        let shim = corten_tests::drift::shims(machine).pop().unwrap().parse().unwrap();
        let shim = rustix::process::Pid::from_raw(shim).unwrap();
        rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
        assert_eq!(scene.client.ended(&created).await.exit_code, 255);
        scene.client.stop_pod(&scene.id).await.unwrap();
        scene.client.remove_pod(&scene.id).await.unwrap();
    });
}

#[test]
fn namespaces_and_mounts_of_the_pod() {
    each(async |machine, daemon, handler| {
        let volume = machine.path(&format!("volume-{handler}"));
        fs::create_dir_all(volume.join("below")).unwrap();
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o755)).unwrap();
        let mut scene = scene(machine, daemon, handler, |pod| {
            pod.namespaces().pid = NamespaceMode::Pod.into();
        })
        .await;
        let shared = |container: &mut Container| {
            let options = container.security().namespace_options.get_or_insert_default();
            options.pid = NamespaceMode::Pod.into();
        };
        let main = scene.idle(shared).await;
        // One PID namespace, one /dev/shm, one host name for all of the pod.
        let text = scene
            .client
            .shell(&main, "echo here > /dev/shm/note; hostname; ls /sys/class/net | tr '\n' ' '")
            .await;
        assert_eq!(text, format!("{handler}\neth0 lo "));
        let look = "cat /dev/shm/note; ps | grep -c '[s]leep 1000'; cat /proc/1/comm";
        assert_eq!(scene.says(look, shared).await, "here\n1\ncorten-init\n");
        // Read-only all the way down, whatever the runtime knows of it.
        let mount = cri::Mount {
            container_path: "/volume".into(),
            host_path: volume.display().to_string(),
            readonly: true,
            recursive_read_only: true,
            ..Default::default()
        };
        rustix::mount::mount(
            "tmpfs",
            volume.join("below"),
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            None,
        )
        .unwrap();
        let text = scene
            .says(
                "for at in /volume /volume/below; do touch $at/x 2>/dev/null || echo closed; done",
                |c| {
                    shared(c);
                    c.config.mounts = vec![mount];
                },
            )
            .await;
        rustix::mount::unmount(volume.join("below"), rustix::mount::UnmountFlags::DETACH).unwrap();
        assert_eq!(text, "closed\nclosed\n");
        scene.client.remove_pod(&scene.id).await.unwrap();
    });
}

#[test]
fn a_pod_in_a_user_namespace() {
    each(async |machine, daemon, handler| {
        let users = cri::UserNamespace {
            mode: NamespaceMode::Pod.into(),
            uids: vec![IDS],
            gids: vec![IDS],
        };
        let mut scene = scene(machine, daemon, handler, |pod| {
            pod.namespaces().userns_options = Some(users.clone());
        })
        .await;
        let volume = machine.path(&format!("volume-{handler}"));
        fs::create_dir(&volume).unwrap();
        let text = scene
            .says(
                "cat /proc/self/uid_map | tr -s ' '; stat -c %u /bin/busybox /volume; id -u",
                |c| {
                    let options = c.security().namespace_options.get_or_insert_default();
                    options.userns_options = Some(users.clone());
                    c.config.mounts = vec![cri::Mount {
                        container_path: "/volume".into(),
                        host_path: volume.display().to_string(),
                        uid_mappings: vec![IDS],
                        gid_mappings: vec![IDS],
                        ..Default::default()
                    }];
                },
            )
            .await;
        assert_eq!(text, " 0 200000 65536\n0\n0\n0\n");
        scene.client.remove_pod(&scene.id).await.unwrap();
    });
}

/// A runtime that is a script: it says what it is told, and does not help.
fn script(machine_path: &Path, text: &str) -> String {
    let path = machine_path.join("runtime");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[test]
fn what_goes_wrong_is_said_and_can_be_removed() {
    let directory = tempfile::tempdir().unwrap();
    // `--root R --log L --log-format json create …`
    let fails = r#"case "$*" in
        *" create "*) echo '{"level":"error","msg":"the moon is full"}' >> "$4"; exit 3;;
        *) exit 1;; esac"#;
    let fails = script(directory.path(), fails);
    let second = tempfile::tempdir().unwrap();
    let hangs = script(second.path(), r#"case "$*" in *" create "*) exec sleep 1000;; esac"#);
    let configuration = format!(
        "[runtimes.fails]\npath = '{fails}'\n[runtimes.hangs]\npath = '{hangs}'\n\
         [runtimes.gone]\npath = '/no/such'\n"
    );
    Machine::run_with(settings(&configuration), async |machine, daemon| {
        let mut client = daemon.client().await;
        let mut pod = Pod::new(machine, "none");
        pod.handler = "kata".into();
        let error = client.run_pod(&pod).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(
            error.message().contains("\"kata\"") && error.message().contains("runc"),
            "{error}"
        );
        pod.handler = "gone".into();
        let error = client.run_pod(&pod).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert!(error.message().contains("/no/such"), "{error}");

        let mut scene = scene(machine, daemon, "fails", |_| {}).await;
        let error = scene.refused(|_| {}).await;
        assert!(error.contains("the moon is full"), "{error}");
        scene.client.remove_pod(&scene.id).await.unwrap();

        // One that never answers holds up nobody else, and can be removed.
        let mut scene = self::scene(machine, daemon, "hangs", |_| {}).await;
        let container = scene.shell("true");
        let id = scene.client.create(&scene.id, &scene.pod, &container).await.unwrap();
        let starting = tokio::spawn({
            let (mut client, id) = (scene.client.clone(), id.clone());
            async move { client.start(&id).await }
        });
        scene.client.stop_pod(&scene.id).await.unwrap();
        starting.await.unwrap().unwrap_err();
        scene.client.remove_pod(&scene.id).await.unwrap();
    });
}

#[test]
fn handlers_are_announced_and_let_annotations_through() {
    let configuration = "[runtimes.corten]\npod_annotations = ['io.example.*']\n\
        container_annotations = ['only.this']\nprivileged_without_host_devices = true\n";
    Machine::run_with(settings(configuration), async |machine, daemon| {
        let mut client = daemon.client().await;
        let status = client.runtime.status(cri::StatusRequest::default()).await.unwrap();
        let handlers = status.into_inner().runtime_handlers;
        let names: Vec<_> = handlers.iter().map(|handler| handler.name.as_str()).collect();
        assert_eq!(names, ["", "corten", "crun", "runc"]);
        assert!(
            handlers
                .iter()
                .all(|handler| handler.features.is_some_and(|f| f.recursive_read_only_mounts))
        );

        let mut scene = Scene::new(machine, daemon, |pod| {
            let annotations = [("io.example.a", "1"), ("io.other", "2")];
            pod.config.annotations = annotations.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
            let linux = pod.config.linux.get_or_insert_default();
            linux.security_context.get_or_insert_default().privileged = true;
        })
        .await;
        let main = scene
            .idle(|container| {
                container.security().privileged = true;
                let annotations = [("only.this", "3"), ("only.this.not", "4")];
                container.config.annotations =
                    annotations.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
            })
            .await;
        let spec =
            machine.path(&format!("state/sandboxes/{}/containers/{main}/spec.json", scene.id));
        let spec: serde_json::Value = serde_json::from_slice(&fs::read(spec).unwrap()).unwrap();
        let annotations = spec["annotations"].as_object().unwrap();
        assert_eq!(
            (&annotations["io.example.a"], &annotations["only.this"]),
            (&"1".into(), &"3".into())
        );
        assert!(
            !annotations.contains_key("io.other") && !annotations.contains_key("only.this.not")
        );
        // Fewer devices than the host has; a privileged one would have all.
        let devices = scene.client.shell(&main, "ls /dev").await;
        assert!(!devices.contains("loop-control") && devices.contains("null"), "{devices}");
    });
}
