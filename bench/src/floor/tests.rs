//! A pod of the kernel alone lives, and leaves nothing.

use super::*;

#[test]
fn a_pod_lives_and_leaves_nothing() {
    let mut floor = Floor::start().expect("a floor");
    for pool in [Pool::Ahead, Pool::Within] {
        let life = floor.live(pool).expect("a pod");
        let times = [life.sandbox, life.create, life.start, life.exec, life.down];
        assert!(times.iter().all(|time| *time > 0.0), "{life:?}");
    }
    drop(floor);
    let group = cgroup_name();
    assert!(!Cgroups::probe().expect("cgroups").exists(&group).expect("a path"), "{group}");
}
