//! Containers and execs in a real shim.

mod kit;

use std::fs::File;
use std::io::{Read, Write};

use corten_base::ExecId;
use corten_protocol::exit_record;
use corten_protocol::frame::*;
use kit::*;

#[test]
fn a_container_lives_and_ends() {
    let mut pod = Pod::new();
    let id = pod.create(
        "echo out; echo err >&2; echo $$; df /dev/shm >/dev/null && exit 3",
        Options::default(),
    );
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

#[test]
fn a_command_that_ends_at_once_is_answered_once() {
    let mut pod = Pod::new();
    let id = pod.run("sleep 1000", Options::default());
    for (number, beside) in [(1, false), (2, true)] {
        let run = Target { container: id.clone(), exec: Some(ExecId(number)) };
        let number = pod.client.send_run(&run, "echo good; echo bad >&2; exit 5", 0, beside);
        let (reply, streams) = pod.client.reply(number);
        let Reply::Ended { exit, output } = reply else { panic!("{reply:?}") };
        assert_eq!((exit.code, exit.timed_out), (5, false));
        assert_eq!((output, streams.len()), ([b"good\n".to_vec(), b"bad\n".to_vec()], 0));
        let forgotten = pod.client.call(&Request::Delete { target: run }, &[]).0;
        assert_eq!(forgotten, Reply::Refused(Refusal::Unknown));
    }
    assert_eq!(count_exits(&pod), 0, "nobody will ask for them");
    std::fs::remove_file(pod.path("image/bin/sh")).unwrap();
    let run = Target { container: id, exec: Some(ExecId(3)) };
    let number = pod.client.send_run(&run, "true", 0, false);
    let (reply, _) = pod.client.reply(number);
    assert!(matches!(reply, Reply::Refused(Refusal::Launch(LaunchFailure { errno: 2, .. }))));
    pod.shut_down();
}

#[test]
fn a_command_that_takes_its_time_or_says_much_is_an_exec_like_others() {
    let mut pod = Pod::new();
    let id = pod.run("sleep 1000", Options::default());
    for (number, script, timeout_ms, code, bytes) in [
        (1, "echo a; sleep 0.2; echo b; exit 3", 0, 3, 4),
        // More than a pipe holds: somebody has to read before it ends.
        (2, "yes | head -c 300000", 0, 0, 300_000),
        // More than an answer holds.
        (3, "yes | head -c 5000", 0, 0, 5000),
        (4, "echo a; sleep 1000", 200, 137, 2),
    ] {
        let run = Target { container: id.clone(), exec: Some(ExecId(number)) };
        let number = pod.client.send_run(&run, script, timeout_ms, false);
        let (reply, streams) = pod.client.reply(number);
        assert!(matches!(reply, Reply::Running { .. }), "{reply:?}");
        let [stdout, _stderr] = <[_; 2]>::try_from(streams).unwrap();
        let mut text = Vec::new();
        File::from(stdout).read_to_end(&mut text).unwrap();
        assert_eq!(text.len(), bytes, "{script}");
        let exit = pod.exit_of(&run);
        assert_eq!((exit.code, exit.timed_out), (code, timeout_ms > 0), "{script}");
        pod.delete(run);
    }
    pod.shut_down();
}

#[test]
fn an_execs_stdin_ends_with_the_daemons_end_of_it() {
    let mut pod = Pod::new();
    let id = pod.run("sleep 1000", Options::default());
    let options = ExecOptions { stdin: true, ..ExecOptions::default() };
    let mut exec = pod.exec(&id, "cat; echo end", options);
    exec.streams[0].write_all(b"word\n").unwrap();
    drop(exec.streams.remove(0));
    assert_eq!(pod.exit_of(&exec.target).code, 0);
    let mut text = String::new();
    exec.streams[0].read_to_string(&mut text).unwrap();
    assert_eq!(text, "word\nend\n");
    pod.delete(exec.target);
    pod.shut_down();
}

#[test]
fn signals_and_ends() {
    let mut pod = Pod::new();
    let id =
        pod.run("trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done", Options::default());
    eventually("ready", || pod.log_text("log") == ["ready"]);
    assert_eq!(pod.kill(init(&id), 15), Reply::Done);
    assert_eq!(pod.exit_of(&init(&id)).code, 7);
    let killed = pod.run("sleep 1000", Options::default());
    assert_eq!(pod.kill(init(&killed), 9), Reply::Done);
    assert_eq!(pod.exit_of(&init(&killed)).code, 137);
    let waiting = pod.create("true", Options::default());
    pod.client
        .event(|event| matches!(event, Event::Created { container, .. } if *container == waiting));
    assert_eq!(pod.kill(init(&waiting), 9), Reply::Done);
    assert_eq!(pod.exit_of(&init(&waiting)).code, 137);
    pod.shut_down();
}

#[test]
fn a_command_that_is_not_there() {
    let mut pod = Pod::new();
    std::fs::remove_file(pod.path("image/bin/sh")).unwrap();
    let id = pod.create("true", Options::default());
    let (reply, _) = pod.client.call(&Request::Start { container: id.clone() }, &[]);
    let Reply::Refused(Refusal::Launch(failure)) = reply else { panic!("{reply:?}") };
    assert_eq!(failure.errno, 2);
    pod.client.event(|event| *event == Event::Failed { target: init(&id), failure });
    let (again, _) = pod.client.call(&Request::Start { container: id.clone() }, &[]);
    assert_eq!(again, Reply::Refused(Refusal::Launch(failure)));
    pod.delete(init(&id));
    pod.shut_down();
}

#[test]
fn a_terminal_for_a_container_and_for_an_exec() {
    let mut pod = Pod::new();
    let id =
        pod.run("tty; stty size; sleep 1000", Options { terminal: true, ..Options::default() });
    // A terminal ends lines with CR LF; the log has what the terminal said.
    eventually("the terminal", || pod.log_text("log").len() == 2);
    let lines = pod.log_text("log");
    assert_eq!(lines[1], "24 80\r");
    assert!(lines[0].starts_with("/dev/pts/") || lines[0].starts_with("/dev/console"), "{lines:?}");
    let options = ExecOptions { terminal: true, ..ExecOptions::default() };
    let mut exec = pod.exec(&id, "stty size; read x; stty size; exit 4", options);
    let Reply::Running { .. } = exec.reply else { panic!("{:?}", exec.reply) };
    let resize = Request::Resize { target: exec.target.clone(), rows: 33, columns: 44 };
    assert_eq!(exec.streams.len(), 1);
    let mut text = Vec::new();
    let mut buffer = [0; 100];
    while !text.ends_with(b"10 20\r\n") {
        let count = exec.streams[0].read(&mut buffer).unwrap();
        text.extend_from_slice(&buffer[..count]);
    }
    assert_eq!(pod.client.call(&resize, &[]).0, Reply::Done);
    exec.streams[0].write_all(b"\n").unwrap();
    assert_eq!(pod.exit_of(&exec.target).code, 4);
    while let Ok(count @ 1..) = exec.streams[0].read(&mut buffer) {
        text.extend_from_slice(&buffer[..count]);
    }
    assert!(text.ends_with(b"33 44\r\n"), "{text:?}");
    pod.shut_down();
}

#[test]
fn long_lines_and_another_log_file() {
    let mut pod = Pod::new();
    let script = "head -c 40000 /dev/zero | tr '\\0' x; echo; read go; echo after";
    std::os::unix::fs::symlink("busybox", pod.path("image/bin/tr")).unwrap();
    let script = script.replace("read go", "while [ ! -e /dev/shm/go ]; do sleep 0.02; done");
    std::fs::write(pod.path("image/dev/zero"), [0; 40000]).unwrap();
    let script = script.replace("/dev/zero", "/zeroes");
    std::fs::rename(pod.path("image/dev/zero"), pod.path("image/zeroes")).unwrap();
    let id = pod.run(&script, Options::default());
    eventually("three parts", || pod.log("log").len() == 3);
    let shape: Vec<_> =
        pod.log("log").into_iter().map(|(_, tag, text)| (tag, text.len())).collect();
    assert_eq!(shape, [("P".into(), 16384), ("P".into(), 16384), ("F".into(), 40000 - 2 * 16384)]);
    let new = pod.open_log("new");
    let reopen = Request::ReopenLog { container: id.clone() };
    assert_eq!(pod.client.call(&reopen, &[std::os::fd::AsFd::as_fd(&new)]).0, Reply::Done);
    pod.exec(&id, "touch /dev/shm/go", ExecOptions::default());
    assert_eq!(pod.exit_of(&init(&id)).code, 0);
    assert_eq!((pod.log("log").len(), pod.log_text("new")), (3, vec!["after".to_owned()]));
    pod.shut_down();
}

#[test]
fn a_daemon_that_went_away_and_came_back() {
    let mut pod = Pod::new();
    let id = pod.run(
        "while [ ! -e /dev/shm/go ]; do echo on; sleep 0.01; done; exit 9",
        Options::default(),
    );
    // It dies with an exec's streams in its hands: the exec does not notice.
    let script = "while [ ! -e /dev/shm/first ]; do sleep 0.01; done; echo unheard && exit 6";
    let exec = pod.exec(&id, script, ExecOptions::default());
    drop(exec.streams);
    pod.reconnect();
    let lines = pod.log("log").len();
    eventually("more lines", || pod.log("log").len() > lines + 5);
    // Nobody listens while they end.
    drop(pod.exec(&id, "touch /dev/shm/first", ExecOptions::default()).streams);
    pod.reconnect();
    eventually("two ends", || count_exits(&pod) == 2);
    drop(pod.exec(&id, "touch /dev/shm/go", ExecOptions::default()).streams);
    pod.reconnect();
    eventually("all ends", || count_exits(&pod) == 4);
    pod.reconnect();
    assert_eq!(pod.client.call(&Request::List, &[]).0, Reply::Listed);
    let mut ends: Vec<_> = pod
        .client
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Present { target, phase: Phase::Ended, exit, failure: None, .. } => {
                Some((target.exec.map_or(0, |exec| exec.0), exit.unwrap().code))
            }
            _ => None,
        })
        .collect();
    ends.sort_unstable();
    // (The last exec may be killed with the container that it lets end.)
    assert_eq!((ends.len(), &ends[..3]), (4, &[(0, 9), (1, 6), (2, 0)][..]));
    pod.shut_down();
}

fn count_exits(pod: &Pod) -> usize {
    exit_record::parse(&std::fs::read(pod.path("exits")).unwrap()).count()
}

#[test]
fn hooks_of_the_runtime() {
    let mut pod = Pod::new();
    let id = pod.run("sleep 1000", Options { hooks: true, ..Options::default() });
    let said = || std::fs::read_to_string(pod.path("hooks")).unwrap();
    let text = said();
    assert!(text.starts_with("create\n{\"pid\":") && text.contains("\nstart\n{\"pid\":"), "{text}");
    assert!(!text.contains("stop"));
    pod.kill(init(&id), 9);
    pod.exit_of(&init(&id));
    pod.delete(init(&id));
    let text = std::fs::read_to_string(pod.path("hooks")).unwrap();
    assert!(text.contains("\nstop\n{\"pid\":"), "{text}");
    pod.shut_down();
}
