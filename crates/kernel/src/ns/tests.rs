//! Real namespaces. They need root.

use std::os::fd::AsFd;

use super::*;

fn inode(fd: &OwnedFd) -> u64 {
    rustix::fs::fstat(fd).expect("fstat").st_ino
}

#[test]
fn made_elsewhere_and_joined() {
    let kinds = [NamespaceKind::Net, NamespaceKind::Ipc, NamespaceKind::Uts];
    let set = NamespaceSet::create(&kinds).expect("create");
    let net = set.net.expect("net");
    assert_ne!(inode(&net), inode(&own(NamespaceKind::Net).expect("own")));
    let seen = run_in(&[net.as_fd()], || inode(&own(NamespaceKind::Net).expect("own")));
    assert_eq!(seen.expect("run_in"), inode(&net));
}

#[test]
fn a_pin_keeps_and_goes() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("net");
    let net = NamespaceSet::create(&[NamespaceKind::Net]).expect("create").net;
    let net = net.expect("net");
    bind(net.as_fd(), &path).expect("bind");
    assert!(bind(net.as_fd(), &path).is_err());
    assert_eq!(inode(&open(&path).expect("open")), inode(&net));
    unbind(&path).expect("unbind");
    unbind(&path).expect("again");
    assert!(!path.exists());
}

#[test]
fn a_user_namespace_owns_its_network() {
    let map = [IdMap { inside: 0, outside: 200_000, count: 65536 }];
    let made = NamespaceSet::create_in_user(&map, &map, &[NamespaceKind::Net]).expect("create");
    let (net, user) = (made.net.expect("net"), made.user.expect("user"));
    assert_ne!(inode(&net), inode(&own(NamespaceKind::Net).expect("own")));
    assert_ne!(inode(&user), inode(&own(NamespaceKind::User).expect("own")));
}

#[test]
fn the_template_is_small() {
    let dir = tempfile::tempdir().expect("dir");
    let program = dir.path().join("program");
    std::fs::write(&program, "text").expect("write");
    let before = crate::mount::mount_list().expect("mounts").len();
    let namespace = small_mount_namespace(std::fs::File::open(&program).expect("open").as_fd())
        .expect("template");
    let (names, text, writable, mounts) = run_in(&[namespace.as_fd()], || {
        let mut names: Vec<_> = std::fs::read_dir("/")
            .expect("read")
            .map(|entry| entry.expect("entry").file_name().into_string().expect("name"))
            .collect();
        names.sort();
        let text = std::fs::read_to_string("/corten-shim");
        let writable = std::fs::write("/root/x", "x").is_ok();
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo");
        (names, text.expect("program"), writable, mounts.expect("mounts"))
    })
    .expect("run_in");
    assert_eq!(names, ["corten-shim", "proc", "root", "shm", "sys"]);
    assert_eq!(text, "text");
    assert!(!writable);
    assert!(!mounts.contains(" shared:"), "{mounts}");
    assert!(mounts.lines().count() < before.max(30));
}
