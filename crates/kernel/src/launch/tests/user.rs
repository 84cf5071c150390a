//! A container in a user namespace, on an idmapped root.

use std::os::fd::AsFd;

use super::kit::*;
use crate::launch::*;
use crate::mount::{self, set_attributes};
use crate::ns::{IdMap, NamespaceSet, run_in, small_mount_namespace};

const BASE: u32 = 300_000;

#[test]
fn root_inside_is_nobody_outside() {
    let image = Image::new();
    let map = [IdMap { inside: 0, outside: BASE, count: 65536 }];
    let kinds = [NamespaceKind::Net, NamespaceKind::Ipc, NamespaceKind::Uts];
    let made = NamespaceSet::create_in_user(&map, &map, &kinds).expect("namespaces");
    let (user, net) = (made.user.expect("user"), made.net.expect("net"));
    let (ipc, uts) = (made.ipc.expect("ipc"), made.uts.expect("uts"));
    let root = image.mount();
    set_attributes(root.as_fd(), MountAttributes::default(), None, Some(user.as_fd()))
        .expect("idmap");
    let sysfs = Step::MountNew {
        fstype: c"sysfs",
        source: c"sysfs",
        options: CStrList::EMPTY,
        target: c"/sys",
        attributes: DEV,
        copy_up: false,
    };
    let shell = Shell::new(
        "id -u; cat /proc/self/uid_map; cat /proc/sys/kernel/hostname; echo x > /tmp/made; ls /sys | wc -l; cat /proc/self/oom_score_adj",
    );
    let mut steps = vec![
        Step::EnterCgroups,
        Step::JoinNamespace { fd: FdIndex(1), kind: NamespaceKind::Net },
        Step::JoinNamespace { fd: FdIndex(2), kind: NamespaceKind::Ipc },
        Step::JoinNamespace { fd: FdIndex(3), kind: NamespaceKind::Uts },
        Step::BecomeNamespaceRoot,
        Step::NewNamespace { kind: NamespaceKind::Cgroup },
        private(),
        Step::Hostname { name: c"userpod" },
        Step::Root { fd: FdIndex(0) },
    ];
    steps.extend(usual_mounts());
    steps.extend([sysfs, Step::SwitchRoot, Step::OomScoreAdj { value: 500 }]);
    steps.extend([Step::AwaitStart, shell.step()]);
    // As in life, the parent stands in the small mount namespace: there /proc
    // and /sys are fully visible, without which nobody may mount his own.
    let program = std::fs::File::open("/bin/busybox").expect("program");
    let template = small_mount_namespace(program.as_fd()).expect("template");
    let join = Join::Before { user: Some(user.as_fd()), pid: None };
    let fds = [root.as_fd(), net.as_fd(), ipc.as_fd(), uts.as_fd()];
    let outcome =
        run_in(&[template.as_fd()], || run_with_null(&steps, join, &fds)).expect("run_in");
    assert_eq!(outcome.failed, None, "{outcome:?}");
    let fields: Vec<&str> = outcome.output.split_whitespace().collect();
    assert_eq!(fields[..5], ["0", "0", "300000", "65536", "userpod"], "{outcome:?}");
    assert_eq!(fields.last(), Some(&"500"), "{outcome:?}");
    let made = std::os::unix::fs::MetadataExt::uid(
        &std::fs::metadata(image.path().join("tmp/made")).expect("file"),
    );
    assert_eq!(made, 0, "the idmapped mount writes as root");
    drop(mount::mount_list().expect("mounts"));
}

fn run_with_null(
    steps: &[Step<'_>],
    join: Join<'_>,
    fds: &[std::os::fd::BorrowedFd<'_>],
) -> Outcome {
    run_with(steps, OWN, join, fds).finish()
}
