//! What people reach in running containers: files by `corten cp`, ports by
//! `corten port-forward`.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::process::Stdio;

use corten_api::cri::{IdMapping, NamespaceMode, UserNamespace};
use corten_tests::images::PAGE;
use corten_tests::scene::Scene;
use corten_tests::tool::{Tool, page};
use corten_tests::{Machine, until};

#[test]
fn files_go_in_and_come_out() {
    Machine::run(async |machine, daemon| {
        let corten = Tool::corten(machine, daemon);
        let image = machine.image("busybox");
        corten.run(&["run", "-q", "-d", "--name", "box", &image, "sleep", "1000"]);
        let inside = |script: &str| corten.run(&["exec", "box", "sh", "-c", script]);

        // A tree of everything that people have.
        let tree = machine.path("tree");
        fs::create_dir_all(tree.join("deep/er")).unwrap();
        fs::write(tree.join("deep/er/file"), vec![7; 300_000]).unwrap();
        fs::write(tree.join("script"), "#!/bin/sh\necho ran\n").unwrap();
        fs::set_permissions(tree.join("script"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("deep/er/file", tree.join("link")).unwrap();
        symlink("/nowhere", tree.join("dangling")).unwrap();
        std::os::unix::fs::chown(tree.join("script"), Some(4321), Some(4321)).unwrap();
        let long = "n".repeat(120);
        fs::write(tree.join(&long), "long").unwrap();

        corten.run(&["cp", "tree", "box:/tmp"]);
        assert_eq!(
            inside("cd /tmp/tree; ./script; wc -c < link; readlink dangling; stat -c %u script"),
            "ran\n300000\n/nowhere\n0"
        );
        // A name that is not there is what it becomes; /. is what is in it.
        corten.run(&["cp", "tree", "box:/other"]);
        corten.run(&["cp", "tree/.", "box:/made/anew"]);
        corten.run(&["cp", "-a", "tree/script", "box:/made/anew/"]);
        let seen = inside(&format!(
            "cat /other/{long}; ls /made/anew | wc -l; stat -c %u /made/anew/script"
        ));
        assert_eq!(seen, "long5\n4321");

        let out = machine.path("out");
        fs::create_dir(&out).unwrap();
        corten.run(&["cp", "box:/other", "out"]);
        corten.run(&["cp", "box:/other/.", "out/new"]);
        corten.run(&["cp", "box:/other/script", "out/renamed"]);
        for directory in ["other", "new"] {
            let copy = out.join(directory);
            assert_eq!(fs::read(copy.join("deep/er/file")).unwrap(), vec![7; 300_000]);
            assert_eq!(fs::read_link(copy.join("link")).unwrap().to_str(), Some("deep/er/file"));
            assert_eq!(fs::read_to_string(copy.join(&long)).unwrap(), "long");
        }
        assert_eq!(fs::metadata(out.join("renamed")).unwrap().mode() & 0o777, 0o755);
        // As an archive, through a pipe.
        let archive = corten.try_run(&["cp", "box:/other", "-"]).stdout;
        let mut again =
            corten.command(&["cp", "-", "box:/made"]).stdin(Stdio::piped()).spawn().unwrap();
        again.stdin.take().unwrap().write_all(&archive).unwrap();
        assert!(again.wait().unwrap().success());
        assert_eq!(inside("/made/other/script"), "ran");

        for (arguments, why) in [
            (["cp", "box:/nothing", "out"], "No such file"),
            (["cp", "tree", "box:/no/where/to"], "No such file"),
            (["cp", "missing", "box:/tmp"], "No such file"),
            (["cp", "tree", "box:/etc/passwd"], "directory"),
            (["cp", "nobody:/x", "out"], "no container"),
            (["cp", "tree", "out"], "CONTAINER:PATH"),
        ] {
            let said = corten.fails(&arguments);
            assert!(said.contains(why), "{arguments:?}: {said}");
        }
        corten.run(&["rm", "-f", "box"]);
        corten.run(&["rmi", &image]);
    });
}

/// What a container has made of its files leads nowhere else.
#[test]
fn links_of_a_container_stay_in_it() {
    Machine::run(async |machine, daemon| {
        let corten = Tool::corten(machine, daemon);
        let image = machine.image("busybox");
        let secret = machine.path("secret");
        fs::create_dir(&secret).unwrap();
        fs::write(secret.join("file"), "the host's").unwrap();
        let host = secret.display().to_string();
        let volume = machine.path("volume");
        fs::create_dir(&volume).unwrap();
        let mount = format!("{}:/volume", volume.display());
        let script = format!(
            "ln -s {host} /away; ln -s /../../../..{host} /up; ln -s /proc/1/root/.. /magic; \
             ln -s {host}/file /file; mkfifo /fifo; exec sleep 1000"
        );
        corten
            .run(&["run", "-q", "-d", "--name", "trap", "-v", &mount, &image, "sh", "-c", &script]);
        let made = until("the links are made", async || {
            corten.try_run(&["exec", "trap", "test", "-p", "/fifo"]).status.success().then_some(())
        });
        made.await;
        fs::write(machine.path("ours"), "ours").unwrap();
        for source in ["trap:/away/file", "trap:/up/file", "trap:/magic/etc/hostname"] {
            corten.fails(&["cp", source, "stolen"]);
        }
        corten.fails(&["cp", "-L", "trap:/file", "stolen"]);
        assert!(!machine.path("stolen").exists());
        for destination in ["trap:/away", "trap:/up/file", "trap:/file"] {
            corten.try_run(&["cp", "ours", destination]);
        }
        assert_eq!(fs::read_to_string(secret.join("file")).unwrap(), "the host's");
        assert_eq!(fs::read_dir(&secret).unwrap().count(), 1);
        // Neither pipes nor the kernel's files hold us up; volumes are there.
        fs::write(volume.join("shared"), "volume").unwrap();
        corten.run(&["cp", "trap:/", "whole"]);
        let whole = machine.path("whole");
        assert_eq!(fs::read_to_string(whole.join("volume/shared")).unwrap(), "volume");
        assert_eq!(fs::read_dir(whole.join("proc")).unwrap().count(), 0);
        corten.run(&["cp", "ours", "trap:/volume"]);
        assert_eq!(fs::read_to_string(volume.join("ours")).unwrap(), "ours");
        corten.run(&["rm", "-f", "trap"]);
        assert!(corten.fails(&["cp", "trap:/etc", "."]).contains("no container"));
        corten.run(&["rmi", &image]);
    });
}

/// In a user namespace, the container's root owns what comes in.
#[test]
fn owners_are_those_of_the_containers_namespace() {
    Machine::run(async |machine, daemon| {
        let mappings = || vec![IdMapping { host_id: 200_000, container_id: 0, length: 65_536 }];
        let mut scene = Scene::new(machine, daemon, |pod| {
            pod.namespaces().userns_options = Some(UserNamespace {
                mode: NamespaceMode::Pod.into(),
                uids: mappings(),
                gids: mappings(),
            });
        })
        .await;
        let id = scene
            .idle(|container| {
                container.security().namespace_options.get_or_insert_default().userns_options =
                    Some(UserNamespace {
                        mode: NamespaceMode::Pod.into(),
                        uids: mappings(),
                        gids: mappings(),
                    });
            })
            .await;
        let corten = Tool::corten(machine, daemon);
        let at = |path: &str| format!("{id}:{path}");
        fs::create_dir(machine.path("dir")).unwrap();
        fs::write(machine.path("dir/file"), "ours").unwrap();
        std::os::unix::fs::chown(machine.path("dir/file"), Some(33), Some(44)).unwrap();
        corten.run(&["-n", "k8s.io", "cp", "dir", &at("/plain")]);
        corten.run(&["-n", "k8s.io", "cp", "-a", "dir", &at("/kept")]);
        let owners = scene.client.shell(&id, "stat -c %u:%g /plain /plain/file /kept/file").await;
        assert_eq!(owners, "0:0\n0:0\n33:44\n");
        corten.run(&["-n", "k8s.io", "cp", "-a", &at("/kept"), "back"]);
        let back = fs::metadata(machine.path("back/file")).unwrap();
        assert_eq!((back.uid(), back.gid()), (33, 44));
    });
}

#[test]
fn ports_come_here() {
    Machine::run(async |machine, daemon| {
        let corten = Tool::corten(machine, daemon);
        let image = machine.image("nginx");
        // Nothing is connected but its own loopback.
        corten.run(&["run", "-q", "-d", "--name", "web", "--network", "none", &image]);
        let mut forward = corten.start(&["port-forward", "web", ":80", "18085:80", "18086:81"]);
        let lines = BufReader::new(forward.stdout.take().unwrap()).lines().map(Result::unwrap);
        let lines: Vec<String> = lines.take(6).collect();
        assert!(lines.iter().all(|line| line.contains(" -> web:8")), "{lines:?}");
        let first: SocketAddr = lines[0].split(' ').next().unwrap().parse().unwrap();
        for address in [first, "127.0.0.1:18085".parse().unwrap()] {
            assert_eq!(until("the page comes", async || page(address)).await, PAGE);
        }
        assert_eq!(page("127.0.0.1:18086".parse().unwrap()), None);
        // While nginx was starting, there may have been complaints of port 80.
        let mut said = BufReader::new(forward.stderr.take().unwrap()).lines().map(Result::unwrap);
        assert!(said.any(|line| line.contains("unable to reach port 81")));
        forward.kill().unwrap();
        forward.wait().unwrap();
        assert!(corten.fails(&["port-forward", "web", "x"]).contains("no port"));
        corten.run(&["rm", "-f", "web"]);
        corten.run(&["rmi", &image]);
    });
}
