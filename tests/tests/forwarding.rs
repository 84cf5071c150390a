//! Port-forward, with the clients that people use.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use corten_api::cri::{NamespaceMode, PortForwardRequest};
use corten_tests::images::PAGE;
use corten_tests::machine::Machine;
use corten_tests::poll::PATIENCE;
use corten_tests::tool::Tool;
use corten_tests::{Client, Daemon, Scene, until};

const TRANSPORTS: [&str; 2] = ["spdy", "websocket"];
/// Where a container of a test listens.
const PORT: u16 = 7007;

/// A client that forwards a port of its own choice to one of a pod.
struct Forwarded {
    process: Child,
    /// Where it listens.
    port: u16,
}

impl Forwarded {
    async fn to(client: &Tool, cri: &mut Client, pod: &str, transport: &str, port: u16) -> Self {
        let request = PortForwardRequest { pod_sandbox_id: pod.into(), port: vec![] };
        let answer = cri.runtime.port_forward(request).await.expect("a URL");
        let url = answer.into_inner().url;
        let ports = format!("0:{port}");
        Self::begin(client, &["forward", "-transport", transport, &url, &ports])
    }

    fn begin(client: &Tool, arguments: &[&str]) -> Self {
        let mut command = client.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("the client can be run");
        let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        // «Forwarding from 127.0.0.1:41234 -> 80»
        let line = lines.next().expect("a line").expect("text");
        let address = line.split(' ').nth(2).expect("an address");
        let (_, port) = address.rsplit_once(':').expect("a port");
        let port = port.parse().expect("a number");
        // What it goes on saying is read, so that it can go on.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, port }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    fn page(&self) -> String {
        let mut stream = self.connect();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer.split_once("\r\n\r\n").map(|(_, page)| page.to_owned()).unwrap_or_default()
    }

    /// What it complained of, when it has ended by itself.
    fn complaint(mut self) -> String {
        let mut said = String::new();
        let mut stderr = self.process.stderr.take().expect("a pipe");
        stderr.read_to_string(&mut said).expect("text");
        said
    }
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A container in which a script runs for each connection to [`PORT`].
async fn served(scene: &mut Scene, script: &str) {
    listening(scene, &format!("exec nc -ll -p {PORT} -e /bin/sh -c '{script}'")).await;
}

/// A container that listens at [`PORT`].
async fn listening(scene: &mut Scene, script: &str) {
    let server = scene.shell(script);
    let id = scene.start(&server).await.expect("it starts");
    until("somebody listens", async || {
        let line = format!("netstat -ltn | grep :{PORT}; :");
        (!scene.client.shell(&id, &line).await.is_empty()).then_some(())
    })
    .await;
}

async fn scene(machine: &Machine, daemon: &Daemon, name: &str) -> Scene {
    Scene::named(machine, daemon, name, |_| {}).await
}

#[test]
fn crictl_forwards_ports() {
    Machine::run(async |machine, daemon| {
        let host = |pod: &mut corten_tests::client::Pod| {
            pod.namespaces().network = NamespaceMode::Node.into();
        };
        let mut own = scene(machine, daemon, "own").await;
        let mut hosts = Scene::named(machine, daemon, "hosts", host).await;
        let crictl = Tool::crictl(machine, daemon);
        for pod in [&mut own, &mut hosts] {
            served(pod, "read line; echo got $line").await;
            for transport in TRANSPORTS {
                let ports = format!("0:{PORT}");
                let forwarded =
                    Forwarded::begin(&crictl, &["port-forward", "-r", transport, &pod.id, &ports]);
                let mut stream = forwarded.connect();
                stream.write_all(b"this\n").expect("it reads");
                let mut answer = String::new();
                stream.read_to_string(&mut answer).expect("an answer");
                assert_eq!(answer, "got this\n", "{transport}");
            }
        }
    });
}

#[test]
fn many_connections_at_once() {
    Machine::run(async |machine, daemon| {
        let mut scene = scene(machine, daemon, "pod").await;
        let client = Tool::streaming(machine);
        let image = machine.image("nginx");
        scene.client.pull(&image).await.expect("the image is pulled");
        let mut server = scene.shell("");
        server.config.image.get_or_insert_default().image = image;
        server.config.command.clear();
        let server = scene.start(&server).await.expect("it starts");
        until("the server listens", async || {
            let line = "netstat -ltn | grep :80; :";
            (!scene.client.shell(&server, line).await.is_empty()).then_some(())
        })
        .await;
        for transport in TRANSPORTS {
            let pod = scene.id.clone();
            let forwarded = Forwarded::to(&client, &mut scene.client, &pod, transport, 80).await;
            // One that says nothing stands in nobody's way.
            let silent = forwarded.connect();
            std::thread::scope(|scope| {
                for _ in 0..40 {
                    scope.spawn(|| assert_eq!(forwarded.page(), PAGE, "{transport}"));
                }
            });
            drop(silent);
        }
    });
}

#[test]
fn halves_are_closed_one_by_one() {
    Machine::run(async |machine, daemon| {
        let mut scene = scene(machine, daemon, "pod").await;
        let client = Tool::streaming(machine);
        // It answers when it has read everything.
        served(&mut scene, "wc -c").await;
        for transport in TRANSPORTS {
            let pod = scene.id.clone();
            let forwarded = Forwarded::to(&client, &mut scene.client, &pod, transport, PORT).await;
            let mut stream = forwarded.connect();
            stream.write_all(&vec![7; 20 << 20]).expect("it reads");
            stream.shutdown(std::net::Shutdown::Write).expect("a shutdown");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("an answer");
            assert_eq!(answer.trim(), (20 << 20).to_string(), "{transport}");
        }
    });
}

#[test]
fn servers_of_either_family_are_found() {
    Machine::run(async |machine, daemon| {
        let client = Tool::streaming(machine);
        for (name, address) in [("four", "127.0.0.1"), ("six", "[::1]")] {
            let mut scene = scene(machine, daemon, name).await;
            let page = format!("echo {name} > /tmp/index.html");
            let serve = format!("{page}; exec httpd -f -p {address}:{PORT} -h /tmp");
            listening(&mut scene, &serve).await;
            let pod = scene.id.clone();
            let forwarded = Forwarded::to(&client, &mut scene.client, &pod, "spdy", PORT).await;
            assert_eq!(forwarded.page(), format!("{name}\n"));
        }
    });
}

#[test]
fn what_goes_wrong_is_told() {
    Machine::run(async |machine, daemon| {
        let mut scene = scene(machine, daemon, "pod").await;
        let client = Tool::streaming(machine);
        let descriptors =
            || std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
        let before = descriptors();
        for transport in TRANSPORTS {
            let pod = scene.id.clone();
            let forwarded = Forwarded::to(&client, &mut scene.client, &pod, transport, PORT).await;
            let mut stream = forwarded.connect();
            assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap_or_default(), 0);
            // This client takes the first error for the end of all.
            let complaint = forwarded.complaint();
            assert!(complaint.contains("onnection refused"), "{transport}: {complaint}");
        }
        until("the descriptors are closed", async || (daemon.streams() <= before).then_some(()))
            .await;
    });
}

#[test]
fn a_broken_connection_breaks_no_other() {
    Machine::run(async |machine, daemon| {
        let mut scene = scene(machine, daemon, "pod").await;
        let client = Tool::streaming(machine);
        // It ends with unread input: its connection is reset.
        served(&mut scene, "read line; echo $line; [ $line = stay ] && cat").await;
        for transport in TRANSPORTS {
            let pod = scene.id.clone();
            let forwarded = Forwarded::to(&client, &mut scene.client, &pod, transport, PORT).await;
            let mut stays = forwarded.connect();
            stays.write_all(b"stay\n").expect("it reads");
            let mut answer = [0; 5];
            stays.read_exact(&mut answer).expect("an answer");
            let mut broken = forwarded.connect();
            broken.write_all(b"go\n").expect("it reads");
            broken.read_exact(&mut answer[..3]).expect("an answer");
            // Written until somebody says that nobody reads.
            until("the connection breaks", async || broken.write_all(&[0; 65_536]).err()).await;
            stays.write_all(b"still\n").expect("it reads");
            let mut answer = [0; 6];
            stays.read_exact(&mut answer).expect("an answer");
            assert_eq!(&answer, b"still\n", "{transport}");
        }
    });
}

/// A WebSocket by hand.
struct Socket(TcpStream);

impl Socket {
    fn open(url: &str, protocol: &str) -> Self {
        let rest = url.strip_prefix("http://").expect("an absolute URL");
        let (host, path) = rest.split_once('/').expect("a path");
        let mut stream = TcpStream::connect(host).expect("somebody listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let request = format!(
            "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            answer.push(byte[0]);
        }
        let answer = String::from_utf8(answer).expect("text");
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        Self(stream)
    }

    /// Sends a short message; its mask is zero.
    fn send(&mut self, payload: &[u8]) {
        let frame = [&[0x82, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat();
        self.0.write_all(&frame).expect("it reads");
    }

    /// The next message, of less than 64 KiB.
    fn receive(&mut self) -> Vec<u8> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).expect("a frame");
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.0.read_exact(&mut length).expect("a length");
                u16::from_be_bytes(length).into()
            }
            length => usize::from(length),
        };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).expect("a payload");
        if head[0] == 0x88 { b"close".to_vec() } else { payload }
    }
}

#[test]
fn ports_are_channels_of_a_websocket() {
    Machine::run(async |machine, daemon| {
        let mut scene = scene(machine, daemon, "pod").await;
        served(&mut scene, "read line; echo got $line").await;
        let request =
            PortForwardRequest { pod_sandbox_id: scene.id.clone(), port: vec![PORT.into(), 1] };
        let answer = scene.client.runtime.port_forward(request).await.expect("a URL");
        let mut socket = Socket::open(&answer.into_inner().url, "v4.channel.k8s.io");
        let [low, high] = PORT.to_le_bytes();
        let mut seen: Vec<Vec<u8>> = (0..4).map(|_| socket.receive()).collect();
        for begin in [[0, low, high], [1, low, high], [2, 1, 0], [3, 1, 0]] {
            assert!(seen.contains(&begin.to_vec()), "{seen:?}");
        }
        socket.send(b"\0this\n");
        while seen.last().is_none_or(|last| last != b"close") {
            seen.push(socket.receive());
        }
        let said = |channel: u8| -> String {
            let of = seen[4..].iter().filter(|message| message.first() == Some(&channel));
            of.map(|message| String::from_utf8_lossy(&message[1..]).into_owned()).collect()
        };
        assert_eq!(said(0), "got this\n");
        assert!(said(3).contains("onnection refused"), "{seen:?}");
    });
}
