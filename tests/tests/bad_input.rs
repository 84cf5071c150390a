//! What cannot work says why, harms nobody, and leaves nothing behind.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use corten_api::cri::{self, NamespaceMode};
use corten_image::testing::{digest_of, tar_of};
use corten_tests::client::{Container, Pod};
use corten_tests::machine::Settings;
use corten_tests::{Client, Machine, until};
use serde_json::json;
use tonic::{Code, Status};

/// The error has this code, and says these words.
#[track_caller]
fn says<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code, words: &[&str]) {
    let error = outcome.expect_err("an error");
    for word in words {
        assert!(error.message().contains(word), "{word:?} is not in: {}", error.message());
    }
    assert_eq!(error.code(), code, "{}", error.message());
}

/// What a registry answers to one path.
#[derive(Clone)]
struct Answer {
    media_type: &'static str,
    body: Vec<u8>,
    /// Bytes that are announced and never come.
    missing: usize,
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const BYTES: &str = "application/octet-stream";

/// A registry that lies as it is told.
#[derive(Default)]
struct Liar {
    answers: HashMap<String, Answer>,
}

impl Liar {
    /// Answers at a path below `/v2/`.
    fn put(&mut self, path: String, media_type: &'static str, body: &[u8]) {
        self.answers.insert(path, Answer { media_type, body: body.to_vec(), missing: 0 });
    }

    /// An image `name:latest` of one layer; `sent` is what comes for it.
    fn image(&mut self, name: &str, layer: &[u8], sent: &[u8], missing: usize) {
        self.image_of(name, layer, &digest_of(layer).to_string(), sent, missing);
    }

    fn image_of(&mut self, name: &str, layer: &[u8], diff_id: &str, sent: &[u8], missing: usize) {
        let config = json!({
            "os": "linux", "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "config": { "Cmd": ["/bin/x"] },
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        })
        .to_string();
        let (config_digest, digest) = (digest_of(config.as_bytes()), digest_of(layer));
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": { "mediaType": CONFIG, "digest": config_digest, "size": config.len() },
            "layers": [{ "mediaType": LAYER, "digest": digest, "size": layer.len() }],
        });
        self.put(format!("{name}/manifests/latest"), MANIFEST, manifest.to_string().as_bytes());
        let by_digest = digest_of(manifest.to_string().as_bytes());
        self.put(
            format!("{name}/manifests/{by_digest}"),
            MANIFEST,
            manifest.to_string().as_bytes(),
        );
        self.put(format!("{name}/blobs/{config_digest}"), BYTES, config.as_bytes());
        let answer = Answer { media_type: BYTES, body: sent.to_vec(), missing };
        self.answers.insert(format!("{name}/blobs/{digest}"), answer);
    }

    /// Serves until the test's process ends: its address.
    fn serve(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let answers = Arc::new(self.answers);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answers = answers.clone();
                std::thread::spawn(move || {
                    let _ = answer(stream, &answers);
                });
            }
        });
        address
    }
}

fn answer(stream: TcpStream, answers: &HashMap<String, Answer>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let stream = reader.get_mut();
    let Some(answer) = path.strip_prefix("/v2/").and_then(|path| answers.get(path)) else {
        let status = if path == "/v2/" { "200 OK" } else { "404 Not Found" };
        return write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    };
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        answer.media_type,
        answer.body.len() + answer.missing,
    )?;
    if method == "GET" {
        stream.write_all(&answer.body)?;
    }
    Ok(())
}

/// One entry of a tar: like a file's, but of this kind, with this link or device.
fn tar_entry(path: &str, kind: u8, link: &str, device: (u32, u32)) -> Vec<u8> {
    let mut tar = tar_of(&[(path, 0o666, b"")]);
    tar[156] = kind;
    tar[157..157 + link.len()].copy_from_slice(link.as_bytes());
    tar[329..336].copy_from_slice(format!("{:07o}", device.0).as_bytes());
    tar[337..344].copy_from_slice(format!("{:07o}", device.1).as_bytes());
    tar[148..156].copy_from_slice(b"        ");
    let sum: u32 = tar[..512].iter().map(|byte| u32::from(*byte)).sum();
    tar[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    tar.truncate(512);
    tar
}

fn joined(entries: &[&[u8]], file: &[u8]) -> Vec<u8> {
    let mut tar = entries.concat();
    tar.extend_from_slice(file);
    tar
}

#[test]
fn images_that_are_none() {
    Machine::run(async |machine, daemon| {
        let good = tar_of(&[("bin/x", 0o755, b"#!/bin/x\n")]);
        let other = tar_of(&[("bin/x", 0o755, b"#!/bin/y\n")]);
        let mut liar = Liar::default();
        liar.image("wrong", &good, &other, 0);
        liar.image("cut", &good, &good[..700], good.len() - 700);
        liar.image_of("diff", &good, &digest_of(&other).to_string(), &good, 0);
        liar.image(
            "garbage",
            b"this is no tar at all, whatever it says",
            b"this is no tar at all, whatever it says",
            0,
        );
        liar.put("json/manifests/latest".into(), MANIFEST, b"{\"schemaVersion\": 2, ");
        liar.put("kind/manifests/latest".into(), "text/html", b"<html>login</html>");
        let up = tar_of(&[("../../escaped", 0o644, b"out")]);
        liar.image("up", &up, &up, 0);
        let wanted = digest_of(b"something else");
        liar.put(format!("digest/manifests/{wanted}"), MANIFEST, b"{}");
        let host = liar.serve();
        let mut client = daemon.client().await;
        let mut pull = async |name: &str| client.pull(&format!("{host}/{name}")).await;
        says(pull("wrong").await, Code::FailedPrecondition, &["wrong", "digest"]);
        says(pull("cut").await, Code::Unavailable, &["cut", "layer"]);
        says(pull("diff").await, Code::FailedPrecondition, &["digest"]);
        says(pull("garbage").await, Code::FailedPrecondition, &["unpack", "layer"]);
        says(pull("json").await, Code::FailedPrecondition, &["manifest"]);
        says(pull("kind").await, Code::FailedPrecondition, &["manifest", "malformed"]);
        says(pull("up").await, Code::FailedPrecondition, &["..", "escaped"]);
        says(pull(&format!("digest@{wanted}")).await, Code::FailedPrecondition, &["digest"]);
        says(pull("absent").await, Code::NotFound, &["absent"]);
        says(client.pull("127.0.0.1:1/none").await, Code::Unavailable, &["127.0.0.1:1"]);
        for bad in ["", "UPPER/case", "a b", "x@sha256:12", ":tag", "x:", &"a/".repeat(300)] {
            says(client.pull(bad).await, Code::InvalidArgument, &[]);
        }
        assert!(!machine.path("escaped").exists());
        let images = client.images.list_images(cri::ListImagesRequest::default()).await;
        assert!(images.unwrap().into_inner().images.is_empty());
    });
}

#[test]
fn links_and_devices_of_an_image_lead_nowhere() {
    Machine::run(async |machine, daemon| {
        let outside = machine.path("outside");
        std::fs::create_dir_all(&outside).unwrap();
        let away = outside.display().to_string();
        let mut liar = Liar::default();
        let file = tar_of(&[("away/file", 0o644, b"out")]);
        let through = joined(&[&tar_entry("away", b'2', &away, (0, 0))], &file);
        liar.image("through", &through, &through, 0);
        let hard = joined(&[&tar_entry("passwd", b'1', "/etc/passwd", (0, 0))], &[0; 1024]);
        liar.image("hard", &hard, &hard, 0);
        let up =
            joined(&[&tar_entry("passwd", b'1', "../../../../etc/passwd", (0, 0))], &[0; 1024]);
        liar.image("up", &up, &up, 0);
        let host = liar.serve();
        let mut client = daemon.client().await;
        // Refused, or kept inside: nothing of the machine is touched or shown.
        let _ = client.pull(&format!("{host}/through")).await;
        says(client.pull(&format!("{host}/hard")).await, Code::FailedPrecondition, &["passwd"]);
        says(client.pull(&format!("{host}/up")).await, Code::FailedPrecondition, &["passwd"]);
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        // A device is one, and the container may not use it.
        let devices = joined(
            &[&tar_entry("disk", b'4', "", (8, 0)), &tar_entry("kmsg", b'3', "", (1, 11))],
            &[0; 1024],
        );
        let image = machine.image("busybox");
        client.pull(&image).await.unwrap();
        let named = corten_tests::images::busybox().tar(devices);
        let reference = machine.push(&named, "devices");
        client.pull(&reference).await.unwrap();
        let pod = Pod::new(machine, "devices");
        let id = client.run_pod(&pod).await.unwrap();
        let container = Container::shell("main", &reference, "exec sleep 1000");
        let main = client.run(&id, &pod, &container).await.unwrap();
        for device in ["/disk", "/kmsg"] {
            let script = format!("ls -l {device} && dd if={device} of=/dev/null bs=1 count=1");
            let (code, out, err) =
                client.exec(&main, &["/bin/sh", "-c", &script], 20).await.unwrap();
            assert!(code != 0 && err.contains("not permitted"), "{code} {out} {err}");
        }
    });
}

/// A machine whose pods are connected by CNI plugins that hurry.
fn with_cni(test: impl AsyncFnOnce(&Machine, &mut corten_tests::Daemon) + Send) {
    let configuration = "network.cni.plugin_seconds = 1\n".to_owned();
    Machine::run_with(Settings { configuration, ..Settings::default() }, test);
}

fn write_plugin(machine: &Machine, name: &str, script: &str) {
    std::fs::create_dir_all(machine.path("plugins")).unwrap();
    let path = machine.path("plugins").join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn write_network(machine: &Machine, plugin: &str) {
    std::fs::create_dir_all(machine.path("cni")).unwrap();
    let text = json!({ "cniVersion": "1.0.0", "name": "bad", "plugins": [{ "type": plugin }] });
    // Under another name first: a half-written one is not to be read.
    let fresh = machine.path("cni/fresh");
    std::fs::write(&fresh, text.to_string()).unwrap();
    std::fs::rename(fresh, machine.path("cni/10-bad.conflist")).unwrap();
}

async fn network(client: &mut Client) -> cri::RuntimeCondition {
    let status = client.runtime.status(cri::StatusRequest::default()).await.unwrap();
    let conditions = status.into_inner().status.unwrap().conditions;
    conditions.into_iter().find(|condition| condition.r#type == "NetworkReady").unwrap()
}

#[test]
fn plugins_that_hang_or_talk_nonsense_or_are_missing() {
    with_cni(async |machine, daemon| {
        // DEL works, or a pod could never be undone.
        let quiet = "[ \"$CNI_COMMAND\" = ADD ] || exit 0;";
        write_plugin(machine, "hangs", &format!("{quiet} sleep 1000 & wait"));
        write_plugin(machine, "babbles", &format!("{quiet} echo '<html>no'"));
        write_plugin(machine, "dies", &format!("{quiet} echo 'it hurts' >&2; kill -9 $$"));
        let refusal =
            r#"{"cniVersion":"1.0.0","code":11,"msg":"no address","details":"all taken"}"#;
        write_plugin(machine, "refuses", &format!("{quiet} echo '{refusal}'; exit 1"));
        write_plugin(machine, "floods", &format!("{quiet} exec yes flood"));
        let mut client = daemon.client().await;
        let expected: [(&str, &[&str]); 6] = [
            ("hangs", &["hangs", "within"]),
            ("babbles", &["babbles", "<html>no"]),
            ("dies", &["dies", "signal: 9", "it hurts"]),
            ("refuses", &["refuses", "no address", "all taken"]),
            ("floods", &["floods"]),
            ("absent", &["absent", "plugins", "/usr/lib/cni"]),
        ];
        for (plugin, words) in expected {
            write_network(machine, plugin);
            until("the network is the new one", async || {
                let pod = Pod::new(machine, plugin);
                let error = client.run_pod(&pod).await.expect_err("an error");
                error.message().contains(&format!("plugin {plugin}")).then_some(())
            })
            .await;
            let pod = Pod::new(machine, plugin);
            says(client.run_pod(&pod).await, Code::Unavailable, words);
            let mut host = Pod::new(machine, &format!("host-{plugin}"));
            host.namespaces().network = NamespaceMode::Node.into();
            client.run_pod(&host).await.unwrap();
        }
        let pods = client.pods().await;
        assert_eq!(pods.len(), expected.len(), "only those of the host's network: {pods:?}");
    });
}

#[test]
fn a_plugin_whose_undoing_fails_leaves_a_pod_to_be_removed() {
    with_cni(async |machine, daemon| {
        write_plugin(
            machine,
            "stuck",
            "[ -e \"$(dirname \"$0\")/good\" ] || { echo '{\"code\":7,\"msg\":\"stuck\"}'; exit 1; }",
        );
        write_network(machine, "stuck");
        let mut client = daemon.client().await;
        let pod = Pod::new(machine, "stuck");
        until("the network is there", async || (network(&mut client).await.status).then_some(()))
            .await;
        says(client.run_pod(&pod).await, Code::Unavailable, &["stuck"]);
        let pods = client.pods().await;
        assert_eq!(pods.len(), 1, "{pods:?}");
        assert_eq!(pods[0].state(), cri::PodSandboxState::SandboxNotready);
        says(client.stop_pod(&pods[0].id).await, Code::Unavailable, &["stuck"]);
        std::fs::write(machine.path("plugins/good"), "").unwrap();
        client.stop_pod(&pods[0].id).await.unwrap();
        client.remove_pod(&pods[0].id).await.unwrap();
        assert!(client.pods().await.is_empty());
    });
}

#[test]
fn without_a_network_only_pods_of_the_hosts_run() {
    with_cni(async |machine, daemon| {
        let mut client = daemon.client().await;
        let condition = network(&mut client).await;
        assert!(!condition.status);
        let searched = machine.path("cni").display().to_string();
        assert!(condition.message.contains(&searched), "{}", condition.message);
        says(client.run_pod(&Pod::new(machine, "none")).await, Code::Unavailable, &[&searched]);
        let mut host = Pod::new(machine, "host");
        host.namespaces().network = NamespaceMode::Node.into();
        client.run_pod(&host).await.unwrap();
        let result = r#"{"cniVersion":"1.0.0","ips":[{"address":"10.7.7.7/24"}]}"#;
        write_plugin(
            machine,
            "good",
            &format!("[ \"$CNI_COMMAND\" = ADD ] && echo '{result}'; exit 0"),
        );
        write_network(machine, "good");
        until("the network is seen", async || network(&mut client).await.status.then_some(()))
            .await;
        let id = client.run_pod(&Pod::new(machine, "now")).await.unwrap();
        assert_eq!(client.pod_ip(&id).await, "10.7.7.7");
        std::fs::remove_file(machine.path("cni/10-bad.conflist")).unwrap();
        until("it is gone", async || (!network(&mut client).await.status).then_some(())).await;
    });
}

#[test]
fn pods_that_cannot_be() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let pod = Pod::new(machine, "bad");
        let config = Some(pod.config.clone());
        let request = cri::RunPodSandboxRequest { config, runtime_handler: "kata".into() };
        says(
            client.runtime.run_pod_sandbox(request).await,
            Code::InvalidArgument,
            &["\"kata\"", "corten"],
        );
        says(
            client.runtime.run_pod_sandbox(cri::RunPodSandboxRequest::default()).await,
            Code::InvalidArgument,
            &["config"],
        );
        let mut sysctl = pod.clone();
        let sysctls = &mut sysctl.config.linux.as_mut().unwrap().sysctls;
        sysctls.insert("net.ipv4.no_such_thing".into(), "1".into());
        says(client.run_pod(&sysctl).await, Code::InvalidArgument, &["net.ipv4.no_such_thing"]);
        for name in ["kernel.panic", "../../etc", "net/../../x", "net.ipv4.ip_forward\0"] {
            let mut sysctl = pod.clone();
            sysctl.config.linux.as_mut().unwrap().sysctls.insert(name.into(), "1".into());
            says(client.run_pod(&sysctl).await, Code::InvalidArgument, &["sysctl"]);
        }
        let mut relative = pod.clone();
        relative.config.log_directory = "logs".into();
        says(client.run_pod(&relative).await, Code::InvalidArgument, &["log_directory", "logs"]);
        let mut hostname = pod.clone();
        hostname.config.hostname = "a".repeat(65);
        says(client.run_pod(&hostname).await, Code::InvalidArgument, &["hostname"]);
        let mut parent = pod.clone();
        parent.config.linux.as_mut().unwrap().cgroup_parent = "/../escape".into();
        says(client.run_pod(&parent).await, Code::InvalidArgument, &["cgroup"]);
        let mut port = pod.clone();
        port.config.port_mappings.push(cri::PortMapping {
            container_port: 70_000,
            host_port: -1,
            ..Default::default()
        });
        says(client.run_pod(&port).await, Code::InvalidArgument, &["port"]);
        assert!(client.pods().await.is_empty());
        client.run_pod(&pod).await.unwrap();
    });
}

#[test]
fn containers_that_cannot_be() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let image = machine.image("busybox");
        client.pull(&image).await.unwrap();
        let pod = Pod::new(machine, "bad");
        let id = client.run_pod(&pod).await.unwrap();
        type Change<'a> = Box<dyn Fn(&mut Container) + 'a>;
        let mount = |host: &str, inside: &str| cri::Mount {
            host_path: host.into(),
            container_path: inside.into(),
            ..Default::default()
        };
        let seccomp = |path: String| {
            move |container: &mut Container| {
                container.security().seccomp = Some(cri::SecurityProfile {
                    profile_type: cri::security_profile::ProfileType::Localhost.into(),
                    localhost_ref: path.clone(),
                });
            }
        };
        let broken = machine.path("broken.json");
        std::fs::write(&broken, "{ \"defaultAction\": ").unwrap();
        let action = machine.path("action.json");
        std::fs::write(&action, "{ \"defaultAction\": \"SCMP_ACT_MAYBE\" }").unwrap();
        let shown = |path: &std::path::Path| path.display().to_string();
        let resources = |change: fn(&mut cri::LinuxContainerResources)| {
            move |container: &mut Container| {
                change(container.linux().resources.get_or_insert_default());
            }
        };
        let cases: Vec<(&str, Change<'_>, &[&str])> = vec![
            (
                "image",
                Box::new(|c| c.config.image.as_mut().unwrap().image = "no/such:image".into()),
                &["no/such:image", "pull"],
            ),
            (
                "mount",
                Box::new(|c| c.config.mounts.push(mount("/no/such/dir", "/x"))),
                &["/no/such/dir"],
            ),
            ("outside", Box::new(|c| c.config.mounts.push(mount("etc", "/x"))), &["\"etc\""]),
            (
                "user",
                Box::new(|c| c.security().run_as_username = "nobody-knows".into()),
                &["nobody-knows", "/etc/passwd"],
            ),
            (
                "uid",
                Box::new(|c| c.security().run_as_user = Some(cri::Int64Value { value: -5 })),
                &["-5"],
            ),
            ("profile", Box::new(seccomp("/no/such.json".into())), &["/no/such.json"]),
            ("json", Box::new(seccomp(shown(&broken))), &["broken.json"]),
            ("action", Box::new(seccomp(shown(&action))), &["SCMP_ACT_MAYBE"]),
            ("log", Box::new(|c| c.config.log_path = "../../x.log".into()), &["log_path"]),
            ("memory", Box::new(resources(|r| r.memory_limit_in_bytes = -7)), &["memory"]),
            ("shares", Box::new(resources(|r| r.cpu_shares = -7)), &["cpu"]),
            ("cpus", Box::new(resources(|r| r.cpuset_cpus = "0-banana".into())), &["cpuset"]),
            (
                "device",
                Box::new(|c| {
                    c.config.devices.push(cri::Device {
                        host_path: "/dev/no-such".into(),
                        container_path: "/dev/x".into(),
                        permissions: "rw".into(),
                    })
                }),
                &["/dev/no-such"],
            ),
            (
                "capability",
                Box::new(|c| {
                    c.security().capabilities = Some(cri::Capability {
                        add_capabilities: vec!["FLY".into()],
                        ..Default::default()
                    })
                }),
                &["FLY"],
            ),
            ("nul", Box::new(|c| c.config.command = vec!["a\0b".into()]), &["NUL"]),
            (
                "env",
                Box::new(|c| {
                    c.config.envs.push(cri::KeyValue { key: "A=B".into(), value: "x".into() })
                }),
                &["A=B"],
            ),
        ];
        for (name, change, words) in &cases {
            let mut container = Container::shell(name, &image, "exec sleep 1000");
            change(&mut container);
            let error = client.create(&id, &pod, &container).await.expect_err(name);
            for word in *words {
                assert!(error.message().contains(word), "{name}: {word:?} is not in: {error}");
            }
            let expected = match *name {
                "image" => Code::NotFound,
                // Only the kernel knows which processors there are.
                "cpus" => continue,
                _ => Code::InvalidArgument,
            };
            assert_eq!(error.code(), expected, "{name}: {error}");
        }
        assert!(client.containers().await.is_empty());
        for (name, command) in [
            ("missing", "/no/such/program"),
            ("no-path", "no-such-program"),
            ("text", "/etc/passwd"),
        ] {
            let container = Container::new(name, &image, &[command]);
            let created = client.create(&id, &pod, &container).await.unwrap();
            says(client.start(&created).await, Code::Internal, &[command]);
            let status = client.status(&created).await.unwrap();
            assert!(status.message.contains(command), "{status:?}");
            assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
            client.remove(&created).await.unwrap();
        }
        let container = Container::shell("huge", &image, "exec sleep 1000");
        let main = client.run(&id, &pod, &container).await.unwrap();
        says(client.exec(&main, &[], 1).await, Code::InvalidArgument, &["cmd"]);
        says(client.exec(&main, &["/no/such"], 1).await, Code::Internal, &["/no/such"]);
        says(client.exec(&main, &["true"], -1).await, Code::InvalidArgument, &["timeout"]);
        client.exec(&main, &["true"], i64::MAX).await.unwrap();
        // No time at all: it is killed at once.
        client.stop(&main, i64::MIN).await.unwrap();
        says(client.pod_status(&"x".repeat(9999)).await, Code::InvalidArgument, &["id"]);
    });
}

#[test]
fn a_full_disk() {
    Machine::run(async |machine, daemon| {
        daemon.stop().await;
        let data = machine.path("data");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=9m", "tmpfs"])
            .arg(&data)
            .status();
        assert!(mounted.unwrap().success());
        daemon.start_again().await;
        let mut client = daemon.client().await;
        let (small, large) = (machine.image("busybox"), machine.image("nginx"));
        says(client.pull(&large).await, Code::ResourceExhausted, &["space"]);
        client.pull(&small).await.unwrap();
        let pod = Pod::new(machine, "full");
        let id = client.run_pod(&pod).await.unwrap();
        let container = Container::shell("main", &small, "exec sleep 1000");
        let main = client.run(&id, &pod, &container).await.unwrap();
        let fill = "dd if=/dev/zero of=/big bs=64k; echo full >&2";
        let (_, _, err) = client.exec(&main, &["/bin/sh", "-c", fill], 30).await.unwrap();
        assert!(err.contains("No space left"), "{err}");
        // What is there can be looked at, used, and taken away.
        client.shell(&main, "true").await;
        let other = Pod::new(machine, "other");
        let _ = client.run_pod(&other).await;
        client.stop(&main, 0).await.unwrap();
        client.remove(&main).await.unwrap();
        client.remove_pod(&id).await.unwrap();
        client.remove_everything().await;
        client.pull(&small).await.unwrap();
        client.remove_everything().await;
        until("nothing is left", async || {
            let left = std::fs::read_dir(data.join("snapshots")).unwrap().count();
            (left == 0).then_some(())
        })
        .await;
        daemon.stop().await;
        rustix::mount::unmount(&data, rustix::mount::UnmountFlags::empty()).unwrap();
        daemon.start_again().await;
    });
}
