//! Every kind of frame there and back, and frames with errors in them.

use corten_base::limits::FRAME_BYTES_MAX;
use corten_base::{ContainerId, ExecId};

use super::*;

fn container() -> ContainerId {
    ContainerId::from_random(std::array::from_fn(|n| (n * 9) as u8))
}

fn targets() -> [Target; 2] {
    let container = container();
    [
        Target { container: container.clone(), exec: None },
        Target { container, exec: Some(ExecId(u64::MAX - 1)) },
    ]
}

fn requests() -> Vec<Request> {
    let container = container();
    let stdio =
        Stdio { terminal: true, stdin: false, stdin_once: true, log: false, hand_over: true };
    let cgroup = CgroupFds { into: true, kill: false, tasks: 12, oom: true };
    let mut all = vec![
        Request::Hello { version: VERSION },
        Request::Sandbox {
            namespaces: PodNamespaces { user: true, net: false, ipc: true, uts: false },
            shm_bytes: 64 << 20,
            shm_uid: 100_000,
            shm_gid: 200_000,
            shm_label: "u:r:t:s0:c1,c2".into(),
        },
        Request::Namespaces,
        Request::Create { container: container.clone(), stdio, cgroup },
        Request::Start { container: container.clone() },
        Request::Exec {
            container: container.clone(),
            exec: ExecId(7),
            stdio: Stdio::default(),
            timeout_ms: u64::MAX,
            cgroup: CgroupFds::default(),
        },
        Request::Run {
            container: container.clone(),
            exec: ExecId(8),
            timeout_ms: 1,
            cgroup,
            plan: vec![7; RUN_PLAN_BYTES_MAX],
        },
        Request::Attach {
            container: container.clone(),
            streams: Attached { stdin: true, stdout: false, stderr: true },
        },
        Request::ReopenLog { container },
        Request::List,
        Request::Shutdown,
    ];
    for target in targets() {
        all.push(Request::Kill { target: target.clone(), signal: 15, all: true });
        all.push(Request::Resize { target: target.clone(), rows: 24, columns: 80 });
        all.push(Request::CloseStdin { target: target.clone() });
        all.push(Request::HangUp { target: target.clone() });
        all.push(Request::Delete { target });
    }
    all
}

fn messages() -> Vec<FromShim> {
    let container = container();
    let exit = Exit { code: 137, oom_killed: true, timed_out: false, at_ns: 1 << 60 };
    let failure = LaunchFailure { step: LaunchFailure::HOOK, errno: -1 };
    let mut all = vec![
        FromShim::Reply(1, Reply::Done),
        FromShim::Reply(2, Reply::Hello { version: 1 }),
        FromShim::Reply(u32::MAX, Reply::Running { pid: 12, at_ns: -5 }),
        FromShim::Reply(4, Reply::Listed),
        FromShim::Reply(7, Reply::Ended { exit, output: [vec![b'x'; OUTPUT_BYTES_MAX], vec![]] }),
        FromShim::Reply(8, Reply::Ended { exit, output: [vec![], b"why".to_vec()] }),
        FromShim::Reply(6, Reply::Attached(Attached { stdin: false, stdout: true, stderr: true })),
        FromShim::Reply(5, Reply::Namespaces(PodNamespaces::default())),
        FromShim::Event(Event::Created { container: container.clone(), pid: 1 }),
        FromShim::Event(Event::OutOfMemory { container: container.clone() }),
        FromShim::Event(Event::LogBroken { container, errno: 28 }),
    ];
    for refusal in [
        Refusal::Unknown,
        Refusal::WrongPhase(Phase::Creating),
        Refusal::WrongPhase(Phase::Created),
        Refusal::WrongPhase(Phase::Running),
        Refusal::WrongPhase(Phase::Ended),
        Refusal::Exists,
        Refusal::Malformed,
        Refusal::Full,
        Refusal::System { errno: 12 },
        Refusal::Launch(failure),
    ] {
        all.push(FromShim::Reply(9, Reply::Refused(refusal)));
    }
    for target in targets() {
        for (exit, failure) in [(Some(exit), None), (None, Some(failure)), (None, None)] {
            all.push(FromShim::Event(Event::Present {
                target: target.clone(),
                phase: Phase::Ended,
                pid: 0,
                started_ns: 3,
                exit,
                failure,
            }));
        }
        all.push(FromShim::Event(Event::Exited { target: target.clone(), exit }));
        all.push(FromShim::Event(Event::Failed { target: target.clone(), failure }));
        all.push(FromShim::Event(Event::Warning { target, step: 3, errno: 1 }));
    }
    all
}

#[test]
fn there_and_back() {
    for (number, request) in (0..).zip(requests()) {
        let frame = request.encode(number);
        assert!(frame.len() <= FRAME_BYTES_MAX);
        assert_eq!(Request::number(&frame), Some(number));
        assert_eq!(Request::decode(&frame), Ok((number, request)));
    }
    for message in messages() {
        let frame = message.encode();
        assert!(frame.len() <= FRAME_BYTES_MAX);
        assert_eq!(FromShim::decode(&frame), Ok(message));
    }
}

#[test]
fn the_unknown_is_reported() {
    let frame = Request::List.encode(3);
    let changed = |at: usize, byte: u8| {
        let mut frame = frame.clone();
        frame[at] = byte;
        Request::decode(&frame).unwrap_err()
    };
    assert_eq!(changed(0, b'x'), DecodeError::NoFrame);
    assert_eq!(changed(4, 9), DecodeError::Version(9));
    assert_eq!(changed(6, 99), DecodeError::Kind(99));
    assert_eq!(Request::decode(&[]), Err(DecodeError::NoFrame));
    assert_eq!(Request::decode(&frame[..8]), Err(DecodeError::TooShort));
    let mut long = frame.clone();
    long.push(0);
    assert_eq!(Request::decode(&long), Err(DecodeError::TooLong));
    assert_eq!(Request::number(&long), Some(3));
}

/// Frames with bytes changed, cut off, put in and taken out: read as something
/// or refused, and what is read is written as it was.
#[test]
fn changed_frames_never_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut frames: Vec<Vec<u8>> = requests().iter().map(|request| request.encode(1)).collect();
    frames.extend(messages().iter().map(FromShim::encode));
    for _ in 0..100_000 {
        let mut frame = frames[random(frames.len())].clone();
        for _ in 0..=random(3) {
            let at = random(frame.len().max(1));
            match random(5) {
                0 => frame.truncate(at),
                1 => frame.insert(at.min(frame.len()), random(256) as u8),
                2 if !frame.is_empty() => drop(frame.remove(at)),
                _ if !frame.is_empty() => frame[at] = random(256) as u8,
                _ => {}
            }
        }
        if let Ok((number, request)) = Request::decode(&frame) {
            assert_eq!(request.encode(number), frame);
        }
        if let Ok(message) = FromShim::decode(&frame) {
            let again = FromShim::decode(&message.encode());
            assert_eq!(again, Ok(message));
        }
    }
}
