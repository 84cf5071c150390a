//! Hard cases: what pods do to a runtime.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use corten_api::cri;
use corten_tests::client::{log_lines, log_path};
use corten_tests::fuse::HangingDisk;
use corten_tests::{Machine, Scene, until};
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use tonic::Code;

#[test]
fn a_script_as_the_command() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let scripts = machine.path("scripts");
        fs::create_dir_all(&scripts).unwrap();
        let script = |name: &str, text: &str, mode: u32| {
            let path = scripts.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        script("good", "#!/bin/sh -e\necho \"$0 got $*\"\n", 0o755);
        script("lost", "#!/no/such/interpreter\n", 0o755);
        script("plain", "echo no interpreter\n", 0o755);
        script("closed", "#!/bin/sh\n", 0o644);
        let mount = cri::Mount {
            container_path: "/s".into(),
            host_path: scripts.display().to_string(),
            ..Default::default()
        };
        let command = |name: &str| {
            let command = vec![name.to_owned(), "one".into(), "two words".into()];
            let mount = mount.clone();
            move |c: &mut corten_tests::client::Container| {
                c.config.command = command;
                c.config.mounts = vec![mount];
            }
        };
        assert_eq!(scene.says("", command("/s/good")).await, "/s/good got one two words\n");
        for (name, reason) in [
            ("/s/lost", "No such file"),
            ("/s/plain", "xec format"),
            ("/s/closed", "ermission denied"),
            ("/s/absent", "No such file"),
            ("absent-too", "absent-too"),
            ("/s", "ermission denied"),
        ] {
            let error = scene.refused(command(name)).await;
            assert!(error.contains(reason) && error.contains(name), "{name}: {error}");
        }
        // By its name alone, found by the PATH of the container.
        let mut by_name = scene.shell("");
        command("good")(&mut by_name);
        by_name.config.envs =
            vec![cri::KeyValue { key: "PATH".into(), value: "/nowhere:/s:/bin".into() }];
        assert_eq!(scene.run(&by_name).await.text, "/s/good got one two words\n");
    });
}

#[test]
fn a_large_environment() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let many: Vec<cri::KeyValue> = (0..2000)
            .map(|n| cri::KeyValue {
                key: format!("SERVICE_{n}"),
                value: "v".repeat(512).into_bytes().into(),
            })
            .collect();
        let id = scene.idle(|c| c.config.envs = many.clone()).await;
        let count = "env | grep -c '^SERVICE_'; echo ${#SERVICE_1999}; env | wc -c";
        let text = scene.client.shell(&id, count).await;
        let numbers: Vec<usize> = text.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(numbers[..2], [2000, 512]);
        assert!(numbers[2] > 1 << 20, "{numbers:?}");
        // Bytes that are no text arrive as they are.
        let raw = cri::KeyValue { key: "RAW".into(), value: vec![0xff, 0xfe, b'\n', 1].into() };
        let text =
            scene.says("printf %s \"$RAW\" | od -An -tx1", |c| c.config.envs = vec![raw]).await;
        assert_eq!(text.trim(), "ff fe 0a 01");
        // One that the kernel does not take.
        let long = cri::KeyValue { key: "LONG".into(), value: vec![b'x'; 200 << 10].into() };
        let error = scene.refused(|c| c.config.envs = vec![long]).await;
        assert!(error.contains("too long") || error.contains("too big"), "{error}");
    });
}

/// Run by the test below, in a mount namespace of its own.
#[test]
#[ignore = "makes thousands of mounts: run in its own mount namespace by the next test"]
fn a_pod_among_many_mounts() {
    Machine::run(async |machine, daemon| {
        let many = machine.path("many");
        fs::create_dir(&many).unwrap();
        mount_bind(&many, &many).unwrap();
        mount_change(&many, MountPropagationFlags::PRIVATE).unwrap();
        fs::write(many.join("source"), "").unwrap();
        for n in 0..5000 {
            let target = many.join(n.to_string());
            fs::write(&target, "").unwrap();
            mount_bind(many.join("source"), &target).unwrap();
        }
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let host = cri::Mount {
            container_path: "/host".into(),
            host_path: many.join("0").display().to_string(),
            ..Default::default()
        };
        let text =
            scene.says("wc -l < /proc/self/mountinfo", |c| c.config.mounts = vec![host]).await;
        assert!(
            text.trim().parse::<u32>().unwrap() < 100,
            "the host's mounts are not inside: {text}"
        );
        let id = scene.idle(|_| {}).await;
        assert_eq!(scene.client.shell(&id, "echo works").await, "works\n");
        scene.client.remove_pod(&scene.id.clone()).await.unwrap();
        rustix::mount::unmount(&many, rustix::mount::UnmountFlags::DETACH).unwrap();
    });
}

#[test]
fn a_host_with_thousands_of_mounts() {
    // Binaries are built before, so that the inner run has nothing to build.
    let programs = corten_tests::binaries::directory();
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "a_pod_among_many_mounts"])
        .env("CORTEN_PROGRAMS", programs)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn a_log_disk_that_hangs() {
    Machine::run(async |machine, daemon| {
        let disk = HangingDisk::mount(&machine.path("slow"));
        let logs = machine.path("slow").display().to_string();
        let mut scene = Scene::new(machine, daemon, |pod| pod.config.log_directory = logs).await;
        let loud = scene.shell("while true; do echo line after line after line; done");
        let loud = scene.start(&loud).await.unwrap();
        until("a write hangs", async || (disk.hanging() > 0).then_some(())).await;

        // All else goes on: execs, other containers, ends, kills.
        assert_eq!(scene.client.shell(&loud, "echo works").await, "works\n");
        let quick = scene.shell("echo said; exit 3");
        let quick = scene.start(&quick).await.unwrap();
        assert_eq!(scene.client.ended(&quick).await.exit_code, 3);
        scene.client.stop(&loud, 1).await.unwrap();
        assert_eq!(scene.client.ended(&loud).await.exit_code, 137);
        let other = scene.idle(|_| {}).await;
        let error = scene.client.exec(&other, &["sleep", "100"], 1).await.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded);
        scene.client.remove(&loud).await.unwrap();
        // Another pod does not notice.
        let mut neighbour = Scene::named(machine, daemon, "neighbour", |_| {}).await;
        assert_eq!(neighbour.says("echo fine", |_| {}).await, "fine\n");
        assert!(disk.hanging() > 0, "it hung all the time");
        disk.release();
        until("the log is written", async || (disk.written() > 0).then_some(())).await;
        scene.client.stop_pod(&scene.id.clone()).await.unwrap();
        scene.client.remove_pod(&scene.id.clone()).await.unwrap();
    });
}

#[test]
fn a_pod_is_removed_while_its_log_disk_hangs() {
    Machine::run(async |machine, daemon| {
        let disk = HangingDisk::mount(&machine.path("slow"));
        let logs = machine.path("slow").display().to_string();
        let mut scene = Scene::new(machine, daemon, |pod| pod.config.log_directory = logs).await;
        let loud = scene.shell("while true; do echo line after line after line; done");
        scene.start(&loud).await.unwrap();
        until("a write hangs", async || (disk.hanging() > 0).then_some(())).await;
        // Its shim cannot end before the disk answers; all else of it can.
        let error = scene.client.stop_pod(&scene.id.clone()).await.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded);
        assert!(error.message().contains("disk of the pod's logs"), "{error}");
        assert!(pids_of(machine.cgroup()).is_empty(), "its containers are gone");
        let namespaces = fs::read_dir(machine.path("state/netns")).unwrap();
        let of_pod = |entry: &fs::DirEntry| entry.file_name() == scene.id.as_str();
        assert!(!namespaces.flatten().any(|entry| of_pod(&entry)), "its network is released");
        disk.release();
        scene.client.stop_pod(&scene.id.clone()).await.unwrap();
        scene.client.remove_pod(&scene.id.clone()).await.unwrap();
    });
}

/// Processes of pods below a machine's group; shims are not among them.
fn pids_of(group: &str) -> Vec<i32> {
    let cgroups = corten_kernel::cgroup::Cgroups::probe().unwrap();
    let pods = cgroups.children(group).unwrap().into_iter().filter(|name| name != "shims");
    let of = |pod| cgroups.open(&format!("{group}/{pod}")).unwrap().pids().unwrap();
    pods.flat_map(of).collect()
}

#[test]
fn orphans_of_an_exec() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |pod| {
            pod.namespaces().pid = cri::NamespaceMode::Node.into();
        })
        .await;
        let node = |c: &mut corten_tests::client::Container| {
            let options = c.security().namespace_options.get_or_insert_default();
            options.pid = cri::NamespaceMode::Node.into();
        };
        // With the host's processes nobody but the shim takes orphans.
        let id = scene.idle(node).await;
        let text = scene.client.shell(&id, "(sleep 0.2 & echo $!); echo $PPID").await;
        let pids: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
        until("the orphan is reaped", async || {
            (!Path::new(&format!("/proc/{}", pids[0])).exists()).then_some(())
        })
        .await;
        // One that lives on belongs to the container, and ends with it.
        let text = scene.client.shell(&id, "setsid sleep 3000 > /dev/null 2>&1 & echo $!").await;
        let orphan = format!("/proc/{}", text.trim());
        assert!(Path::new(&orphan).exists());
        scene.client.stop(&id, 0).await.unwrap();
        until("it ended", async || (!Path::new(&orphan).exists()).then_some(())).await;
    });
}

#[test]
fn many_execs_at_once() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let id = scene.idle(|_| {}).await;
        let mut running = tokio::task::JoinSet::new();
        for n in 0..50 {
            if running.len() == 8 {
                running.join_next().await.unwrap().unwrap();
            }
            let (mut client, id) = (scene.client.clone(), id.clone());
            running.spawn(async move {
                let script = format!("echo out {n}; echo err {n} >&2; exit {n}");
                let (code, stdout, stderr) =
                    client.exec(&id, &["/bin/sh", "-c", &script], n % 2 * 60).await.unwrap();
                assert_eq!(i64::from(code), n);
                assert_eq!((stdout, stderr), (format!("out {n}\n"), format!("err {n}\n")));
            });
        }
        while let Some(done) = running.join_next().await {
            done.unwrap();
        }
    });
}

#[test]
fn output_of_execs() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let id = scene.idle(|_| {}).await;
        // A grandchild that keeps the streams, silent or talking, holds nobody up.
        for keeper in ["sleep 600 &", "yes &"] {
            let script = format!("{keeper} echo done");
            let (code, stdout, _) =
                scene.client.exec(&id, &["/bin/sh", "-c", &script], 0).await.unwrap();
            assert_eq!(code, 0);
            assert!(stdout.contains("done\n"), "{keeper}");
        }
        // Too much is cut, and the writer gets to its end.
        let script = "head -c 20000000 /dev/zero | tr '\\0' x; echo end >&2; exit 7";
        let (code, stdout, stderr) =
            scene.client.exec(&id, &["/bin/sh", "-c", script], 0).await.unwrap();
        assert_eq!((code, stderr.as_str()), (7, "end\n"));
        let cut = 16 << 20;
        assert!((cut - 1024..=cut).contains(&stdout.len()), "{}", stdout.len());
        // A command that is not there is an error of the exec, not of the container.
        let error = scene.client.exec(&id, &["/no/such"], 0).await.unwrap_err();
        assert!(error.message().contains("/no/such"), "{error}");
        assert_eq!(scene.client.shell(&id, "echo still here").await, "still here\n");
    });
}

#[test]
fn long_lines_and_a_rotated_log() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        // 16 KiB are a line's most; the rest follows, marked.
        let long = scene.shell("head -c 40000 /dev/zero | tr '\\0' a; echo; printf no-newline");
        scene.run(&long).await;
        let lines = log_lines(&log_path(&scene.pod, &long));
        let shape: Vec<_> = lines.iter().map(|(_, tag, text)| (tag.as_str(), text.len())).collect();
        let part = 16 << 10;
        assert_eq!(shape[..3], [("P", part), ("P", part), ("F", 40_000 - 2 * part)]);
        assert_eq!((shape[3].1, shape.len()), (10, 4), "{shape:?}");

        // A writer that never waits, while its log is rotated under it.
        let writer = scene.shell("i=0; while [ $i -lt 60000 ]; do echo line $i; i=$((i+1)); done");
        let path = log_path(&scene.pod, &writer);
        let id = scene.start(&writer).await.unwrap();
        let mut old = Vec::new();
        for n in 0..5 {
            until("the log grows", async || {
                let ended = scene.client.clone().status(&id).await.unwrap().finished_at != 0;
                (ended || fs::metadata(&path).is_ok_and(|m| m.len() > 0)).then_some(())
            })
            .await;
            let rotated = path.with_extension(format!("log.{n}"));
            fs::rename(&path, &rotated).unwrap();
            old.push(rotated);
            let request = cri::ReopenContainerLogRequest { container_id: id.clone() };
            if scene.client.runtime.reopen_container_log(request).await.is_err() {
                break;
            }
        }
        assert_eq!(scene.client.ended(&id).await.exit_code, 0);
        old.push(path);
        let all: Vec<_> = old.iter().flat_map(|path| log_lines(path)).map(|line| line.2).collect();
        let wanted: Vec<_> = (0..60_000).map(|n| format!("line {n}")).collect();
        assert_eq!(all.len(), wanted.len());
        assert!(all == wanted, "every line once, in order");
    });
}

#[test]
fn stopping_who_does_not_listen() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let deaf = "trap '' TERM; echo ready; while true; do sleep 1; done";
        let container = scene.shell(deaf);
        let id = scene.start(&container).await.unwrap();
        scene.logged(&container, "ready").await;
        scene.client.stop(&id, 1).await.unwrap();
        assert_eq!(scene.client.status(&id).await.unwrap().exit_code, 137);

        // A second, shorter wish shortens the first.
        let container = scene.shell(deaf);
        let id = scene.start(&container).await.unwrap();
        scene.logged(&container, "ready").await;
        let (mut client, of) = (scene.client.clone(), id.clone());
        let patient = tokio::spawn(async move { client.stop(&of, 600).await });
        tokio::task::yield_now().await;
        let begun = Instant::now();
        scene.client.stop(&id, 1).await.unwrap();
        patient.await.unwrap().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(60));
        assert_eq!(scene.client.status(&id).await.unwrap().exit_code, 137);

        // Who listens ends by itself, with its own code; who has ended is stopped.
        let container =
            scene.shell("trap 'exit 9' TERM; echo ready; while true; do sleep 0.1; done");
        let id = scene.start(&container).await.unwrap();
        scene.logged(&container, "ready").await;
        scene.client.stop(&id, 30).await.unwrap();
        assert_eq!(scene.client.status(&id).await.unwrap().exit_code, 9);
        scene.client.stop(&id, 30).await.unwrap();
    });
}
