//! Containers and execs in a real shim.

mod kit;

use std::io::{Read, Write};

use corten_protocol::exit_record;
use corten_protocol::frame::*;
use kit::*;

#[test]
fn a_container_lives_and_ends() {
    let mut pod = Pod::new();
    let id = pod.create("echo out; echo err >&2; echo $$; df /dev/shm >/dev/null && exit 3", Options::default());
    pod.client.event(|event| matches!(event, Event::Created { .. }));
    let (reply, _) = pod.client.call(&Request::Start { container: id.clone() }, &[]);
    assert!(matches!(reply, Reply::Running { pid: 2.., .. }), "{reply:?}");
    let exit = pod.exit_of(&init(&id));
    assert_eq!((exit.code, exit.oom_killed, exit.timed_out), (3, false, false));
    // What it wrote is in the log when its end is told.
    let mut log = pod.log("log");
    log.sort();
    let line = |stream: &str, text: &str| (stream.to_owned(), "F".to_owned(), text.to_owned());
    assert_eq!(log, [line("stderr", "err"), line("stdout", "1"), line("stdout", "out")]);
    let records = std::fs::read(pod.path("exits")).unwrap();
    let records: Vec<_> = exit_record::parse(&records).collect();
    assert_eq!((records.len(), &records[0].target, records[0].exit), (1, &init(&id), exit));
    let again = pod.client.call(&Request::Start { container: id.clone() }, &[]).0;
    assert_eq!(again, Reply::Refused(Refusal::WrongPhase(Phase::Ended)));
    pod.delete(init(&id));
    assert_eq!(pod.kill(init(&id), 9), Reply::Refused(Refusal::Unknown));
    pod.shut_down();
}

#[test]
fn an_exec_with_its_streams() {
    let mut pod = Pod::new();
    let id = pod.run("sleep 1000", Options::default());
    let options = ExecOptions { stdin: true, ..ExecOptions::default() };
    let mut exec = pod.exec(&id, "read line; echo got $line; echo bad >&2; exit 5", options);
    assert!(matches!(exec.reply, Reply::Running { .. }), "{:?}", exec.reply);
    assert_eq!(exec.streams.len(), 3);
    exec.streams[0].write_all(b"hello\n").unwrap();
    assert_eq!(pod.exit_of(&exec.target).code, 5);
    let mut text = String::new();
    exec.streams[1].read_to_string(&mut text).unwrap();
    exec.streams[2].read_to_string(&mut text).unwrap();
    assert_eq!(text, "got hello\nbad\n");
    pod.delete(exec.target);
    pod.shut_down();
}
