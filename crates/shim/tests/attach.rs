//! Clients attached to containers of a real shim.

mod kit;

use std::fs::File;
use std::io::{Read, Write};

use corten_base::ContainerId;
use corten_base::limits::POD_ATTACHMENTS_MAX;
use corten_kernel::stream;
use corten_protocol::frame::*;
use kit::*;

const ALL: Attached = Attached { stdin: true, stdout: true, stderr: true };
const OUTPUT: Attached = Attached { stdin: false, ..ALL };

fn attach(pod: &mut Pod, container: &ContainerId, streams: Attached) -> (Reply, Vec<File>) {
    let request = Request::Attach { container: container.clone(), streams };
    let (reply, fds) = pod.client.call(&request, &[]);
    (reply, fds.into_iter().map(File::from).collect())
}

/// Attached to the streams that are asked for, all of which are there.
fn attached(pod: &mut Pod, container: &ContainerId, streams: Attached) -> Vec<File> {
    let (reply, files) = attach(pod, container, streams);
    assert_eq!(reply, Reply::Attached(streams));
    files
}

fn interactive(stdin_once: bool, terminal: bool) -> Options {
    let stdio = Stdio { stdin: true, stdin_once, ..Stdio::default() };
    Options { stdio, terminal, ..Options::default() }
}

fn read_all(mut file: &File) -> String {
    let mut text = Vec::new();
    file.read_to_end(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

fn read_until(mut file: &File, end: &str) -> String {
    let (mut text, mut buffer) = (String::new(), [0; 1000]);
    while !text.ends_with(end) {
        let count = file.read(&mut buffer).unwrap();
        assert!(count > 0, "it ended after {text:?}");
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    text
}

fn start(pod: &mut Pod, container: &ContainerId) {
    let (reply, _) = pod.client.call(&Request::Start { container: container.clone() }, &[]);
    assert!(matches!(reply, Reply::Running { .. }), "{reply:?}");
}

#[test]
fn everything_is_heard_from_the_first_byte_on_by_everybody() {
    let mut pod = Pod::new();
    let id = pod.create("echo out; echo err >&2; exit 3", Options::default());
    let one = attached(&mut pod, &id, OUTPUT);
    let other = attached(&mut pod, &id, Attached { stdout: false, ..OUTPUT });
    let (reply, none) = attach(&mut pod, &id, Attached { stdin: true, ..Attached::default() });
    // Nothing but what tells its fate.
    assert_eq!((reply, none.len()), (Reply::Attached(Attached::default()), 1));
    start(&mut pod, &id);
    let heard = [read_all(&one[0]), read_all(&one[1]), read_all(&other[0])];
    assert_eq!(heard, ["out\n", "err\n", "err\n"]);
    assert_eq!(pod.exit_of(&init(&id)).code, 3);
    assert_eq!(pod.log("log").len(), 2);
    let (reply, _) = attach(&mut pod, &id, OUTPUT);
    assert_eq!(reply, Reply::Refused(Refusal::WrongPhase(Phase::Ended)));
    pod.delete(init(&id));
    let (reply, _) = attach(&mut pod, &id, OUTPUT);
    assert_eq!(reply, Reply::Refused(Refusal::Unknown));
    pod.shut_down();
}

#[test]
fn input_of_several_clients_goes_to_the_container() {
    let mut pod = Pod::new();
    let id = pod.run("while read x; do echo got $x; done; echo end", interactive(false, false));
    let mut one = attached(&mut pod, &id, ALL);
    one[0].write_all(b"a\n").unwrap();
    assert_eq!(read_until(&one[1], "got a\n"), "got a\n");
    let mut other = attached(&mut pod, &id, ALL);
    drop(one);
    // Without stdin_once, its stdin stays open when a client leaves.
    other[0].write_all(b"b\n").unwrap();
    assert_eq!(read_until(&other[1], "got b\n"), "got b\n");
    pod.reconnect();
    let mut third = attached(&mut pod, &id, ALL);
    third[0].write_all(b"c\n").unwrap();
    assert_eq!(read_until(&third[1], "got c\n"), "got c\n");
    assert_eq!(pod.client.call(&Request::CloseStdin { target: init(&id) }, &[]).0, Reply::Done);
    assert_eq!(read_all(&third[1]), "end\n");
    assert!(read_all(&other[1]).ends_with("got c\nend\n"));
    pod.exit_of(&init(&id));
    assert_eq!(pod.log_text("log"), ["got a", "got b", "got c", "end"]);
    pod.shut_down();
}

#[test]
fn the_first_clients_end_is_the_end_of_stdin_once() {
    let mut pod = Pod::new();
    let id = pod.run("cat; echo end", interactive(true, false));
    let mut client = attached(&mut pod, &id, ALL);
    // More than pipes and the shim hold.
    let sent = "0123456789abcde\n".repeat(64 << 10);
    let output = client.remove(1);
    let reader = std::thread::spawn(move || read_all(&output));
    client[0].write_all(sent.as_bytes()).unwrap();
    drop(client.remove(0));
    let heard = reader.join().unwrap();
    assert!(heard.len() == sent.len() + 4 && heard.starts_with(&sent) && heard.ends_with("end\n"));
    pod.exit_of(&init(&id));
    assert_eq!(pod.log("log").len(), (64 << 10) + 1);
    pod.shut_down();
}

/// The client of a daemon that died has left without a word.
#[test]
fn a_client_that_vanishes_ends_stdin_once_and_nothing_else() {
    let mut pod = Pod::new();
    let id = pod.run("cat; echo end; sleep 1000", interactive(true, false));
    let one = attached(&mut pod, &id, ALL);
    let watcher = attached(&mut pod, &id, OUTPUT);
    drop(one);
    assert_eq!(read_until(&watcher[0], "end\n"), "end\n");
    let (reply, _) = attach(&mut pod, &id, ALL);
    assert_eq!(reply, Reply::Attached(OUTPUT));
    pod.kill(init(&id), 9);
    assert_eq!(read_all(&watcher[0]), "");
    pod.shut_down();
}

#[test]
fn a_slow_client_loses_its_session_and_not_the_log() {
    let mut pod = Pod::new();
    let id = pod.create("seq 1 200000; exit 0", Options::default());
    let slow = attached(&mut pod, &id, OUTPUT);
    let quick = attached(&mut pod, &id, OUTPUT);
    start(&mut pod, &id);
    let heard = read_all(&quick[0]);
    assert_eq!(heard.lines().count(), 200_000);
    pod.exit_of(&init(&id));
    assert_eq!(pod.log("log").len(), 200_000);
    let heard = read_all(&slow[0]);
    assert!(heard.starts_with("1\n2\n") && heard.len() < 1 << 20, "{}", heard.len());
    // It is told, and nobody else.
    assert_eq!([read_all(&slow[2]), read_all(&quick[2])], ["s", ""]);
    pod.shut_down();
}

/// A container that nobody can keep up with is as fast as who reads it.
#[test]
fn a_busy_client_gets_every_byte() {
    let mut pod = Pod::new();
    let id = pod.create("seq 1 300000", Options::default());
    let mut client = attached(&mut pod, &id, OUTPUT);
    start(&mut pod, &id);
    let mut heard = Vec::new();
    let mut piece = [0; 8192];
    while let Ok(count @ 1..) = client[0].read(&mut piece) {
        heard.extend_from_slice(&piece[..count]);
        std::thread::yield_now();
    }
    assert_eq!(heard.iter().filter(|byte| **byte == b'\n').count(), 300_000);
    assert!(heard.ends_with(b"\n300000\n"));
    pod.exit_of(&init(&id));
    pod.shut_down();
}

#[test]
fn the_end_is_heard_although_the_container_is_forgotten() {
    let mut pod = Pod::new();
    let id = pod.create("seq 1 20000", Options::default());
    let client = attached(&mut pod, &id, OUTPUT);
    start(&mut pod, &id);
    pod.exit_of(&init(&id));
    pod.delete(init(&id));
    let heard = read_all(&client[0]);
    assert!(heard.ends_with("\n20000\n"));
    pod.shut_down();
}

#[test]
fn a_terminal_is_heard_spoken_to_and_resized() {
    let mut pod = Pod::new();
    let script = "stty size; read x; echo got $x; stty size; read x; exit 4";
    let id = pod.create(script, interactive(true, true));
    let size = |rows, columns| Request::Resize { target: init(&id), rows, columns };
    // The terminal may not have been made yet.
    assert_eq!(pod.client.call(&size(31, 41), &[]).0, Reply::Done);
    let (reply, mut client) = attach(&mut pod, &id, ALL);
    assert_eq!(reply, Reply::Attached(Attached { stderr: false, ..ALL }));
    start(&mut pod, &id);
    assert_eq!(read_until(&client[1], "\n"), "31 41\r\n");
    assert_eq!(pod.client.call(&size(33, 44), &[]).0, Reply::Done);
    client[0].write_all(b"word\n").unwrap();
    assert!(read_until(&client[1], "33 44\r\n").contains("got word\r\n"));
    client[0].write_all(b"\n").unwrap();
    assert_eq!(pod.exit_of(&init(&id)).code, 4);
    pod.shut_down();
}

#[test]
fn no_more_clients_than_the_limit() {
    let mut pod = Pod::new();
    let id = pod.run("sleep 1000", Options::default());
    let clients: Vec<_> =
        (0..POD_ATTACHMENTS_MAX).map(|_| attached(&mut pod, &id, OUTPUT)).collect();
    assert_eq!(attach(&mut pod, &id, OUTPUT).0, Reply::Refused(Refusal::Full));
    drop(clients);
    // Those that have left make room as soon as the shim sees it.
    let asked = std::cell::RefCell::new(&mut pod);
    eventually("room", || {
        matches!(attach(&mut asked.borrow_mut(), &id, OUTPUT).0, Reply::Attached(_))
    });
    pod.shut_down();
}

/// Input that the container does not take waits with the client.
#[test]
fn input_that_nobody_takes_is_bounded() {
    let mut pod = Pod::new();
    let id = pod.run("read x; echo first; sleep 1000", interactive(false, false));
    let mut client = attached(&mut pod, &id, ALL);
    client[0].write_all(b"x\n").unwrap();
    assert_eq!(read_until(&client[1], "first\n"), "first\n");
    stream::set_nonblocking(&client[0]).unwrap();
    let piece = [b'x'; 4096];
    let full = std::cell::Cell::new(0);
    let input = &client[0];
    eventually("it is full", || {
        let mut input = input;
        while let Ok(count) = input.write(&piece) {
            full.set(full.get() + count);
        }
        full.get() > 100_000
    });
    assert!(full.get() < 1 << 20, "{full:?}");
    pod.kill(init(&id), 9);
    pod.exit_of(&init(&id));
    let mut input = &client[0];
    let gone = input.write(&piece).unwrap_err();
    assert_eq!(gone.kind(), std::io::ErrorKind::BrokenPipe);
    pod.shut_down();
}
