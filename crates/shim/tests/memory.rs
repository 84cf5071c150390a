//! What an idle shim costs. The promise is for the static release build, whose
//! path `CORTEN_SHIM` names; other builds are only looked at.

mod kit;

use kit::*;

/// PSS of an idle shim with one container that has said something.
const PSS_KB_MAX: u64 = 60;
/// Of it what each shim has for itself.
const PRIVATE_KB_MAX: u64 = 48;
/// Its text is shared: a node has many shims.
const SHIMS: u64 = 32;

fn rollup(pid: i32, key: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn an_idle_shim_is_small() {
    let is_release = std::env::var_os("CORTEN_SHIM").is_some();
    let pods: Vec<Pod> = (0..if is_release { SHIMS } else { 2 })
        .map(|_| {
            let mut pod = Pod::new();
            let id = pod.run("echo one line; sleep 1000", Options::default());
            eventually("its line", || pod.log_text("log").len() == 1);
            let exec = pod.exec(&id, "true", ExecOptions::default());
            pod.exit_of(&exec.target);
            pod.delete(exec.target);
            pod
        })
        .collect();
    // The log thread leaves when nothing has come for a while.
    for pod in &pods {
        let tasks = format!("/proc/{}/task", pod.shim.pid());
        eventually("one thread", || std::fs::read_dir(&tasks).unwrap().count() == 1);
    }
    let mean =
        |key| pods.iter().map(|pod| rollup(pod.shim.pid(), key)).sum::<u64>() / pods.len() as u64;
    let pss = mean("Pss:");
    let private = mean("Private_Dirty:");
    println!("{} shims: PSS {pss} kB each, of it private and dirty {private} kB", pods.len());
    if is_release {
        assert!(pss <= PSS_KB_MAX, "{pss} kB");
        assert!(private <= PRIVATE_KB_MAX, "{private} kB");
    }
    pods.into_iter().for_each(Pod::shut_down);
}
