//! The machine on which figures were taken: without it they say nothing.

use std::fs;
use std::path::Path;

/// Name and value, in the order in which they are shown.
pub type Facts = Vec<(&'static str, String)>;

/// Looks around.
pub fn gather() -> Facts {
    let mounts = read("/proc/self/mounts");
    vec![
        ("kernel", read("/proc/sys/kernel/osrelease")),
        ("processor", processor()),
        ("cores", std::thread::available_parallelism().map_or(0, usize::from).to_string()),
        ("memory", memory()),
        ("cgroups", cgroups().to_owned()),
        ("favordynmods", mounts.contains("favordynmods").to_string()),
        ("commit", commit()),
        ("load before", load()),
    ]
}

/// The load averages now.
pub fn load() -> String {
    read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn processor() -> String {
    let text = read("/proc/cpuinfo");
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.to_owned())
}

fn memory() -> String {
    let text = read("/proc/meminfo");
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.unwrap_or_default().trim().to_owned()
}

fn cgroups() -> &'static str {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        "v2"
    } else if Path::new("/sys/fs/cgroup/unified").exists() {
        "v1, with v2 beside it (hybrid)"
    } else {
        "v1"
    }
}

/// The commit that is measured, marked if files differ from it.
fn commit() -> String {
    let git = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output();
    git.map_or_else(|_| "unknown".into(), |out| String::from_utf8_lossy(&out.stdout).trim().into())
}
