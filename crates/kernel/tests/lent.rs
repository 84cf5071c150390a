//! What a child in lent memory leaves of its parent. Alone in a process: what is
//! looked at here is a property of the whole process, and other tests change it.

use std::os::fd::AsFd;

use corten_kernel::launch::{CStrList, Join, Launch, Memory, Message, Step, spawn};
use rustix::process::{DumpableBehavior, WaitId, WaitIdOptions, dumpable_behavior, waitid};

#[test]
fn its_parent_can_still_be_looked_into() {
    let steps = [
        Step::NewSession,
        Step::Exec {
            candidates: CStrList { count: 1, bytes: b"/bin/true\0" },
            args: CStrList { count: 1, bytes: b"true\0" },
            env: CStrList { count: 0, bytes: b"" },
        },
    ];
    let null = std::fs::File::options().read(true).write(true).open("/dev/null").unwrap();
    assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::Dumpable);
    let child = spawn(&Launch {
        steps: steps.iter().copied(),
        new_namespaces: &[],
        join: Join::Parents,
        fds: &[],
        stdio: [null.as_fd(); 3],
        inherit: &[],
        memory: Memory::Lent,
        cgroup: None,
        tasks: &[],
    })
    .unwrap();
    assert!(matches!(child.wait_message().unwrap(), Message::Closed));
    let status = waitid(WaitId::PidFd(child.pidfd()), WaitIdOptions::EXITED).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(0));
    assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::Dumpable);
}
