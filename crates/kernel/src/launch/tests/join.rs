//! Processes launched into a running container.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use super::kit::*;
use crate::launch::*;
use crate::sys;

#[test]
fn an_exec_sees_the_container() {
    let image = Image::new();
    let root = image.mount();
    let (reader, mut writer) = std::io::pipe().expect("pipe");
    let reader = OwnedFd::from(reader);
    let null = null();
    let shell = Shell::new("read line; exit 7");
    let steps = container_steps(&[Step::AwaitStart], shell.step());
    let launch = Launch {
        steps: steps.iter().copied(),
        new_namespaces: OWN,
        join: Join::Parents,
        fds: &[root.as_fd()],
        stdio: [reader.as_fd(), null.as_fd(), null.as_fd()],
        inherit: &[],
        memory: Memory::Copied,
        cgroup: None,
        tasks: &[],
    };
    let container = spawn(&launch).expect("spawn");
    assert!(matches!(container.wait_message(), Ok(Message::Created)));
    container.release().expect("release");
    assert!(matches!(container.wait_message(), Ok(Message::Closed)));

    let join = Join::Process { pidfd: container.pidfd(), user: false };
    let shell = Shell::new("cat /proc/sys/kernel/hostname; cat /proc/1/comm; ls /; echo $A");
    let exec = [Step::EnterCgroups, Step::WorkingDirectory { path: c"/tmp" }, shell.step()];
    let outcome = run_with(&exec, &[], join, &[]).finish();
    assert_eq!(outcome.failed, None, "{outcome:?}");
    assert!(outcome.output.starts_with("testpod\nsh\nbin\n"), "{outcome:?}");
    assert_eq!(outcome.code, 0);

    writer.write_all(b"\n").expect("write");
    assert_eq!(reap(&container), 7);
    let gone = Join::Process { pidfd: container.pidfd(), user: false };
    let launch =
        Launch { steps: exec.iter().copied(), join: gone, fds: &[], new_namespaces: &[], ..launch };
    assert_eq!(spawn(&launch).err(), Some(rustix::io::Errno::SRCH));
}

#[test]
fn a_pods_init_reaps_and_ends() {
    let image = Image::new();
    let root = image.mount();
    let steps = container_steps(&[Step::AwaitStart], Step::Init);
    let init = run_with(&steps, OWN, Join::Parents, &[root.as_fd()]);
    assert!(matches!(init.child.wait_message(), Ok(Message::Created)));
    init.child.release().expect("release");
    assert!(matches!(init.child.wait_message(), Ok(Message::Closed)));

    // Another container of the pod, whose orphan init has to reap.
    let join = Join::Before { user: None, pid: Some(init.child.pidfd()) };
    let root = image.mount();
    let shell = Shell::new(
        "(sleep 0.01 & echo $! > /tmp/pid); pid=$(cat /tmp/pid); \
         while [ -d /proc/$pid ]; do sleep 0.01; done; cat /proc/1/comm; echo $$",
    );
    let steps = container_steps(&[], shell.step());
    let outcome = run_with(&steps, &[NamespaceKind::Mount], join, &[root.as_fd()]).finish();
    assert_eq!(outcome.failed, None, "{outcome:?}");
    assert!(outcome.output.starts_with("corten-init\n"), "{outcome:?}");
    rustix::process::pidfd_send_signal(init.child.pidfd(), rustix::process::Signal::TERM)
        .expect("kill");
    assert_eq!(reap(&init.child), 0);
}

#[test]
fn a_quick_child_is_not_heard_before_it_is_known() {
    let own = sys::pidfd_open(std::process::id().cast_signed()).expect("pidfd");
    let shell = Shell::new("exit 3");
    let steps = [Step::AwaitStart, shell.step()];
    std::thread::scope(|scope| {
        // More to do than there are processors: who made the child may have to
        // wait for its turn while the child runs.
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..300 {
                    let join = Join::Before { user: None, pid: Some(own.as_fd()) };
                    let outcome = run_with(&steps, &[], join, &[]).finish();
                    assert_eq!((outcome.failed, outcome.code), (None, 3), "{outcome:?}");
                }
            });
        }
    });
}
