//! Groups on the machine's own hierarchies, v1 or v2, with real processes.
//! The same tests run in a virtual machine with nothing but v2
//! (`cargo xtask vm`).

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::file::keyed;
use super::*;

mod execs;
mod update;

/// A group of one test; goes, with all in it, at the test's end.
struct Scene {
    cgroups: Cgroups,
    path: String,
}

impl Scene {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = format!("/corten-test-{}-{number}", std::process::id());
        Self { cgroups: Cgroups::probe().unwrap(), path }
    }

    fn create(&self, name: &str, resources: &Resources) -> Group {
        self.cgroups.create(&format!("{}/{name}", self.path), resources).unwrap()
    }

    /// The file of a group, wherever its controller is.
    fn file(&self, group: &Group, controller: Controller, v1: &str, v2: &str) -> String {
        match group.controller_v1(controller) {
            Some(directory) => directory.read(v1).unwrap(),
            None => group.controller_v2(controller).unwrap().read(v2).unwrap(),
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let all = self.cgroups.open(&self.path).unwrap();
        let _ = all.thaw();
        let _ = all.kill(Signal::KILL);
        let removed = self.cgroups.remove(&self.path);
        if !std::thread::panicking() {
            removed.unwrap();
        }
    }
}

/// A process that is put into a group before it runs its script; killed and
/// reaped when dropped.
struct Guest(Option<Child>);

impl Guest {
    fn start(entry: &Entry, script: &str) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", &format!("read go; {script}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id().to_string();
        for tasks in &entry.tasks {
            rustix::io::write(tasks, pid.as_bytes()).unwrap();
        }
        if let Some(into) = &entry.into {
            let flags = rustix::fs::OFlags::WRONLY;
            let mode = rustix::fs::Mode::empty();
            let procs = rustix::fs::openat(into, "cgroup.procs", flags, mode).unwrap();
            rustix::io::write(&procs, pid.as_bytes()).unwrap();
        }
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        Self(Some(child))
    }

    fn output(mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }

    fn ended(mut self) -> ExitStatus {
        self.0.take().unwrap().wait().unwrap()
    }

    /// Waits until the script has said this line.
    fn says(&mut self, line: &str) {
        let mut said = String::new();
        let stdout = self.0.as_mut().unwrap().stdout.as_mut().unwrap();
        while !said.ends_with(&format!("{line}\n")) {
            let mut byte = [0];
            stdout.read_exact(&mut byte).expect("the script ended early");
            said.push(byte[0].into());
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn run(group: &Group, script: &str) -> Output {
    Guest::start(&group.entry().unwrap(), script).output()
}

fn poll(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !reached() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn memory(limit: i64, swap: i64) -> Resources {
    Resources { memory_limit: Some(limit), memory_swap: Some(swap), ..Resources::default() }
}

const MIB: i64 = 1 << 20;

#[test]
fn cpusets_below_ours_have_processors_as_they_are_made() {
    let scene = Scene::new();
    let outer = scene.create("a", &Resources::default());
    // On v2 a group without any of its own has those of its parent.
    let Some(outer) = outer.controller_v1(Controller::Cpuset) else { return };
    let inner = outer.child("b");
    assert!(inner.make().unwrap(), "it is new");
    assert!(!inner.make().unwrap(), "it was there");
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let all = outer.read(file).unwrap();
        assert!(!all.is_empty(), "{file}");
        assert_eq!(inner.read(file).unwrap(), all, "{file}");
    }
    let group = scene.create("a/b/c", &Resources::default());
    let innermost = group.controller_v1(Controller::Cpuset).unwrap();
    assert_eq!(innermost.read("cpuset.cpus").unwrap(), outer.read("cpuset.cpus").unwrap());
}

#[test]
fn lists_of_processes_are_read_to_their_end() {
    let scene = Scene::new();
    let group = scene.create("many", &Resources::default());
    let entry = group.entry().unwrap();
    // More lines than one read gives.
    let count = 800;
    let script = format!("for i in $(seq {count}); do sleep 1000 & done; wait");
    let _guest = Guest::start(&entry, &script);
    let deadline = Instant::now() + Duration::from_secs(60);
    while group.pids().unwrap().len() <= count {
        assert!(Instant::now() < deadline, "{} processes", group.pids().unwrap().len());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(group.counted_pids().unwrap().len(), count + 1);
    // So many take their time to end.
    group.kill(Signal::KILL).unwrap();
    while !group.pids().unwrap().is_empty() {
        assert!(Instant::now() < deadline, "they do not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn made_with_parents_listed_and_removed_with_children() {
    let scene = Scene::new();
    let group = scene.create("pod/one", &Resources::default());
    scene.create("pod/two", &Resources::default());
    let pod = format!("{}/pod", scene.path);
    assert_eq!(group.path(), format!("{pod}/one"));
    assert_eq!(scene.cgroups.children(&pod).unwrap(), ["one", "two"]);
    assert!(scene.cgroups.children("/").unwrap().contains(&scene.path[1..].to_owned()));
    scene.cgroups.remove(&pod).unwrap();
    assert!(!scene.cgroups.exists(&pod).unwrap());
    assert!(scene.cgroups.exists(&scene.path).unwrap());
    scene.cgroups.remove(&pod).unwrap();
}

#[test]
fn bad_paths() {
    let cgroups = Cgroups::probe().unwrap();
    for path in ["", "/", "a", "/a/", "//a", "/a/../b", "/./a", "/a\nb"] {
        let error = cgroups.open(path).unwrap_err();
        assert_eq!(error.errno, Errno::INVAL, "{path}");
    }
}

#[test]
fn limits_are_set_and_updated() {
    let scene = Scene::new();
    let first = Resources {
        cpu_shares: Some(1024),
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        cpus: Some("0".into()),
        mems: Some("0".into()),
        pids_limit: Some(100),
        ..memory(64 * MIB, 64 * MIB)
    };
    let group = scene.create("one", &first);
    let cpu = |v1: &str, v2: &str| scene.file(&group, Controller::Cpu, v1, v2);
    let v2 = scene.cgroups.is_unified();
    assert_eq!(cpu("cpu.shares", "cpu.weight"), if v2 { "100" } else { "1024" });
    assert_eq!(cpu("cpu.cfs_quota_us", "cpu.max"), if v2 { "50000 100000" } else { "50000" });
    assert_eq!(scene.file(&group, Controller::Cpuset, "cpuset.cpus", "cpuset.cpus"), "0");
    let stats = group.stats().unwrap();
    assert_eq!(stats.memory.unwrap().limit, Some(64 << 20));
    assert_eq!(stats.pids.unwrap().limit, Some(100));

    // Only what is named changes.
    let second = Resources { cpu_quota: Some(20_000), ..Resources::default() };
    group.set(&second).unwrap();
    assert_eq!(cpu("cpu.cfs_quota_us", "cpu.max"), if v2 { "20000 100000" } else { "20000" });
    assert_eq!(group.stats().unwrap().pids.unwrap().limit, Some(100));
    let third = Resources { cpu_period: Some(50_000), ..Resources::default() };
    group.set(&third).unwrap();
    assert_eq!(cpu("cpu.cfs_period_us", "cpu.max"), if v2 { "20000 50000" } else { "50000" });

    let none = Resources {
        cpu_quota: Some(-1),
        memory_limit: Some(-1),
        pids_limit: Some(-1),
        ..Resources::default()
    };
    group.set(&none).unwrap();
    let stats = group.stats().unwrap();
    assert_eq!((stats.memory.unwrap().limit, stats.pids.unwrap().limit), (None, None));
    assert_eq!(cpu("cpu.cfs_quota_us", "cpu.max"), if v2 { "max 50000" } else { "-1" });
}

#[test]
fn huge_pages_are_limited() {
    let scene = Scene::new();
    if !scene.cgroups.has(Controller::Hugetlb) {
        eprintln!("skipped: this machine has no hugetlb controller");
        return;
    }
    let page = HugepageLimit { page_size: "2MB".into(), limit: 4 << 20 };
    let resources = Resources { hugepage_limits: vec![page], ..Resources::default() };
    let group = scene.create("one", &resources);
    let limit =
        scene.file(&group, Controller::Hugetlb, "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max");
    assert_eq!(limit, (4u64 << 20).to_string());
    let stats = group.stats().unwrap();
    let found = stats.hugepages.iter().find(|one| one.page_size == "2MB");
    assert_eq!(found.map(|one| one.usage), Some(0));
}

#[test]
fn quota_period_and_burst_in_any_direction() {
    let scene = Scene::new();
    let cpu = |quota, period, burst| Resources {
        cpu_quota: Some(quota),
        cpu_period: Some(period),
        cpu_burst: Some(burst),
        ..Resources::default()
    };
    let group = scene.create("one", &cpu(50_000, 100_000, 20_000));
    for (quota, period, burst) in
        [(900_000, 1_000_000, 800_000), (2_000, 10_000, 0), (9_000, 10_000, 9_000)]
    {
        group.set(&cpu(quota, period, burst)).unwrap();
        let max = scene.file(&group, Controller::Cpu, "cpu.cfs_quota_us", "cpu.max");
        assert_eq!(max.split(' ').next(), Some(quota.to_string().as_str()));
        let seen = scene.file(&group, Controller::Cpu, "cpu.cfs_burst_us", "cpu.max.burst");
        assert_eq!(seen, burst.to_string());
    }
}

#[test]
fn memory_and_swap_rise_and_fall_together() {
    let scene = Scene::new();
    let group = scene.create("one", &memory(32 * MIB, 48 * MIB));
    for (limit, swap) in [(128, 256), (16, 16), (64, 80), (8, 200)] {
        group.set(&memory(limit * MIB, swap * MIB)).unwrap();
        let limited = group.stats().unwrap().memory.unwrap().limit;
        assert_eq!(limited, Some((limit * MIB) as u64));
    }
    let error = group.set(&memory(64 * MIB, 32 * MIB)).unwrap_err();
    assert_eq!(error.errno, Errno::INVAL, "{error}");
}

#[test]
fn a_limit_below_the_use_can_be_refused() {
    let scene = Scene::new();
    let group = scene.create("one", &memory(64 * MIB, 64 * MIB));
    let mut guest = Guest::start(&group.entry().unwrap(), "echo here; exec sleep 1000");
    guest.says("here");
    let mut resources = memory(4096, 4096);
    resources.check_before_update = true;
    let error = group.set(&resources).unwrap_err();
    assert_eq!(error.errno, Errno::BUSY);
    assert!(error.to_string().contains("bytes are in use"), "{error}");
}

#[test]
fn below_a_group_with_processes() {
    let scene = Scene::new();
    let outer = scene.create("outer", &Resources::default());
    let mut guest = Guest::start(&outer.entry().unwrap(), "echo here; exec sleep 1000");
    guest.says("here");
    // A process can still be below it, also this one.
    let inner = scene.create("outer/inner", &Resources::default());
    assert!(run(&inner, "true").status.success());
    if inner.unified().is_ok() && scene.cgroups.is_unified() {
        let pid = guest.0.as_ref().unwrap().id();
        inner.adopt(pid as i32).unwrap();
        assert_eq!(inner.pids().unwrap(), [pid as i32]);
        // Now its neighbours have all controllers.
        scene.create("outer/limited", &memory(8 * MIB, 8 * MIB));
    }
}

#[test]
fn too_many_processes() {
    let scene = Scene::new();
    let resources = Resources { pids_limit: Some(1), ..Resources::default() };
    let group = scene.create("one", &resources);
    let output = run(&group, "sleep 0 & wait; echo made");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("fork"), "{text}");
}

#[test]
fn out_of_memory_is_counted() {
    let scene = Scene::new();
    let group = scene.create("one", &memory(8 * MIB, 8 * MIB));
    let entry = group.entry().unwrap();
    let counter = |fd: &OwnedFd| {
        let mut text = [0; 512];
        let length = rustix::io::pread(fd, &mut text, 0).unwrap();
        keyed(std::str::from_utf8(&text[..length]).unwrap(), "oom_kill").unwrap()
    };
    assert_eq!(counter(entry.oom.as_ref().unwrap()), 0);
    let status = Guest::start(&entry, "exec dd if=/dev/zero of=/dev/null bs=64M count=1").ended();
    assert_eq!(status.signal(), Some(9));
    assert_eq!(counter(entry.oom.as_ref().unwrap()), 1);
    assert_eq!(group.stats().unwrap().memory.unwrap().oom_kills, 1);
}

#[test]
fn use_is_counted() {
    let scene = Scene::new();
    let group = scene.create("one", &Resources::default());
    let script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo here; exec sleep 1000";
    let mut guest = Guest::start(&group.entry().unwrap(), script);
    guest.says("here");
    let stats = group.stats().unwrap();
    let (cpu, memory) = (stats.cpu.unwrap(), stats.memory.unwrap());
    assert!(cpu.usage_ns > 0 && cpu.user_ns + cpu.system_ns > 0, "{cpu:?}");
    assert!(memory.usage > 0 && memory.working_set <= memory.usage, "{memory:?}");
    assert!(stats.cpu_pressure.is_some() || scene.cgroups.open("/x").unwrap().unified().is_err());
    assert_eq!(stats.pids.unwrap().current, 1);
    let again = group.usage().unwrap();
    assert!(again.cpu.unwrap().usage_ns >= cpu.usage_ns && again.pids.is_none());
    assert_eq!(group.pids().unwrap(), [guest.0.as_ref().unwrap().id() as i32]);
}

#[test]
fn kill_reaches_what_hides() {
    let scene = Scene::new();
    let group = scene.create("one", &Resources::default());
    let script = "setsid sleep 1000 & (setsid sleep 1000 &) ; echo here; exec sleep 1000";
    let mut guest = Guest::start(&group.entry().unwrap(), script);
    guest.says("here");
    poll("three processes", || group.pids().unwrap().len() == 3);
    group.kill(Signal::KILL).unwrap();
    assert_eq!(guest.ended().signal(), Some(9));
    poll("all to die", || group.pids().unwrap().is_empty());
    group.kill(Signal::KILL).unwrap();
    scene.cgroups.remove(group.path()).unwrap();
    group.kill(Signal::KILL).unwrap();
}

#[test]
fn other_signals_go_to_each() {
    let scene = Scene::new();
    let group = scene.create("one", &Resources::default());
    let mut guest =
        Guest::start(&group.entry().unwrap(), "trap 'exit 7' USR1; echo here; while :; do :; done");
    guest.says("here");
    group.kill(Signal::USR1).unwrap();
    assert_eq!(guest.ended().code(), Some(7));
}

#[test]
fn frozen_processes_do_nothing() {
    let scene = Scene::new();
    let group = scene.create("one", &Resources::default());
    let mut guest = Guest::start(&group.entry().unwrap(), "echo here; while :; do :; done");
    guest.says("here");
    group.freeze().unwrap();
    let used = || group.stats().unwrap().cpu.unwrap().user_ns;
    let before = used();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(used(), before);
    group.thaw().unwrap();
    poll("it to go on", || used() > before);
}

/// /dev/null may be used, /dev/zero not even be read.
fn null_alone() -> Vec<DeviceRule> {
    let character = DeviceRule { kind: DeviceKind::Character, ..DeviceRule::everything(true) };
    vec![
        DeviceRule::everything(false),
        DeviceRule { read: false, write: false, ..character },
        DeviceRule { major: Some(1), minor: Some(3), ..character },
    ]
}

const TOUCH: &str = "for d in null zero; do true < /dev/$d && echo $d; done 2>&-; \
    mknod /tmp/$$ c 1 5 2>&- && echo made; rm -f /tmp/$$";

fn touched(group: &Group) -> String {
    let output = run(group, TOUCH);
    String::from_utf8(output.stdout).unwrap().replace('\n', " ").trim().to_owned()
}

#[test]
fn devices() {
    let scene = Scene::new();
    let resources = Resources { devices: Some(null_alone()), ..Resources::default() };
    let group = scene.create("one", &resources);
    assert_eq!(touched(&group), "null made");
    let all = Some(vec![DeviceRule::everything(true)]);
    group.set(&Resources { devices: all, ..Resources::default() }).unwrap();
    assert_eq!(touched(&group), "null zero made");
}

#[test]
fn devices_by_program() {
    let scene = Scene::new();
    let group = scene.create("one", &Resources::default());
    let directory = group.unified().unwrap();
    assert_eq!(touched(&group), "null zero made");
    v2::set_devices(&directory, &null_alone()).unwrap();
    assert_eq!(touched(&group), "null made");
    // Once more: replaced, not added, so that new rules can also be wider.
    let mut rules = null_alone();
    rules.push(DeviceRule { minor: Some(5), ..rules[2] });
    v2::set_devices(&directory, &rules).unwrap();
    assert_eq!(touched(&group), "null zero made");
    v2::set_devices(&directory, &null_alone()[..1]).unwrap();
    assert_eq!(touched(&group), "");
    v2::set_devices(&directory, &[DeviceRule::everything(true)]).unwrap();
    assert_eq!(touched(&group), "null zero made");
}

#[test]
fn limits_that_cannot_be_set() {
    let scene = Scene::new();
    let group = scene.create("one", &Resources::default());
    let page = |page_size: &str, limit| Resources {
        hugepage_limits: vec![HugepageLimit { page_size: page_size.into(), limit }],
        ..Resources::default()
    };
    // No pages of a size that is not there: nothing to be done.
    group.set(&page("3MB", 0)).unwrap();
    let error = group.set(&page("3MB", 3 << 20)).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("unable to write \"3145728\" to hugetlb.3MB.max of /"), "{text}");
    assert_eq!(error.errno, Errno::NOENT);
    assert_eq!(group.set(&page("../x", 1)).unwrap_err().errno, Errno::INVAL);

    let unified = |file: &str| Resources {
        unified: vec![(file.to_owned(), "1".to_owned())],
        ..Resources::default()
    };
    group.set(&unified("cgroup.max.depth")).unwrap();
    assert_eq!(group.set(&unified("cgroup.procs")).unwrap_err().errno, Errno::OPNOTSUPP);
    assert_eq!(group.set(&unified("../cgroup.procs")).unwrap_err().errno, Errno::INVAL);
    assert_eq!(group.set(&unified("no.such")).unwrap_err().errno, Errno::NOENT);
}

#[test]
fn a_busy_group_is_named_with_its_processes() {
    let scene = Scene::new();
    let group = scene.create("one", &Resources::default());
    let mut guest = Guest::start(&group.entry().unwrap(), "echo here; exec sleep 1000");
    guest.says("here");
    let error = scene.cgroups.remove(group.path()).unwrap_err();
    assert_eq!(error.errno, Errno::BUSY);
    let pid = guest.0.as_ref().unwrap().id();
    assert!(error.to_string().contains(&format!("(processes in it: {pid})")), "{error}");
}

#[test]
fn what_a_container_sees_of_v1_groups_is_its_own() {
    use std::os::fd::AsFd as _;
    let scene = Scene::new();
    let group = scene.create("shown", &Resources::default());
    scene.create("shown/below", &Resources::default());
    let names = scene.cgroups.v1_hierarchies();
    let mounts = group.mounts().unwrap();
    assert_eq!(mounts.len(), names.len());
    for (mount, name) in mounts.iter().zip(names) {
        let shown = rustix::fs::fstat(mount.as_fd()).unwrap();
        let group = rustix::fs::stat(group.directory_at(&name).unwrap()).unwrap();
        assert_eq!((shown.st_dev, shown.st_ino), (group.st_dev, group.st_ino), "{name}");
        assert!(rustix::fs::statat(mount, "below", rustix::fs::AtFlags::empty()).is_ok());
    }
}
