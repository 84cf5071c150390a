//! Groups of execs.

use std::os::fd::{AsFd as _, BorrowedFd};

use corten_base::limits::EXEC_GROUPS_KEPT_MAX;

use super::*;

/// What a guest enters by.
fn entry(pass: &Pass) -> Entry {
    let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
    Entry {
        into: pass.into_group().map(own),
        kill: pass.kill().map(own),
        tasks: pass.tasks().iter().map(|fd| own(fd.as_fd())).collect(),
        oom: None,
    }
}

#[test]
fn the_tree_of_an_exec_is_killed_alone() {
    let scene = Scene::new();
    let group = scene.create("one", &Resources::default());
    let mut guest = Guest::start(&group.entry().unwrap(), "echo here; exec sleep 1000");
    guest.says("here");
    let gate = Arc::new(Gate::open(&group).unwrap());
    assert!(gate.pass(false).unwrap().kill().is_none(), "it has no group of its own");
    let pass = gate.pass(true).unwrap();
    let mut exec = Guest::start(&entry(&pass), "setsid sleep 1000 & echo here; exec sleep 1000");
    exec.says("here");
    poll("the exec's child", || group.pids().unwrap().len() == 3);
    rustix::io::write(pass.kill().expect("this machine has a v2 hierarchy"), b"1").unwrap();
    assert_eq!(exec.ended().signal(), Some(9));
    poll("the exec's child to die", || group.pids().unwrap().len() == 1);
    // Those that come later are not killed with it: by the same gate...
    pass.discard().expect("it has a group").remove().unwrap();
    let pass = gate.pass(true).unwrap();
    assert!(Guest::start(&entry(&pass), "exit 0").ended().success());
    // ...nor by another, which cannot know.
    rustix::io::write(pass.kill().unwrap(), b"1").unwrap();
    drop((pass, gate));
    let pass = Arc::new(Gate::open(&group).unwrap()).pass(true).unwrap();
    assert!(Guest::start(&entry(&pass), "exit 0").ended().success());
}

#[test]
fn groups_of_execs_are_used_again_when_nobody_is_in_them() {
    let scene = Scene::new();
    let group = scene.create("one", &Resources::default());
    let there = || {
        let mut names = group.unified().unwrap().children().unwrap();
        names.sort();
        names
    };
    let gate = Arc::new(Gate::open(&group).unwrap());
    let (first, second) = (gate.pass(true).unwrap(), gate.pass(true).unwrap());
    assert_eq!(there(), ["exec-0", "exec-1"]);
    let mut guest = Guest::start(&entry(&first), "setsid sleep 1000 & echo here");
    guest.says("here");
    assert!(guest.ended().success());
    // What the exec left behind keeps its group.
    assert!(first.give_back().is_none());
    assert!(second.give_back().is_none());
    let again = [gate.pass(true).unwrap(), gate.pass(true).unwrap()];
    assert_eq!(there(), ["exec-0", "exec-1", "exec-2"]);
    // Whoever comes later finds them.
    drop(again);
    let gate = Arc::new(Gate::open(&group).unwrap());
    let pass = gate.pass(true).unwrap();
    assert_eq!(there(), ["exec-0", "exec-1", "exec-2"]);
    // One that could not be used is not used again.
    pass.discard().expect("it has a group").remove().unwrap();
    assert_eq!(there(), ["exec-0", "exec-2"]);
    let many: Vec<Pass> = (0..EXEC_GROUPS_KEPT_MAX + 2).map(|_| gate.pass(true).unwrap()).collect();
    let surplus: Vec<Surplus> = many.into_iter().filter_map(Pass::give_back).collect();
    assert_eq!((surplus.len(), there().len()), (3, EXEC_GROUPS_KEPT_MAX + 3));
    surplus.into_iter().for_each(|surplus| surplus.remove().unwrap());
    assert_eq!(there().len(), EXEC_GROUPS_KEPT_MAX);
    gate.remove_groups();
    assert_eq!(there(), ["exec-0"], "somebody is in it");
    group.kill(Signal::KILL).unwrap();
}

#[test]
fn a_group_with_groups_of_its_own_gets_none_of_ours() {
    let scene = Scene::new();
    let group = scene.create("one", &Resources::default());
    let gate = Arc::new(Gate::open(&group).unwrap());
    let unified = group.unified().unwrap();
    let controllers = unified.read("cgroup.controllers").unwrap();
    let Some(one) = controllers.split(' ').next().filter(|one| !one.is_empty()) else { return };
    unified.write("cgroup.subtree_control", &format!("+{one}")).unwrap();
    assert!(gate.pass(true).unwrap().kill().is_none());
    unified.write("cgroup.subtree_control", &format!("-{one}")).unwrap();
    assert!(gate.pass(true).unwrap().kill().is_some());
}
