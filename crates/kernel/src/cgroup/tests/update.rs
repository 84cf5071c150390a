//! Changes of limits are made whole, or not at all.

use super::*;

/// Everything that can be read of a group's limits.
fn limits(scene: &Scene, group: &Group) -> Vec<String> {
    let file = |controller, v1: &str, v2: &str| scene.file(group, controller, v1, v2);
    vec![
        file(Controller::Cpu, "cpu.shares", "cpu.weight"),
        file(Controller::Cpu, "cpu.cfs_quota_us", "cpu.max"),
        file(Controller::Cpu, "cpu.cfs_period_us", "cpu.max"),
        file(Controller::Cpuset, "cpuset.cpus", "cpuset.cpus"),
        file(Controller::Memory, "memory.limit_in_bytes", "memory.max"),
        file(Controller::Memory, "memory.memsw.limit_in_bytes", "memory.swap.max"),
        file(Controller::Pids, "pids.max", "pids.max"),
    ]
}

fn change() -> Resources {
    Resources {
        cpu_shares: Some(300),
        cpu_quota: Some(150_000),
        cpu_period: Some(200_000),
        cpus: Some("0".into()),
        pids_limit: Some(7),
        ..memory(96 * MIB, 128 * MIB)
    }
}

fn wrong() -> Vec<(String, String)> {
    vec![("no.such".to_owned(), "1".to_owned())]
}

#[test]
fn nothing_changes_when_one_limit_is_refused() {
    let scene = Scene::new();
    let group = scene.create("one", &Resources::default());
    // From no limits at all, then from smaller ones, then from larger ones.
    let small = Resources { cpu_quota: Some(1_000), cpu_period: Some(10_000), ..memory(MIB, MIB) };
    let large = Resources { cpu_quota: Some(900_000), ..memory(200 * MIB, 400 * MIB) };
    for before in [Resources::default(), small, large] {
        group.set(&before).unwrap();
        let present = limits(&scene, &group);
        let refused = Resources { unified: wrong(), ..change() };
        let error = group.update(&refused).unwrap_err();
        assert!(error.to_string().contains("no.such"), "{error}");
        assert_eq!(limits(&scene, &group), present);
    }
    group.update(&change()).unwrap();
    assert_eq!(group.stats().unwrap().pids.unwrap().limit, Some(7));
}

#[test]
fn a_change_can_be_taken_back() {
    let scene = Scene::new();
    let group = scene.create("one", &memory(64 * MIB, 64 * MIB));
    let present = limits(&scene, &group);
    let undo = group.update(&change()).unwrap();
    assert_ne!(limits(&scene, &group), present);
    undo.restore().unwrap();
    assert_eq!(limits(&scene, &group), present);
    // Of a group that is gone nothing is left to take back.
    let undo = group.update(&change()).unwrap();
    scene.cgroups.remove(group.path()).unwrap();
    undo.restore().unwrap();
}

#[test]
fn less_memory_than_is_used_kills_nobody() {
    let scene = Scene::new();
    let group = scene.create("one", &memory(256 * MIB, 256 * MIB));
    // 48 MiB that lie in memory, and nowhere else.
    let script = "exec 3> /dev/shm/corten-$$; rm /dev/shm/corten-$$; \
        head -c 50331648 /dev/zero >&3; echo here; exec sleep 1000";
    let mut guest = Guest::start(&group.entry().unwrap(), script);
    guest.says("here");
    let error = group.update(&memory(24 * MIB, 24 * MIB)).unwrap_err();
    assert_eq!(error.errno, Errno::BUSY, "{error}");
    assert!(error.to_string().contains("bytes are in use"), "{error}");
    let limit = |group: &Group| group.stats().unwrap().memory.unwrap().limit;
    assert_eq!(limit(&group), Some(256 << 20));
    let status = guest.0.as_mut().unwrap().try_wait().unwrap();
    assert_eq!(status, None, "it goes on");
    assert_eq!(group.stats().unwrap().memory.unwrap().oom_kills, 0);
}

#[test]
fn files_of_v2_are_taken_back() {
    let scene = Scene::new();
    let group = scene.create("one", &Resources::default());
    let Ok(unified) = group.unified() else { return };
    unified.write("cgroup.max.depth", "9").unwrap();
    let depth = |value: &str| vec![("cgroup.max.depth".to_owned(), value.to_owned())];
    let both = [depth("3"), wrong()].concat();
    group.update(&Resources { unified: both, ..Resources::default() }).unwrap_err();
    assert_eq!(unified.read("cgroup.max.depth").unwrap(), "9");
    group.update(&Resources { unified: depth("3"), ..Resources::default() }).unwrap();
    assert_eq!(unified.read("cgroup.max.depth").unwrap(), "3");
}
