//! Children that begin in their cgroups.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::kit::*;
use crate::launch::*;

/// A cgroup of a test, removed at its end.
struct Group(PathBuf);

impl Group {
    /// None where the machine has no such hierarchy.
    fn new(hierarchy: &str, name: &str) -> Option<Self> {
        let dir = Path::new(hierarchy);
        dir.join("cgroup.procs").exists().then(|| {
            let group = dir.join(format!("corten-test-{name}-{}", std::process::id()));
            std::fs::create_dir(&group).expect("cgroup");
            Self(group)
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        std::fs::remove_dir(&self.0).expect("an empty cgroup");
    }
}

fn v2(name: &str) -> Option<Group> {
    let unified = "/sys/fs/cgroup/cgroup.controllers";
    let root =
        if Path::new(unified).exists() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/unified" };
    Group::new(root, name)
}

/// Runs `cat /proc/self/cgroup` in the groups; and again as an exec.
fn check(new: Option<&Group>, old: Option<&Group>) {
    let into = new.map(|group| File::open(&group.0).expect("open"));
    let tasks: Vec<File> = old
        .map(|group| File::options().write(true).open(group.0.join("tasks")).expect("tasks"))
        .into_iter()
        .collect();
    let tasks: Vec<_> = tasks.iter().map(AsFd::as_fd).collect();
    let (reader, writer) = std::io::pipe().expect("pipe");
    let (reader, null) = (OwnedFd::from(reader), null());
    // A host process reads the groups: inside a cgroup namespace all are "/".
    let shell = Shell::new("read line");
    let image = Image::new();
    let root = image.mount();
    let steps = container_steps(&[Step::AwaitStart], shell.step());
    let launch = Launch {
        steps: steps.iter().copied(),
        new_namespaces: OWN,
        join: Join::Parents,
        fds: &[root.as_fd()],
        stdio: [reader.as_fd(), null.as_fd(), null.as_fd()],
        inherit: &[],
        memory: Memory::Copied,
        cgroup: into.as_ref().map(AsFd::as_fd),
        tasks: &tasks,
    };
    let first = spawn(&launch).expect("spawn");
    assert!(matches!(first.wait_message(), Ok(Message::Created)));
    first.release().expect("release");
    assert!(matches!(first.wait_message(), Ok(Message::Closed)));
    let exec = [Step::EnterCgroups, shell.step()];
    let join = Join::Process { pidfd: first.pidfd(), user: false };
    let launch =
        Launch { steps: exec.iter().copied(), new_namespaces: &[], join, fds: &[], ..launch };
    let second = spawn(&launch).expect("exec");
    assert!(matches!(second.wait_message(), Ok(Message::Closed)));
    for child in [&first, &second] {
        let text = std::fs::read_to_string(format!("/proc/{}/cgroup", child.pid())).expect("text");
        for group in new.iter().chain(&old) {
            let name = group.0.file_name().and_then(|name| name.to_str()).expect("name");
            assert!(text.contains(name), "{name}: {text}");
        }
    }
    drop(writer);
    // The exec first: its init cannot end before it is reaped. It reads the end
    // of the pipe, or is killed with its init.
    assert!([1, 128 + libc::SIGKILL].contains(&reap(&second)));
    assert_eq!(reap(&first), 1);
}

#[test]
fn born_into_v2_and_moved_in_v1() {
    let new = v2("into");
    let old = Group::new("/sys/fs/cgroup/pids", "procs");
    check(new.as_ref(), old.as_ref());
}
