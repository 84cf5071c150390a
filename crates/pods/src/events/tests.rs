//! Tests of the hub.

use super::*;
use corten_base::limits::EVENTS_MAX;
use corten_spec::request::SandboxConfig;

use crate::view::SandboxPhase;

fn pod(identity: &Identity) -> SandboxView {
    SandboxView {
        id: identity.sandbox.clone(),
        namespace: identity.namespace.clone(),
        config: Arc::new(SandboxConfig { name: identity.name.clone(), ..Default::default() }),
        phase: SandboxPhase::NotReady,
        created_at_ns: identity.created_at_ns,
        ips: Vec::new(),
        netns: None,
        shim_pid: None,
    }
}

fn identity() -> Identity {
    Identity {
        sandbox: SandboxId::from_random([1; 32]),
        namespace: Namespace::kubernetes(),
        name: "pod".into(),
        uid: String::new(),
        pod_namespace: String::new(),
        attempt: 0,
        solo: false,
        created_at_ns: 1,
    }
}

fn tell(hub: &Hub, kind: EventKind) {
    let sandbox = pod(&identity());
    hub.tell(|| News {
        kind,
        at_ns: corten_kernel::process::realtime_ns(),
        container: None,
        sandbox,
        containers: Vec::new(),
    });
}

fn open(dir: &tempfile::TempDir) -> Arc<Hub> {
    let hub = Hub::open(&dir.path().join("events"), 100);
    hub.restore(|identity| (pod(identity), Vec::new()));
    Arc::new(hub)
}

/// The number of the next event, or how large the gap is.
async fn next(events: &mut Events) -> Result<u64, u64> {
    match events.next().await.expect("it is not over") {
        Told::Event(event) => Ok(event.sequence),
        Told::Gap(lost) => Err(lost),
    }
}

#[tokio::test]
async fn every_listener_hears_everything_at_its_own_speed() {
    let dir = tempfile::tempdir().unwrap();
    let hub = open(&dir);
    let mut quick = hub.listen(Since::Now);
    let mut slow = hub.listen(Since::Now);
    tell(&hub, EventKind::Created);
    assert_eq!(next(&mut quick).await, Ok(100));
    tell(&hub, EventKind::Started);
    assert_eq!(next(&mut quick).await, Ok(101));
    assert_eq!((next(&mut slow).await, next(&mut slow).await), (Ok(100), Ok(101)));
    assert_eq!(next(&mut hub.listen(Since::Sequence(101))).await, Ok(101));
}

#[tokio::test]
async fn who_is_too_slow_is_told_of_the_gap() {
    let dir = tempfile::tempdir().unwrap();
    let hub = open(&dir);
    let mut slow = hub.listen(Since::Now);
    for _ in 0..EVENTS_MAX + 7 {
        tell(&hub, EventKind::Created);
    }
    assert_eq!(next(&mut slow).await, Err(7));
    assert_eq!(next(&mut slow).await, Ok(107));
}

#[tokio::test]
async fn what_nobody_has_heard_waits() {
    let dir = tempfile::tempdir().unwrap();
    let hub = open(&dir);
    tell(&hub, EventKind::Created);
    tell(&hub, EventKind::Started);
    let mut first = hub.listen(Since::Unheard);
    assert_eq!(next(&mut first).await, Ok(100));
    // It asks for the next one, and so has heard the one before.
    assert_eq!(next(&mut first).await, Ok(101));
    drop(first);
    // The last one may not have arrived: it is told again.
    assert_eq!(next(&mut hub.listen(Since::Unheard)).await, Ok(101));
}

#[tokio::test]
async fn the_next_daemon_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let hub = open(&dir);
    tell(&hub, EventKind::Created);
    tell(&hub, EventKind::Started);
    let mut listener = hub.listen(Since::Unheard);
    assert_eq!((next(&mut listener).await, next(&mut listener).await), (Ok(100), Ok(101)));
    hub.close();
    assert!(listener.next().await.is_none());
    drop((hub, listener));

    // As if it had been killed while it wrote the next one.
    let path = dir.path().join("events");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_slice(&[200, 0, 0, 0, b'{']);
    std::fs::write(&path, bytes).unwrap();
    let hub = open(&dir);
    tell(&hub, EventKind::Stopped);
    let mut listener = hub.listen(Since::Unheard);
    let Some(Told::Event(event)) = listener.next().await else { panic!("no event") };
    assert_eq!((event.sequence, event.kind), (102, EventKind::Stopped));
    let mut all = hub.listen(Since::Sequence(0));
    assert_eq!(next(&mut all).await, Err(100));
    let Some(Told::Event(event)) = all.next().await else { panic!("no event") };
    assert_eq!((event.kind, event.sandbox.config.name.as_str()), (EventKind::Created, "pod"));
}

#[test]
fn the_file_does_not_grow_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let hub = open(&dir);
    for _ in 0..9 * EVENTS_MAX {
        tell(&hub, EventKind::Created);
    }
    let length = std::fs::metadata(dir.path().join("events")).unwrap().len();
    assert!(length <= corten_base::limits::EVENTS_FILE_BYTES_MAX as u64, "{length}");
    drop(hub);
    let hub = open(&dir);
    assert_eq!(hub.listen(Since::Now).position(), 100 + 9 * EVENTS_MAX as u64);
}

#[test]
fn a_file_that_cannot_be_written_gives_no_number_twice() {
    let dir = tempfile::tempdir().unwrap();
    let hub = open(&dir);
    // Files cannot be made there any more.
    std::fs::rename(dir.path().join("events"), dir.path().join("old")).unwrap();
    std::fs::create_dir(dir.path().join("events.new")).unwrap();
    for _ in 0..9 * EVENTS_MAX {
        tell(&hub, EventKind::Created);
    }
    assert_eq!(hub.listen(Since::Now).position(), 100 + 9 * EVENTS_MAX as u64);
    assert!(!dir.path().join("events").exists());
}

#[test]
fn a_damaged_file_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("events"), b"something else").unwrap();
    assert_eq!(open(&dir).listen(Since::Unheard).position(), 100);
}
