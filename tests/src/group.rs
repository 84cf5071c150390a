//! What the kernel says of cgroups, v1 or v2.

use std::fs;
use std::path::{Path, PathBuf};

use corten_kernel::cgroup::Cgroups;

use crate::Machine;

/// Whether systemd makes the groups of pods here, as `cgroup.driver = "auto"`
/// has it.
pub fn by_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
        && Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// A group's directory in the hierarchy that has a controller.
pub fn directory(controller: &str, group: &str) -> PathBuf {
    let v1 = Path::new("/sys/fs/cgroup").join(controller);
    let root = if v1.join("cgroup.procs").exists() { v1 } else { unified() };
    root.join(group.trim_start_matches('/'))
}

/// The v2 hierarchy, alone or beside others.
pub fn unified() -> PathBuf {
    let beside = PathBuf::from("/sys/fs/cgroup/unified");
    if beside.exists() { beside } else { "/sys/fs/cgroup".into() }
}

/// What a file of a group says, by its name in v1 or in v2.
pub fn setting(controller: &str, group: &str, v1: &str, v2: &str) -> String {
    let directory = directory(controller, group);
    let old = directory.join(v1);
    let path = if old.exists() { old } else { directory.join(v2) };
    fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        .trim()
        .to_owned()
}

/// The host's pids of processes in a group that have this command line.
pub fn pids(group: &str, command: &[&str]) -> Vec<u32> {
    let wanted = command.join("\0") + "\0";
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let Ok(cgroup) = fs::read_to_string(process.path().join("cgroup")) else { continue };
        if line == wanted.as_bytes() && cgroup.contains(group) {
            found.extend(process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
        }
    }
    found
}

/// The processes of a container, those of its execs among them; none without
/// its group.
pub fn processes(machine: &Machine, pod: &str, container: &str) -> Vec<i32> {
    let group = format!("{}/{container}", machine.pod_group(pod));
    let cgroups = Cgroups::probe().unwrap();
    if !cgroups.exists(&group).unwrap() {
        return Vec::new();
    }
    cgroups.open(&group).unwrap().pids().unwrap_or_default()
}
