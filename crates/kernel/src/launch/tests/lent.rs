//! Children that walk in their parent's memory.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use super::kit::*;
use crate::launch::*;

#[test]
fn its_steps_change_the_child_alone() {
    let shell = Shell::new("umask; pwd; echo $A; grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status");
    let steps = [Step::NewSession, Step::WorkingDirectory { path: c"/tmp" }, shell.step()];
    let outcome = run_lent(&steps, &[]).finish();
    assert_eq!((outcome.code, outcome.failed), (0, None), "{outcome:?}");
    let lines: Vec<&str> = outcome.output.lines().collect();
    assert_eq!(lines[1], "/tmp", "{outcome:?}");
    assert_eq!(lines[3..], ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000", lines[5]]);
    assert_ne!(std::env::current_dir().unwrap().to_str(), Some("/tmp"));
}

#[test]
fn its_failure_is_told() {
    let shell = Shell::new("true");
    let steps = [Step::WorkingDirectory { path: c"/nowhere/at/all" }, shell.step()];
    let outcome = run_lent(&steps, &[]).finish();
    assert_eq!(outcome.failed, Some((0, Errno::NOENT.raw_os_error())), "{outcome:?}");
    assert_eq!(outcome.code, 255);
}

#[test]
fn it_cannot_enter_a_container() {
    let null = null();
    let null = std::os::fd::AsFd::as_fd(&null);
    let launch = Launch {
        steps: [].into_iter(),
        new_namespaces: &[NamespaceKind::Pid],
        join: Join::Parents,
        fds: &[],
        stdio: [null; 3],
        inherit: &[],
        memory: Memory::Lent,
        cgroup: None,
        tasks: &[],
    };
    assert_eq!(spawn(&launch).map(|child| child.pid()), Err(Errno::INVAL));
}

/// Its parent's threads go on, with a heap that nobody touches for them.
#[test]
fn others_go_on_meanwhile() {
    const CHILDREN: usize = 100;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for byte in 0..2u8 {
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let texts: Vec<Vec<u8>> = (1..200).map(|bytes| vec![byte; bytes * 7]).collect();
                    assert!(texts.iter().flatten().all(|each| *each == byte));
                }
            });
        }
        for number in 0..CHILDREN {
            let shell = Shell::new(&format!("echo {number}; exit 3"));
            let outcome = run_lent(&[shell.step()], &[]).finish();
            assert_eq!((outcome.output, outcome.code), (format!("{number}\n"), 3));
        }
        done.store(true, Ordering::Relaxed);
    });
}
