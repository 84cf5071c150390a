//! What a test that failed left on its machine is taken away: the next one,
//! and whoever runs it, should not find it.

use corten_kernel::cgroup::Cgroups;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

use crate::drift;
use crate::machine::Machine;

/// Kills and unmounts, as far as it can be done. Where the test succeeded
/// there is nothing to do. The daemon has to be dead.
pub fn sweep(machine: &Machine) {
    // Shims first: nobody then reports what is killed.
    for pid in drift::shims(machine).iter().filter_map(|pid| pid.parse().ok()) {
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    if let Ok(cgroups) = Cgroups::probe()
        && cgroups.exists(machine.cgroup()).is_ok_and(|exists| exists)
    {
        if let Ok(group) = cgroups.open(machine.cgroup()) {
            let _ = group.kill(Signal::KILL);
        }
        let _ = cgroups.remove(machine.cgroup());
    }
    // What was mounted last lies on top.
    for mount in drift::mounted(machine).iter().rev() {
        let _ = unmount(&mount.target, UnmountFlags::DETACH);
    }
}
