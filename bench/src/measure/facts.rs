//! The machine on which figures were taken: without it they say nothing.

use std::fs;
use std::path::Path;

use corten_kernel::mount;

use crate::report::Report;

/// Looks around, before anything is measured. Runtimes keep their files below
/// this directory.
pub fn note(report: &mut Report, files: &Path) {
    report.fact("date", date());
    report.fact("commit", commit());
    report.fact("kernel", read("/proc/sys/kernel/osrelease"));
    report.fact("processor", processor());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    report.fact("cores", cores.to_string());
    report.fact("memory", memory());
    report.fact("system", system());
    report.fact("cgroups", cgroups());
    let mounts = read("/proc/self/mounts");
    let favoured = if mounts.contains("favordynmods") { "on" } else { "off" };
    report.fact("favordynmods", favoured);
    report.fact("file system", file_system(files));
    report.fact("volatile state", "tmpfs");
    report.fact("load before", load());
}

/// The load averages now.
pub fn load() -> String {
    read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn printed(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

fn date() -> String {
    printed("date", &["--utc", "+%Y-%m-%d %H:%M UTC"])
}

/// The commit that is measured, marked if files differ from it.
fn commit() -> String {
    printed("git", &["describe", "--always", "--dirty"])
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

fn system() -> String {
    let text = read("/etc/os-release");
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("unknown").trim_matches('"').to_owned()
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

/// The kind of file system that a path lies on.
fn file_system(path: &Path) -> String {
    let mounts = mount::mount_list().unwrap_or_default();
    let above = mounts.iter().filter(|mount| path.starts_with(&mount.target));
    let nearest = above.max_by_key(|mount| mount.target.as_os_str().len());
    nearest.map_or_else(|| "unknown".to_owned(), |mount| mount.fstype.clone())
}
