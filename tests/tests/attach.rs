//! Clients of running containers: attached to them, and to the ports of pods.

use std::time::Duration;

use corten_api::corten::attach_request::Event as ToContainer;
use corten_api::corten::attach_response::Event as FromContainer;
use corten_api::corten::corten_client::CortenClient;
use corten_api::corten::port_forward_request::Event as ToPort;
use corten_api::corten::port_forward_response::Event as FromPort;
use corten_api::corten::session_input::Event as Input;
use corten_api::corten::session_output::Event as Output;
use corten_api::corten::{
    AttachRequest, AttachResponse, AttachStart, DataClosed, PortForwardRequest, PortForwardStart,
    SessionInput, SessionOutput, StdinClosed, TerminalSize,
};
use corten_api::cri::NamespaceMode;
use corten_tests::client::Container;
use corten_tests::daemon::Daemon;
use corten_tests::scene::Scene;
use corten_tests::{Machine, until};
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

async fn people(daemon: &Daemon) -> CortenClient<Channel> {
    CortenClient::new(corten_api::connect(daemon.socket()).await.expect("a connection"))
}

/// A client attached to a container of the kubelet's.
struct Session {
    input: mpsc::Sender<AttachRequest>,
    output: Streaming<AttachResponse>,
    tty: bool,
    stdin: bool,
}

impl Session {
    async fn try_open(daemon: &Daemon, start: AttachStart) -> Result<Self, Status> {
        let (input, stream) = mpsc::channel(4);
        let start = AttachStart { namespace: "k8s.io".into(), ..start };
        input.send(AttachRequest { event: Some(ToContainer::Start(start)) }).await.unwrap();
        let stream = futures_util::stream::unfold(stream, |mut stream| async {
            stream.recv().await.map(|message| (message, stream))
        });
        let mut output = people(daemon).await.attach(stream).await?.into_inner();
        let Some(FromContainer::Attached(attached)) =
            output.message().await?.and_then(|one| one.event)
        else {
            panic!("it does not say what it is attached to")
        };
        Ok(Self { input, output, tty: attached.tty, stdin: attached.stdin })
    }

    async fn open(daemon: &Daemon, container: &str) -> Self {
        Self::try_open(daemon, all(container)).await.expect("it is attached")
    }

    async fn say(&self, event: Input) {
        let event = ToContainer::Input(SessionInput { event: Some(event) });
        self.input.send(AttachRequest { event: Some(event) }).await.expect("the daemon listens");
    }

    async fn type_in(&self, text: &'static str) {
        self.say(Input::Stdin(text.into())).await;
    }

    /// What is said until it ends with `end`.
    async fn hear(&mut self, end: &str) -> String {
        self.hear_both([end, ""]).await.concat()
    }

    /// What is said on stdout and stderr until these end so: nobody knows
    /// which of the two is heard first.
    async fn hear_both(&mut self, ends: [&str; 2]) -> [String; 2] {
        let mut heard = [String::new(), String::new()];
        while !heard.iter().zip(ends).all(|(heard, end)| heard.ends_with(end)) {
            let event = self.output.message().await.expect("it goes on").and_then(|one| one.event);
            let Some(FromContainer::Output(output)) = event else {
                panic!("{event:?} after {heard:?}")
            };
            let (stream, bytes) = match output.event.expect("output") {
                Output::Stdout(bytes) => (0, bytes),
                Output::Stderr(bytes) => (1, bytes),
            };
            heard[stream].push_str(std::str::from_utf8(&bytes).expect("text"));
        }
        heard
    }

    /// The exit code, with which the session ends.
    async fn exit_code(mut self) -> i32 {
        let event = self.output.message().await.unwrap().and_then(|one| one.event);
        let Some(FromContainer::Exited(exited)) = event else { panic!("{event:?}") };
        assert!(self.output.message().await.unwrap().is_none());
        exited.exit_code
    }
}

fn all(container: &str) -> AttachStart {
    AttachStart {
        container: container.into(),
        stdin: true,
        stdout: true,
        stderr: true,
        ..AttachStart::default()
    }
}

fn interactive(scene: &mut Scene, script: &str) -> Container {
    let mut container = scene.shell(script);
    container.config.stdin = true;
    container
}

#[test]
fn several_clients_also_of_another_daemon() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| ()).await;
        let script = "while read x; do echo got $x; echo bad >&2; done; exit 5";
        let container = interactive(&mut scene, script);
        let id = scene.client.create(&scene.id, &scene.pod, &container).await.unwrap();
        // Before it is started nothing is missed.
        let mut one = Session::open(daemon, &id).await;
        assert!(one.stdin && !one.tty);
        scene.client.start(&id).await.unwrap();
        let mut other = Session::open(daemon, &id).await;
        one.type_in("a\n").await;
        for session in [&mut one, &mut other] {
            let heard = session.hear_both(["\n", "\n"]).await;
            assert_eq!(heard, ["got a\n", "bad\n"]);
        }
        drop(one);
        daemon.restart().await;
        scene.client = daemon.client().await;
        let again = Session::open(daemon, &id).await;
        let mut listener = Session::open(daemon, &id).await;
        again.type_in("b\n").await;
        assert_eq!(listener.hear_both(["\n", "\n"]).await, ["got b\n", "bad\n"]);
        // Without stdin_once nobody's end is the container's.
        again.say(Input::StdinClosed(StdinClosed {})).await;
        listener.type_in("c\n").await;
        assert_eq!(listener.hear_both(["\n", "\n"]).await, ["got c\n", "bad\n"]);
        scene.client.stop(&id, 0).await.unwrap();
        assert_eq!(listener.exit_code().await, 137);
        let lines = scene.log_of(&container);
        assert_eq!(lines.lines().filter(|line| line.starts_with("got")).count(), 3, "{lines}");
        let refused = Session::try_open(daemon, all(&id)).await.err().unwrap();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    });
}

#[test]
fn stdin_once_ends_with_its_client() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| ()).await;
        for leaves in [false, true] {
            let mut container = interactive(&mut scene, "cat; echo end; exit 6");
            container.config.stdin_once = true;
            // Nobody reads a log of it.
            container.config.log_path.clear();
            let id = scene.start(&container).await.unwrap();
            let mut watcher = Session::open(daemon, &id).await;
            let session = Session::open(daemon, &id).await;
            session.type_in("word\n").await;
            assert_eq!(watcher.hear("\n").await, "word\n");
            if leaves {
                drop(session);
            } else {
                session.say(Input::StdinClosed(StdinClosed {})).await;
            }
            assert_eq!(watcher.hear("\n").await, "end\n");
            assert_eq!(watcher.exit_code().await, 6);
        }
    });
}

#[test]
fn who_closes_its_output_is_followed_to_its_end() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| ()).await;
        let script = "echo last; exec >&- 2>&-; read x; exit $x";
        let container = interactive(&mut scene, script);
        let id = scene.client.create(&scene.id, &scene.pod, &container).await.unwrap();
        let mut session = Session::open(daemon, &id).await;
        let mut watcher = Session::open(daemon, &id).await;
        scene.client.start(&id).await.unwrap();
        for session in [&mut session, &mut watcher] {
            assert_eq!(session.hear("\n").await, "last\n");
        }
        // Nothing more is heard; whoever ended the session would have done so by now.
        let nothing = tokio::time::timeout(Duration::from_secs(3), watcher.output.message()).await;
        assert!(nothing.is_err(), "{nothing:?}");
        session.type_in("7\n").await;
        assert_eq!(session.exit_code().await, 7);
        assert_eq!(watcher.exit_code().await, 7);
    });
}

#[test]
fn who_is_too_slow_is_told() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| ()).await;
        let script = "yes | head -c 4000000; echo end; read x";
        let container = interactive(&mut scene, script);
        let id = scene.client.create(&scene.id, &scene.pod, &container).await.unwrap();
        let mut slow = Session::open(daemon, &id).await;
        let mut quick = Session::open(daemon, &id).await;
        scene.client.start(&id).await.unwrap();
        assert_eq!(quick.hear("end\n").await.len(), 4_000_004);
        let mut heard = 0;
        loop {
            let event = slow.output.message().await.expect("it is told").and_then(|one| one.event);
            match event {
                Some(FromContainer::Output(SessionOutput {
                    event: Some(Output::Stdout(bytes)),
                })) => heard += bytes.len(),
                Some(FromContainer::TooSlow(_)) => break,
                other => panic!("{other:?} after {heard} bytes"),
            }
        }
        assert!(heard < 4_000_000, "{heard}");
        assert!(slow.output.message().await.unwrap().is_none());
        quick.type_in("\n").await;
        assert_eq!(quick.exit_code().await, 0);
    });
}

#[test]
fn a_terminal_has_the_size_of_its_client() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| ()).await;
        let script = "stty size; read x; stty size; read x; exit 3";
        let mut container = interactive(&mut scene, script);
        container.config.tty = true;
        let id = scene.client.create(&scene.id, &scene.pod, &container).await.unwrap();
        let size = Some(TerminalSize { rows: 31, columns: 41 });
        let start = AttachStart { size, ..all(&id) };
        let mut session = Session::try_open(daemon, start).await.unwrap();
        assert!(session.tty && session.stdin);
        scene.client.start(&id).await.unwrap();
        assert_eq!(session.hear("\n").await, "31 41\r\n");
        session.say(Input::Resize(TerminalSize { rows: 33, columns: 44 })).await;
        session.type_in("x\n").await;
        assert!(session.hear("33 44\r\n").await.contains('x'));
        session.type_in("\n").await;
        session.hear("\n").await;
        assert_eq!(session.exit_code().await, 3);
    });
}

/// What a port answers to some words: all of it, to its end.
async fn ask(
    daemon: &Daemon,
    target: &str,
    port: u32,
    words: &'static str,
) -> Result<String, Status> {
    let start = PortForwardStart { namespace: "k8s.io".into(), target: target.into(), port };
    let said =
        [ToPort::Start(start), ToPort::Data(words.into()), ToPort::DataClosed(DataClosed {})];
    let said = said.map(|event| PortForwardRequest { event: Some(event) });
    let stream = futures_util::stream::iter(said);
    let mut answers = people(daemon).await.port_forward(stream).await?.into_inner();
    let mut heard = Vec::new();
    let mut closed = false;
    while let Some(answer) = answers.message().await? {
        match answer.event {
            Some(FromPort::Data(bytes)) => heard.extend_from_slice(&bytes),
            Some(FromPort::DataClosed(_)) => closed = true,
            None => {}
        }
    }
    assert!(closed);
    Ok(String::from_utf8(heard).unwrap())
}

#[test]
fn ports_of_pods_are_reached() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| ()).await;
        // One gives words back in capitals when all are said; the other listens
        // on IPv6's loopback alone.
        let script = "nc -ll -p 8080 -e tr a-z A-Z & mkdir /x; echo page > /x/index.html; \
                      httpd -f -p [::1]:8081 -h /x & wait";
        let container = scene.shell(script);
        let id = scene.start(&container).await.unwrap();
        for target in [scene.id.as_str(), &id, "pod"] {
            let answer =
                until("the port answers", async || ask(daemon, target, 8080, "hello\n").await.ok());
            assert_eq!(answer.await, "HELLO\n");
        }
        let page = until("the port answers", async || {
            ask(daemon, &scene.id, 8081, "GET / HTTP/1.0\r\n\r\n").await.ok()
        });
        assert!(page.await.ends_with("page\n"));
        let nobody = ask(daemon, "pod", 8082, "").await.unwrap_err();
        assert!(nobody.message().contains("8082"), "{nobody}");
        assert!(nobody.message().contains("refused"), "{nobody}");
        assert_eq!(
            ask(daemon, &scene.id, 70_000, "").await.unwrap_err().code(),
            Code::InvalidArgument
        );
        assert_eq!(ask(daemon, "nobody", 80, "").await.unwrap_err().code(), Code::NotFound);
        scene.client.stop_pod(&scene.id).await.unwrap();
        let stopped = ask(daemon, &scene.id, 8080, "").await.unwrap_err();
        assert_eq!(stopped.code(), Code::FailedPrecondition, "{stopped}");
    });
}

#[test]
fn ports_of_a_pod_in_the_hosts_network_are_the_hosts() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |pod| {
            pod.namespaces().network = NamespaceMode::Node.into();
        })
        .await;
        let mut container = scene.shell("nc -ll -p 8090 -e tr a-z A-Z");
        container.security().namespace_options.get_or_insert_default().network =
            NamespaceMode::Node.into();
        scene.start(&container).await.unwrap();
        let answer =
            until("the port answers", async || ask(daemon, &scene.id, 8090, "hello\n").await.ok());
        assert_eq!(answer.await, "HELLO\n");
    });
}
