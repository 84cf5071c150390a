//! What daemon and shim tell each other: either may be of another version, and
//! a shim outlives its daemon.

use corten_base::limits::EXIT_RECORD_BYTES;
use corten_base::{ContainerId, ExecId};
use corten_protocol::exit_record::{self, ExitRecord};
use corten_protocol::frame::{
    Attached, CgroupFds, Event, Exit, FromShim, LaunchFailure, PodNamespaces, Refusal, Reply,
    Request, Stdio, Target, VERSION,
};
use corten_protocol::plan::PlanView;

/// The launch plans of some containers, and one of an exec.
pub(super) fn plan_seeds() -> Vec<Vec<u8>> {
    super::documents::plans()
}

pub(super) fn plan(bytes: &[u8]) {
    let Ok(view) = PlanView::parse(bytes) else { return };
    let header = view.header();
    let hooks = view.hooks().count();
    let steps = view.steps().count();
    assert_eq!(steps, view.step_count() as usize);
    assert!(steps <= bytes.len() && hooks <= bytes.len());
    for step in 0..view.step_count().min(256) {
        assert!(!view.describe_step(step).is_empty(), "{header:?}");
    }
}

fn container() -> ContainerId {
    ContainerId::from_random([7; 32])
}

pub(super) fn frame_seeds() -> Vec<Vec<u8>> {
    let container = container();
    let target = Target { container: container.clone(), exec: Some(ExecId(3)) };
    let requests = [
        Request::Hello { version: VERSION },
        Request::Sandbox {
            namespaces: PodNamespaces { user: true, net: true, ipc: true, uts: true },
            shm_bytes: 64 << 20,
            shm_uid: 1,
            shm_gid: 2,
            shm_label: "u:r:t:s0".into(),
        },
        Request::Create {
            container: container.clone(),
            stdio: Stdio { terminal: true, log: true, ..Stdio::default() },
            cgroup: CgroupFds { into: true, kill: true, tasks: 8, oom: true },
        },
        Request::Start { container: container.clone() },
        Request::Attach {
            container: container.clone(),
            streams: Attached { stdin: true, stdout: true, stderr: true },
        },
        Request::Kill { target: target.clone(), signal: 9, all: true },
        Request::Resize { target: target.clone(), rows: 24, columns: 80 },
        Request::List,
    ];
    let failure = LaunchFailure { step: 3, errno: 13 };
    let messages = [
        FromShim::Reply(7, Reply::Done),
        FromShim::Reply(8, Reply::Running { pid: 99, at_ns: 1 }),
        FromShim::Reply(9, Reply::Refused(Refusal::Launch(failure))),
        FromShim::Event(Event::Exited { target: target.clone(), exit: exit() }),
    ];
    let requests = requests.iter().map(|request| [&[0][..], &request.encode(7)].concat());
    let messages = messages.iter().map(|message| [&[1][..], &message.encode()].concat());
    let record =
        ExitRecord { target, started_ns: 1, exit: exit(), failure: Some(failure) }.encode();
    let records = [[&[2][..], &record, &record].concat()];
    requests.chain(messages).chain(records).collect()
}

fn exit() -> Exit {
    Exit { code: 137, oom_killed: true, timed_out: false, at_ns: 1_700_000_000_000_000_000 }
}

/// The first byte says who reads: the shim, the daemon, or the next daemon.
pub(super) fn frames(bytes: &[u8]) {
    let Some((who, frame)) = bytes.split_first() else { return };
    match who % 3 {
        0 => {
            let number = Request::number(frame);
            if let Ok((read, request)) = Request::decode(frame) {
                assert_eq!(number, Some(read));
                let again = Request::decode(&request.encode(read));
                assert_eq!(again, Ok((read, request)), "a frame says the same when sent on");
            }
        }
        1 => {
            if let Ok(message) = FromShim::decode(frame) {
                assert_eq!(FromShim::decode(&message.encode()), Ok(message));
            }
        }
        _ => {
            let most = frame.len() / EXIT_RECORD_BYTES + 1;
            assert!(ExitRecord::read_all(frame).count() <= most);
            for record in exit_record::parse(frame) {
                assert_eq!(ExitRecord::decode(&record.encode()), Ok(record));
            }
        }
    }
}
