//! Exec and attach, with the clients that people use: crictl, and what kubectl
//! is made of.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Output, Stdio};

use corten_api::cri::{AttachRequest, ExecRequest};
use corten_tests::client::log_path;
use corten_tests::machine::{Machine, Settings};
use corten_tests::tool::{Tool, text};
use corten_tests::{Client, Daemon, Scene, until};
use tonic::Code;

/// Both ways to speak.
const TRANSPORTS: [&str; 2] = ["spdy", "websocket"];
/// Much more than all buffers on the way together.
const MANY_BYTES: usize = 100 << 20;

async fn idle(machine: &Machine, daemon: &Daemon) -> (Scene, String) {
    let mut scene = Scene::new(machine, daemon, |_| {}).await;
    let id = scene.idle(|_| {}).await;
    (scene, id)
}

/// A URL for a script: with a terminal, or with three pipes.
async fn url(client: &mut Client, id: &str, script: &str, tty: bool) -> String {
    let request = ExecRequest {
        container_id: id.into(),
        cmd: ["/bin/sh", "-c", script].map(Into::into).into(),
        tty,
        stdin: true,
        stdout: true,
        stderr: !tty,
    };
    client.runtime.exec(request).await.expect("a URL").into_inner().url
}

fn start(client: &Tool, arguments: &[&str]) -> Child {
    let mut command = client.command(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the client can be run")
}

fn say(mut child: Child, stdin: &[u8]) -> Output {
    child.stdin.take().expect("a pipe").write_all(stdin).expect("it reads");
    child.wait_with_output().expect("it ends")
}

#[test]
fn crictl_executes_and_attaches() {
    Machine::run(async |machine, daemon| {
        let (mut scene, id) = idle(machine, daemon).await;
        let crictl = Tool::crictl(machine, daemon);
        for transport in TRANSPORTS {
            let exec = |script: &str, stdin: &[u8]| {
                let arguments = ["exec", "-r", transport, "-i", &id, "/bin/sh", "-c", script];
                say(start(&crictl, &arguments), stdin)
            };
            let output = exec("tr a-z A-Z; echo done >&2", b"hello");
            assert_eq!(text(&output.stdout), "HELLO", "{transport}: {output:?}");
            assert_eq!(text(&output.stderr), "done", "{transport}");
            assert!(output.status.success());
            let failed = exec("exit 7", b"");
            assert!(text(&failed.stderr).contains("exit code 7"), "{transport}: {failed:?}");
            let absent = crictl.fails(&["exec", "-r", transport, &id, "/no/such/program"]);
            assert!(absent.contains("/no/such/program"), "{transport}: {absent}");

            let mut echo = scene.shell("read line; echo \"got $line\"; echo no >&2; exit 3");
            echo.config.stdin = true;
            echo.config.stdin_once = true;
            let echo_id = scene.start(&echo).await.expect("it starts");
            let attached = start(&crictl, &["attach", "-r", transport, "-i", &echo_id]);
            let output = say(attached, b"a line\n");
            assert_eq!(text(&output.stdout), "got a line", "{transport}: {output:?}");
            assert_eq!(text(&output.stderr), "no", "{transport}");
            let log = std::fs::read_to_string(log_path(&scene.pod, &echo)).expect("a log");
            assert!(log.contains("got a line"), "{log}");
        }
    });
}

#[test]
fn kubectls_client_executes() {
    Machine::run(async |machine, daemon| {
        let (mut scene, id) = idle(machine, daemon).await;
        let client = Tool::streaming(machine);
        let all = [
            ("spdy", ""),
            ("spdy", "v3.channel.k8s.io"),
            ("spdy", "v2.channel.k8s.io"),
            ("spdy", "channel.k8s.io"),
            ("websocket", ""),
            ("websocket", "v4.channel.k8s.io"),
        ];
        for (transport, protocols) in all {
            let url = url(&mut scene.client, &id, "read x; echo $x; echo no >&2; exit 9", false);
            let url = url.await;
            let arguments =
                ["run", "-transport", transport, "-protocols", protocols, "-stdin", &url];
            let output = say(start(&client, &arguments), b"word\n");
            let what = format!("{transport} {protocols}: {output:?}");
            // Before v4 there is no code but a sentence. A client of v1 ends with
            // whichever comes first, it or the end of the output; what it has
            // not taken from the other streams by then it drops.
            match protocols {
                "channel.k8s.io" => {
                    let done = text(&output.stdout) == "word" && output.status.success();
                    assert!(done || text(&output.stderr).contains("exit code 9"), "{what}");
                    continue;
                }
                "v2.channel.k8s.io" | "v3.channel.k8s.io" => {
                    assert!(text(&output.stderr).contains("exit code 9"), "{what}");
                }
                _ => assert_eq!(output.status.code(), Some(9), "{what}"),
            }
            assert_eq!(text(&output.stdout), "word", "{what}");
            assert!(text(&output.stderr).starts_with("no"), "{what}");
        }
    });
}

#[test]
fn terminals_are_resized() {
    Machine::run(async |machine, daemon| {
        let (mut scene, id) = idle(machine, daemon).await;
        let client = Tool::streaming(machine);
        for transport in TRANSPORTS {
            // busybox's stty prints "rows columns".
            let script = "until [ \"$(stty size)\" = '43 132' ]; do sleep 0.02; done; \
                          echo seen; read line; echo \"<$line>\"; exit 4";
            let url = url(&mut scene.client, &id, script, true).await;
            let sizes = "80x24,100x30,132x43";
            let arguments =
                ["run", "-transport", transport, "-tty", "-stdin", "-sizes", sizes, &url];
            let output = say(start(&client, &arguments), b"typed\n");
            assert_eq!(output.status.code(), Some(4), "{transport}: {output:?}");
            let said = text(&output.stdout);
            assert!(said.contains("seen\r\n") && said.contains("<typed>"), "{transport}: {said}");
        }
    });
}

#[test]
fn much_goes_both_ways() {
    Machine::run(async |machine, daemon| {
        let (mut scene, id) = idle(machine, daemon).await;
        let client = Tool::streaming(machine);
        let (sent, received) = (machine.path("sent"), machine.path("received"));
        let mut number = 0x2545_f491_4f6c_dd1d_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            number ^= number << 13;
            number ^= number >> 7;
            number ^= number << 17;
            number.to_le_bytes()
        })
        .take(MANY_BYTES / 8)
        .flatten()
        .collect();
        std::fs::write(&sent, &noise).expect("a file");
        for transport in TRANSPORTS {
            let url = url(&mut scene.client, &id, "exec cat", false).await;
            let mut command = client.command(&["run", "-transport", transport, "-stdin", &url]);
            command.stdin(File::open(&sent).expect("a file"));
            command.stdout(File::create(&received).expect("a file"));
            let output = command.output().expect("the client can be run");
            assert!(output.status.success(), "{transport}: {output:?}");
            assert!(std::fs::read(&received).expect("a file") == noise, "{transport}");
        }
    });
}

/// Resident memory of a process in KiB.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn clients_that_do_not_read_or_vanish() {
    Machine::run(async |machine, daemon| {
        let (mut scene, id) = idle(machine, daemon).await;
        let client = Tool::streaming(machine);
        let descriptors =
            || std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
        let (before, memory) = (descriptors(), resident_kib(daemon.pid()));
        let mut children = Vec::new();
        for (number, transport) in TRANSPORTS.iter().cycle().take(6).enumerate() {
            // Talks without end; takes nothing; and both with a terminal.
            let script = match number / 2 {
                0 => format!("echo $$ > /tmp/pid{number}; exec cat /dev/zero"),
                1 => format!("echo $$ > /tmp/pid{number}; kill -STOP $$; cat"),
                _ => format!("echo $$ > /tmp/pid{number}; exec sleep 1000"),
            };
            let url = url(&mut scene.client, &id, &script, number / 2 == 2).await;
            let mut arguments = vec!["run", "-transport", transport, "-stdin"];
            arguments.extend((number / 2 == 2).then_some("-tty"));
            arguments.push(&url);
            let mut child = start(&client, &arguments);
            if number / 2 == 1 {
                let mut stdin = child.stdin.take().expect("a pipe");
                // More than every buffer holds: the client waits as well.
                std::thread::spawn(move || stdin.write_all(&vec![0; 16 << 20]));
            }
            children.push(child);
        }
        let script = "for n in 0 1 2 3 4 5; do until [ -s /tmp/pid$n ]; do sleep 0.05; done; done";
        scene.client.shell(&id, script).await;
        // Others are served meanwhile, and nothing piles up.
        for _ in 0..20 {
            assert_eq!(scene.client.shell(&id, "echo here").await, "here\n");
        }
        let more = resident_kib(daemon.pid()).saturating_sub(memory);
        assert!(more < 32 << 10, "{more} KiB more are used");
        for child in &mut children {
            child.kill().expect("it is killed");
            child.wait().expect("it is reaped");
        }
        // Who writes is told by SIGPIPE, and a terminal is hung up; who was
        // stopped finds the end of its input.
        scene.client.shell(&id, "kill -CONT $(cat /tmp/pid2) $(cat /tmp/pid3)").await;
        until("the processes end", async || {
            let alive =
                "for n in 0 1 2 3 4 5; do [ -d /proc/$(cat /tmp/pid$n) ] && echo $n; done; :";
            scene.client.shell(&id, alive).await.is_empty().then_some(())
        })
        .await;
        until("the descriptors are closed", async || (daemon.streams() <= before).then_some(()))
            .await;
    });
}

/// An HTTP request, as it is: the status line, and the rest.
fn http(url: &str, method: &str, headers: &str) -> (String, String) {
    let rest = url.strip_prefix("http://").expect("an absolute URL");
    let (host, path) = rest.split_once('/').expect("a path");
    let mut stream = TcpStream::connect(host).expect("somebody listens");
    let request = format!("{method} /{path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    stream.shutdown(std::net::Shutdown::Write).expect("a shutdown");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (status, rest) = answer.split_once("\r\n").expect("a status line");
    (status.to_owned(), rest.to_owned())
}

const SPDY: &str =
    "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n";

#[test]
fn tokens_work_once() {
    Machine::run(async |machine, daemon| {
        let (mut scene, id) = idle(machine, daemon).await;
        let good = url(&mut scene.client, &id, "echo hello", false).await;
        let bad = format!("{}x", good);
        assert!(http(&bad, "POST", SPDY).0.contains("404"));
        assert!(http(&good.replace("/exec/", "/attach/"), "POST", SPDY).0.contains("404"));
        assert!(http(&good, "DELETE", SPDY).0.contains("405"));
        assert!(http(&good, "POST", "").0.contains("400"));
        let other = SPDY.replace("v4.channel", "v9.channel");
        let (status, rest) = http(&good, "POST", &other);
        assert!(status.contains("403") && rest.contains("v4.channel.k8s.io"), "{status} {rest}");
        // None of that has used it up.
        let client = Tool::streaming(machine);
        assert_eq!(client.run(&["run", "-stdin", &good]), "hello");
        assert!(http(&good, "POST", SPDY).0.contains("404"));
        assert!(client.fails(&["run", &good]).contains("404"));
    });
}

#[test]
fn requests_are_checked() {
    Machine::run(async |machine, daemon| {
        let (mut scene, id) = idle(machine, daemon).await;
        let right = ExecRequest {
            container_id: id.clone(),
            cmd: vec!["true".into()],
            stdout: true,
            ..Default::default()
        };
        let wrong = [
            (Code::InvalidArgument, ExecRequest { cmd: vec![], ..right.clone() }),
            (Code::InvalidArgument, ExecRequest { stdout: false, ..right.clone() }),
            (Code::InvalidArgument, ExecRequest { tty: true, stderr: true, ..right.clone() }),
            (Code::NotFound, ExecRequest { container_id: "unknown".into(), ..right.clone() }),
        ];
        for (code, request) in wrong {
            let refused = scene.client.runtime.exec(request).await.expect_err("it is refused");
            assert_eq!(refused.code(), code, "{refused:?}");
        }
        scene.client.stop(&id, 0).await.expect("a stop");
        let refused = scene.client.runtime.exec(right).await.expect_err("it has ended");
        assert_eq!(refused.code(), Code::FailedPrecondition);
        let request = AttachRequest { container_id: id, stdout: true, ..Default::default() };
        let refused = scene.client.runtime.attach(request).await.expect_err("it has ended");
        assert_eq!(refused.code(), Code::FailedPrecondition);
    });
}

#[test]
fn tokens_are_counted() {
    Machine::run(async |machine, daemon| {
        let (mut scene, id) = idle(machine, daemon).await;
        let request = ExecRequest {
            container_id: id,
            cmd: vec!["true".into()],
            stdout: true,
            ..Default::default()
        };
        for _ in 0..corten_base::limits::STREAM_TOKENS_MAX {
            scene.client.runtime.exec(request.clone()).await.expect("a URL");
        }
        let refused = scene.client.runtime.exec(request).await.expect_err("it is one too many");
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    });
}

#[test]
fn streams_are_encrypted_where_that_is_configured() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name| directory.path().join(name);
    let write = || {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a key");
        std::fs::write(path("cert.pem"), made.cert.pem()).expect("a file");
        std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).expect("a file");
    };
    write();
    let configuration = format!(
        "streaming.tls_cert = {:?}\nstreaming.tls_key = {:?}\n",
        path("cert.pem"),
        path("key.pem")
    );
    let settings = Settings { builtin_network: true, configuration, ..Settings::default() };
    Machine::run_with(settings, async |machine, daemon| {
        let (mut scene, id) = idle(machine, daemon).await;
        let client = Tool::streaming(machine);
        for _replaced in 0..2 {
            for transport in TRANSPORTS {
                let url = url(&mut scene.client, &id, "cat; exit 5", false).await;
                assert!(url.starts_with("https://127.0.0.1:"), "{url}");
                assert!(client.fails(&["run", "-transport", transport, &url]).contains("x509"));
                let arguments = ["run", "-transport", transport, "-insecure", "-stdin", &url];
                let output = say(start(&client, &arguments), b"secret");
                assert_eq!(text(&output.stdout), "secret", "{transport}: {output:?}");
                assert_eq!(output.status.code(), Some(5), "{transport}");
            }
            write();
        }
        assert!(daemon.log().contains("has been replaced"));
    });
}
