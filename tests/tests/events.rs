//! What is told of what happens.

use corten_api::corten::corten_client::CortenClient;
use corten_api::corten::events_response::Told;
use corten_api::{corten, cri};
use corten_tests::client::{Client, Container};
use corten_tests::{Daemon, Machine, Scene, until};
use cri::ContainerEventType as Kind;
use cri::ContainerState as State;
use tonic::Streaming;

type Listener = Streaming<cri::ContainerEventResponse>;

async fn listen(client: &mut Client) -> Listener {
    let request = cri::GetEventsRequest::default();
    client.runtime.get_container_events(request).await.expect("a stream").into_inner()
}

async fn next(listener: &mut Listener) -> cri::ContainerEventResponse {
    let next = tokio::time::timeout(corten_tests::poll::PATIENCE, listener.message()).await;
    next.expect("an event in time").expect("a whole stream").expect("an event")
}

/// Reads up to the event of this kind about this thing: what was told.
async fn read_until(listener: &mut Listener, kind: Kind, id: &str) -> Vec<(Kind, String)> {
    let mut told = Vec::new();
    loop {
        let event = next(listener).await;
        told.push((event.container_event_type(), event.container_id.clone()));
        if event.container_event_type() == kind && event.container_id == id {
            return told;
        }
    }
}

/// The status of a container in an event.
fn status<'a>(event: &'a cri::ContainerEventResponse, id: &str) -> &'a cri::ContainerStatus {
    event.containers_statuses.iter().find(|status| status.id == id).expect("its status")
}

#[test]
fn a_life_is_told_with_all_of_the_pod() {
    Machine::run(async |machine, daemon| {
        let mut listener = listen(&mut daemon.client().await).await;
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let container = scene.shell("read line; exit 3");
        let mut container = Container { config: container.config };
        container.config.stdin = false;
        let id = scene.start(&container).await.expect("it runs");
        scene.client.ended(&id).await;
        scene.client.remove(&id).await.expect("it is removed");
        scene.client.stop_pod(&scene.id).await.expect("it is stopped");
        scene.client.remove_pod(&scene.id).await.expect("it is removed");

        let pod = scene.id.as_str();
        for (kind, about) in [
            (Kind::ContainerCreatedEvent, pod),
            (Kind::ContainerStartedEvent, pod),
            (Kind::ContainerCreatedEvent, id.as_str()),
            (Kind::ContainerStartedEvent, &id),
            (Kind::ContainerStoppedEvent, &id),
            (Kind::ContainerDeletedEvent, &id),
            (Kind::ContainerStoppedEvent, pod),
            (Kind::ContainerDeletedEvent, pod),
        ] {
            let event = next(&mut listener).await;
            assert_eq!((event.container_event_type(), event.container_id.as_str()), (kind, about));
            assert!(event.created_at > 0);
            let sandbox = event.pod_sandbox_status.as_ref().expect("the pod");
            assert_eq!(
                (sandbox.id.as_str(), sandbox.metadata.as_ref().unwrap().uid.as_str()),
                (pod, "uid-pod")
            );
            if about == id {
                let status = status(&event, &id);
                assert_eq!(status.metadata.as_ref().unwrap().name, "c1");
                let state = match kind {
                    Kind::ContainerCreatedEvent => State::ContainerCreated,
                    Kind::ContainerStartedEvent => State::ContainerRunning,
                    Kind::ContainerStoppedEvent | Kind::ContainerDeletedEvent => {
                        State::ContainerExited
                    }
                };
                assert_eq!(status.state(), state, "{kind:?}");
                assert!(status.image.is_some() && !status.image_ref.is_empty());
                if state == State::ContainerExited {
                    assert_eq!(status.exit_code, 3);
                }
            }
        }
    });
}

#[test]
fn out_of_memory() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let mut listener = listen(&mut scene.client).await;
        let mut container = scene.shell("exec tail /dev/zero");
        let resources = container.linux().resources.get_or_insert_default();
        resources.memory_limit_in_bytes = 32 << 20;
        resources.memory_swap_limit_in_bytes = 32 << 20;
        let id = scene.start(&container).await.expect("it runs");
        loop {
            let event = next(&mut listener).await;
            if event.container_event_type() == Kind::ContainerStoppedEvent {
                let status = status(&event, &id);
                assert_eq!((status.reason.as_str(), status.exit_code), ("OOMKilled", 137));
                break;
            }
        }
        let mut people = people(daemon).await;
        let told = past(&mut people, "k8s.io", 0).await;
        let killed = told.iter().find(|event| event.kind() == corten::EventKind::OutOfMemory);
        assert_eq!(killed.expect("it is told").container_id, id);
    });
}

#[test]
fn every_listener_hears_everything() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let mut quick = listen(&mut scene.client).await;
        let mut slow = listen(&mut daemon.client().await).await;
        // One that has left disturbs nobody.
        drop(listen(&mut daemon.client().await).await);
        read_until(&mut quick, Kind::ContainerStartedEvent, &scene.id).await;
        let mut last = String::new();
        for _ in 0..10 {
            let container = scene.shell("true");
            last = scene.start(&container).await.expect("it runs");
            scene.client.ended(&last).await;
            scene.client.remove(&last).await.expect("it is removed");
        }
        let told = read_until(&mut quick, Kind::ContainerDeletedEvent, &last).await;
        assert_eq!(told.len(), 40);
        // The slow one reads only now.
        let mut late = read_until(&mut slow, Kind::ContainerDeletedEvent, &last).await;
        late.drain(..late.len() - 40);
        assert_eq!(late, told);
    });
}

#[test]
fn nothing_is_lost_while_nobody_listens() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let one = scene.idle(|_| {}).await;
        let mut listener = listen(&mut scene.client).await;
        read_until(&mut listener, Kind::ContainerStartedEvent, &one).await;
        drop(listener);

        // While nobody listens; then while there is no daemon.
        let two = scene.idle(|_| {}).await;
        let group = scene.group(&one);
        let container = scene.client.status(&one).await.expect("a status");
        assert_eq!(container.state(), State::ContainerRunning);
        daemon.kill();
        kill_all(&group);
        daemon.start_again().await;

        let mut client = daemon.client().await;
        until("the end is known", async || {
            let status = client.status(&one).await.ok()?;
            (status.state() == State::ContainerExited).then_some(())
        })
        .await;
        let mut listener = listen(&mut client).await;
        let told = read_until(&mut listener, Kind::ContainerStoppedEvent, &one).await;
        let about_two: Vec<_> =
            told.iter().filter(|(_, id)| *id == two).map(|(kind, _)| kind).collect();
        assert_eq!(about_two, [&Kind::ContainerCreatedEvent, &Kind::ContainerStartedEvent]);
        drop(listener);

        // What was told is not told again, but for the one that may not have arrived.
        daemon.restart().await;
        let mut client = daemon.client().await;
        let mut listener = listen(&mut client).await;
        client.stop(&two, 0).await.expect("it is stopped");
        let told = read_until(&mut listener, Kind::ContainerStoppedEvent, &two).await;
        assert!(told.len() <= 2, "{told:?}");
    });
}

/// SIGKILL to what is in a group.
fn kill_all(group: &str) {
    let cgroups = corten_kernel::cgroup::Cgroups::probe().expect("cgroups");
    let group = cgroups.open(group).expect("a group");
    let pids = group.pids().expect("its processes");
    assert!(!pids.is_empty());
    for pid in pids.into_iter().filter_map(rustix::process::Pid::from_raw) {
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("a signal");
    }
    until_empty(&group);
}

fn until_empty(group: &corten_kernel::cgroup::Group) {
    corten_tests::poll::until_now("the processes are gone", || {
        group.pids().expect("its processes").is_empty().then_some(())
    });
}

async fn people(daemon: &Daemon) -> CortenClient<tonic::transport::Channel> {
    CortenClient::new(corten_api::connect(daemon.socket()).await.expect("a connection"))
}

/// What has happened in a namespace, from this number on.
async fn past(
    people: &mut CortenClient<tonic::transport::Channel>,
    namespace: &str,
    since: u64,
) -> Vec<corten::Event> {
    let request =
        corten::EventsRequest { namespace: namespace.into(), since: Some(since), past_only: true };
    let mut stream = people.events(request).await.expect("a stream").into_inner();
    let mut told = Vec::new();
    while let Some(message) = stream.message().await.expect("a whole stream") {
        match message.told.expect("something") {
            Told::Event(event) => told.push(event),
            Told::Lost(lost) => panic!("{lost} events were lost"),
            Told::CaughtUp(_) => {}
        }
    }
    told
}

#[test]
fn people_watch_and_measure() {
    Machine::run(async |machine, daemon| {
        let mut people = people(daemon).await;
        let reference = machine.image("busybox");
        let pull = corten::PullImageRequest { reference: reference.clone(), ..Default::default() };
        let mut pull = people.pull_image(pull).await.expect("a pull").into_inner();
        while pull.message().await.expect("progress").is_some() {}
        let container = corten::ContainerSpec {
            name: "idler".into(),
            image: reference.clone(),
            command: ["sleep", "1000"].map(String::from).into(),
            memory_bytes: 64 << 20,
            ..Default::default()
        };
        let request =
            corten::CreateContainerRequest { container: Some(container), ..Default::default() };
        let watch = corten::EventsRequest::default();
        let mut watch = people.events(watch).await.expect("a stream").into_inner();
        let caught = watch.message().await.expect("a whole stream").expect("a message");
        assert!(matches!(caught.told, Some(Told::CaughtUp(_))));
        let id = people.create_container(request).await.expect("it is made").into_inner().id;
        let container = "idler".to_owned();
        let start = corten::StartContainerRequest { container, ..Default::default() };
        people.start_container(start).await.expect("it runs");
        let mut sequence = 0;
        for kind in [corten::EventKind::Created, corten::EventKind::Started] {
            let message = watch.message().await.expect("a whole stream").expect("a message");
            let Some(Told::Event(event)) = message.told else { panic!("{message:?}") };
            assert_eq!((event.kind(), event.container_name.as_str()), (kind, "idler"));
            assert_eq!(
                (event.container_id.as_str(), event.image.as_str()),
                (id.as_str(), reference.as_str())
            );
            assert!(event.pod_name.is_empty() && event.sequence > sequence);
            sequence = event.sequence;
        }

        let stats = corten::StatsRequest { containers: vec!["idler".into()], ..Default::default() };
        let stats = people.stats(stats).await.expect("stats").into_inner().containers;
        let [usage] = &stats[..] else { panic!("{stats:?}") };
        assert_eq!((usage.id.as_str(), usage.name.as_str()), (id.as_str(), "idler"));
        assert_eq!(usage.memory_limit_bytes, Some(64 << 20));
        assert_eq!(usage.pids, Some(1));
        assert!(
            usage.cpu_ns.is_some_and(|ns| ns > 0) && usage.memory_bytes.is_some_and(|all| all > 0)
        );
        assert!(usage.received_bytes.is_some() && usage.layer_bytes.is_some());

        let remove = corten::RemoveContainerRequest {
            container: "idler".into(),
            force: true,
            ..Default::default()
        };
        people.remove_container(remove).await.expect("it is removed");
        let told = past(&mut people, "", sequence + 1).await;
        let kinds: Vec<_> = told.iter().map(corten::Event::kind).collect();
        assert_eq!(kinds, [corten::EventKind::Stopped, corten::EventKind::Deleted]);
        assert_eq!(told[0].exit_code, 137);
        let remove = corten::RemoveImageRequest { image: reference, ..Default::default() };
        people.remove_image(remove).await.expect("the image is removed");
    });
}

#[test]
fn who_listens_does_not_hold_up_a_daemon_that_leaves() {
    Machine::run(async |_, daemon| {
        let mut listener = listen(&mut daemon.client().await).await;
        let mut watch = people(daemon)
            .await
            .events(corten::EventsRequest::default())
            .await
            .expect("a stream")
            .into_inner();
        daemon.stop().await;
        let end = tokio::time::timeout(corten_tests::poll::PATIENCE, listener.message()).await;
        assert!(end.expect("an end in time").expect("a whole stream").is_none());
        while watch.message().await.expect("a whole stream").is_some() {}
        assert!(!daemon.log().contains("given up"), "{}", daemon.log());
        daemon.start_again().await;
    });
}
