//! The drift check: what was there before a test must be what is there after.

use std::collections::BTreeSet;
use std::path::Path;

use corten_kernel::cgroup::Cgroups;
use corten_kernel::mount;

use crate::machine::Machine;
use crate::poll::until_now;

/// What a machine had before its test.
pub struct Drift {
    mounts: BTreeSet<String>,
    links: BTreeSet<String>,
}

impl Drift {
    /// Looks.
    pub fn of(machine: &Machine) -> Self {
        Self { mounts: mounts(machine), links: links() }
    }

    /// Looks again. Deletions go on in the background, so each thing is waited
    /// for; what stays is named.
    pub fn check(&self, machine: &Machine) {
        gone("mounts", || difference(&mounts(machine), &self.mounts));
        gone("cgroups", || cgroups(machine));
        gone("shims", || shims(machine));
        gone("links", || {
            // The bridge itself stays, as it would on a node.
            let mut left = difference(&links(), &self.links);
            left.retain(|link| link != "corten0");
            left
        });
        gone("network namespaces", || entries(&machine.path("state/netns")));
        gone("sandboxes", || entries(&machine.path("state/sandboxes")));
        gone("snapshots", || entries(&machine.path("data/snapshots")));
        gone("trash", || entries(&machine.path("data/trash")));
        gone("leases", || leases(&machine.path("state/leases")));
    }
}

fn gone(what: &str, mut left: impl FnMut() -> Vec<String>) {
    let mut last = Vec::new();
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        until_now(what, || {
            last = left();
            last.is_empty().then_some(())
        });
    }));
    assert!(done.is_ok(), "the test left {what} behind: {last:?}");
}

fn difference(now: &BTreeSet<String>, before: &BTreeSet<String>) -> Vec<String> {
    now.difference(before).cloned().collect()
}

/// What is mounted on this machine, as the host sees it.
pub fn mounts(machine: &Machine) -> BTreeSet<String> {
    let mounts = mounted(machine).into_iter();
    mounts.map(|mount| mount.target.display().to_string()).collect()
}

/// Likewise, in the order in which it was mounted.
pub fn mounted(machine: &Machine) -> Vec<mount::Mount> {
    let below = [machine.path(""), machine.path("state")];
    let mut mounts = mount::mount_list().expect("the mount table is read");
    mounts.retain(|mount| below.iter().any(|below| mount.target.starts_with(below)));
    mounts
}

/// Links of this network namespace, which is the test's own.
fn links() -> BTreeSet<String> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").expect("links are read");
    let names = text.lines().skip(2).filter_map(|line| line.split(':').next());
    names.map(|name| name.trim().to_owned()).collect()
}

fn cgroups(machine: &Machine) -> Vec<String> {
    let cgroups = Cgroups::probe().expect("cgroups are found");
    if !cgroups.exists(machine.cgroup()).expect("cgroups are read") {
        return Vec::new();
    }
    let mut left = cgroups.children(machine.cgroup()).expect("cgroups are read");
    // Empty groups that hold others are the daemon's, and go with it.
    left.retain(|name| {
        let path = format!("{}/{name}", machine.cgroup());
        name != "shims" || !cgroups.children(&path).is_ok_and(|children| children.is_empty())
    });
    if left.is_empty() {
        let _ = cgroups.remove(machine.cgroup());
    }
    left
}

/// Shims whose socket or exit file lies on this machine.
pub fn shims(machine: &Machine) -> Vec<String> {
    let state = machine.path("state").display().to_string();
    let mut left = Vec::new();
    for process in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(line) = std::fs::read(process.path().join("cmdline")) else { continue };
        if !line.starts_with(b"corten-shim\0") {
            continue;
        }
        let exits = std::fs::read_link(process.path().join("fd/4"));
        if exits.is_ok_and(|path| path.to_string_lossy().starts_with(&state)) {
            left.push(process.file_name().to_string_lossy().into_owned());
        }
    }
    left
}

fn entries(dir: &Path) -> Vec<String> {
    let Ok(read) = std::fs::read_dir(dir) else { return Vec::new() };
    read.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Lease files, below one directory for each network.
fn leases(dir: &Path) -> Vec<String> {
    let Ok(networks) = std::fs::read_dir(dir) else { return Vec::new() };
    networks
        .flatten()
        .flat_map(|network| entries(&network.path()))
        .filter(|name| name.parse::<std::net::IpAddr>().is_ok())
        .collect()
}
