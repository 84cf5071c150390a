//! A container, and an exec in it, on terminals of their own.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use super::kit::*;
use crate::launch::*;

fn until_closed(child: &Child) -> Option<OwnedFd> {
    let mut master = None;
    loop {
        match child.wait_message().expect("message") {
            Message::ConsoleMaster(fd) => master = Some(fd),
            Message::Created => child.release().expect("release"),
            Message::Closed => return master,
            other => panic!("{other:?}"),
        }
    }
}

/// Reads up to and with `end`.
fn read_until(master: &mut File, end: &str) -> String {
    let mut text = Vec::new();
    let mut byte = [0u8; 1];
    while !text.ends_with(end.as_bytes()) {
        if !matches!(master.read(&mut byte), Ok(1)) {
            break;
        }
        text.push(byte[0]);
    }
    String::from_utf8(text).expect("text")
}

#[test]
fn a_terminal_of_its_own() {
    let image = Image::new();
    let console = Step::Console { uid: 0, rows: 33, columns: 77 };
    let shell = Shell::new("tty; stty size; ls -l /dev/console; read word; echo said-$word");
    let mut steps = container_steps(&[Step::AwaitStart], shell.step());
    let switch = steps.iter().position(|step| *step == Step::SwitchRoot).expect("switch");
    steps.insert(switch, console);
    let root = image.mount();
    let running = run_with(&steps, OWN, Join::Parents, &[root.as_fd()]);
    let mut master = File::from(until_closed(&running.child).expect("master"));
    let text = read_until(&mut master, "/dev/console\r\n");
    assert!(text.starts_with("/dev/pts/0\r\n33 77\r\ncrw--w---- "), "{text:?}");

    let join = Join::Process { pidfd: running.child.pidfd(), user: false };
    let shell = Shell::new("tty; stty size");
    let exec = [
        Step::EnterCgroups,
        Step::NewSession,
        Step::Console { uid: 0, rows: 10, columns: 20 },
        shell.step(),
    ];
    let second = run_with(&exec, &[], join, &[]);
    let mut other = File::from(until_closed(&second.child).expect("master"));
    assert_eq!(read_until(&mut other, "10 20\r\n"), "/dev/pts/1\r\n10 20\r\n");
    assert_eq!(reap(&second.child), 0);

    master.write_all(b"hello\n").expect("write");
    assert!(read_until(&mut master, "said-hello\r\n").ends_with("said-hello\r\n"));
    assert_eq!(reap(&running.child), 0);
}
