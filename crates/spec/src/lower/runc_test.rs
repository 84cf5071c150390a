//! Another runtime takes the same spec: what we write, runc runs.

use std::path::Path;
use std::process::Command;

use crate::container::{CgroupLayout, NodePolicy};
use crate::fixture::Fixture;
use crate::oci::{NamespaceType, Spec};
use crate::request::Profile;

fn bundle(directory: &Path) {
    let bin = directory.join("rootfs/bin");
    std::fs::create_dir_all(&bin).expect("a root filesystem");
    for part in ["etc", "proc", "sys", "dev", "tmp"] {
        std::fs::create_dir_all(directory.join("rootfs").join(part)).expect("a directory");
    }
    std::fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox");
    std::os::unix::fs::symlink("busybox", bin.join("sh")).expect("a link");
    for file in ["hosts", "hostname", "resolv.conf"] {
        std::fs::write(directory.join(file), "text\n").expect("a file");
    }
    std::fs::create_dir(directory.join("shm")).expect("a directory");
}

/// The spec of a fixture, with its namespaces new instead of joined, and with
/// the limits that this machine can set.
fn spec(directory: &Path, id: &str) -> Spec {
    let mut fixture = Fixture::new();
    let path = |name: &str| Some(directory.join(name).display().to_string());
    fixture.files.hosts = path("hosts");
    fixture.files.hostname = path("hostname");
    fixture.files.resolv_conf = path("resolv.conf");
    fixture.files.shm = path("shm");
    fixture.rootfs = directory.join("rootfs").display().to_string();
    fixture.cgroup_path = format!("/{id}");
    fixture.policy = NodePolicy::new(bounding_set(), open_files_hard(), CgroupLayout::V2);
    fixture.container.security.seccomp = Profile::RuntimeDefault;
    fixture.container.security.no_new_privileges = true;
    fixture.container.security.readonly_rootfs = true;
    let script = "echo $HOME $HOSTNAME; busybox cat /etc/hosts; busybox touch /x || echo closed";
    fixture.container.command = vec!["sh".into(), "-c".into(), script.into()];
    let mut spec = fixture.spec();
    let linux = spec.linux.as_mut().expect("a Linux section");
    for namespace in &mut linux.namespaces {
        namespace.path.clear();
    }
    assert!(linux.namespace(NamespaceType::Mount).is_some());
    spec
}

fn bounding_set() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("our own status");
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).expect("a set");
    u64::from_str_radix(line.trim(), 16).expect("a hexadecimal number") & crate::capabilities::ALL
}

fn open_files_hard() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("our own limits");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let hard = line.and_then(|line| line.split_whitespace().nth(1)).expect("a hard limit");
    hard.parse().unwrap_or(u64::MAX)
}

#[test]
fn runc_runs_what_we_write() {
    if Command::new("runc").arg("--version").output().is_err() {
        eprintln!("passed over: there is no runc on this machine");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let id = format!("corten-spec-{}", std::process::id());
    bundle(directory.path());
    let spec = spec(directory.path(), &id);
    std::fs::write(directory.path().join("config.json"), spec.to_json()).expect("a spec");
    let output = Command::new("runc")
        .arg("--root")
        .arg(directory.path().join("state"))
        .arg("run")
        .arg("--bundle")
        .arg(directory.path())
        .arg(&id)
        .output()
        .expect("runc to run");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(text, "/root web-0\ntext\nclosed\n", "{errors}");
}
