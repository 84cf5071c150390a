//! One group: its limits, its processes, and the descriptors by which a shim
//! puts processes into it and kills them.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use super::file::Directory;
use super::hierarchy::{Controller, Hierarchies, Old};
use super::resources::Resources;
use super::stats::{self, Stats};
use super::undo::{Undo, UndoLog};
use super::{v1, v2};
use crate::{Error, Result, mount};

/// How long a group may take to stop all its processes.
const FREEZE_MAX: Duration = Duration::from_secs(10);
/// Rounds of killing while processes of a group make new ones.
const KILL_ROUNDS_MAX: u32 = 32;

/// One group, in every hierarchy.
#[derive(Debug, Clone)]
pub struct Group {
    hierarchies: Arc<Hierarchies>,
    path: String,
    /// Of a change of limits that may have to be taken back.
    log: Option<UndoLog>,
}

/// Descriptors by which processes are put into a group, and killed. In the
/// order in which frames carry them.
#[derive(Debug)]
pub struct Entry {
    /// The directory in the v2 hierarchy, for `CLONE_INTO_CGROUP`.
    pub into: Option<OwnedFd>,
    /// `cgroup.kill` of that directory, open for writing.
    pub kill: Option<OwnedFd>,
    /// `tasks` of each v1 hierarchy, open for writing.
    pub tasks: Vec<OwnedFd>,
    /// `memory.events` (v2) or `memory.oom_control` (v1), open for reading:
    /// both have a line `oom_kill <count>`.
    pub oom: Option<OwnedFd>,
}

impl Group {
    pub(super) fn new(hierarchies: Arc<Hierarchies>, path: &str) -> Self {
        Self { hierarchies, path: path.to_owned(), log: None }
    }

    /// The path, as it was given.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Sets limits; what `resources` leaves open stays. A limit that this
    /// machine cannot set is an error, unless it says «no limit».
    pub fn set(&self, resources: &Resources) -> Result<()> {
        use Controller as C;
        for controller in
            [C::Cpuset, C::Cpu, C::Memory, C::Pids, C::Hugetlb, C::Io, C::Rdma, C::Devices]
        {
            if let Some(old) = self.hierarchies.old(controller) {
                v1::set(&self.old(old), controller, resources)?;
            } else if self.hierarchies.unified_has(controller) {
                v2::set(&self.unified()?, controller, resources)?;
            } else {
                self.without(controller, resources)?;
            }
        }
        if resources.unified.is_empty() {
            return Ok(());
        }
        v2::set_unified(&self.unified()?, &resources.unified)
    }

    /// As [`Group::set`], but all or nothing: what was written before a limit
    /// that cannot be set is written back. A limit of memory below what is in
    /// use, and cannot be reclaimed, is refused: nothing is killed for it.
    pub fn update(&self, resources: &Resources) -> Result<Undo> {
        let log = UndoLog::default();
        let group = Self { log: Some(log.clone()), ..self.clone() };
        let undo = Undo::new(log);
        match group.set(&Resources { check_before_update: true, ..resources.clone() }) {
            Ok(()) => Ok(undo),
            Err(error) => match undo.restore() {
                Ok(()) => Err(error),
                // Both sentences matter: not all is as it was.
                Err(second) => Err(Error::new(
                    "set",
                    format!("limits ({error}), nor to set back those before ({second})"),
                    error.errno,
                )),
            },
        }
    }

    /// A controller that this machine has not: fine as long as nothing of it
    /// is asked for.
    fn without(&self, controller: Controller, resources: &Resources) -> Result<()> {
        let directory = match self.unified() {
            Ok(unified) => unified,
            Err(_) => match self.hierarchies.v1.first() {
                Some(old) => self.old(old),
                None => return Ok(()),
            },
        };
        // The files are missing, and the writes tell what could not be set.
        v2::set(&directory, controller, resources)
    }

    /// Descriptors by which processes enter.
    pub fn entry(&self) -> Result<Entry> {
        let (into, kill) = match self.unified() {
            Ok(unified) => (Some(unified.open()?), Some(unified.open_file("cgroup.kill", true)?)),
            Err(_) => (None, None),
        };
        Ok(Entry { into, kill, tasks: self.tasks()?, oom: self.oom()? })
    }

    /// What a container whose group this is sees of each of
    /// [`super::Cgroups::v1_hierarchies`]: detached mounts of the group. To
    /// mount the hierarchy anew, from inside, shows the same, but makes the
    /// kernel walk all groups of the v2 hierarchy, under the lock of all.
    pub fn mounts(&self) -> Result<Vec<OwnedFd>> {
        let clone = |old| mount::open_tree(self.old(old).path(), false);
        self.hierarchies.v1.iter().map(clone).collect()
    }

    pub(super) fn tasks(&self) -> Result<Vec<OwnedFd>> {
        let open = |old| self.old(old).open_file("tasks", true);
        self.hierarchies.v1.iter().map(open).collect()
    }

    fn oom(&self) -> Result<Option<OwnedFd>> {
        if let Some(old) = self.hierarchies.old(Controller::Memory) {
            return self.old(old).open_file("memory.oom_control", false).map(Some);
        }
        match self.unified() {
            Ok(unified) if unified.has("memory.events") => {
                unified.open_file("memory.events", false).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Moves a process here, with all its threads; on v2.
    pub fn adopt(&self, pid: i32) -> Result<()> {
        self.unified()?.write("cgroup.procs", &pid.to_string())
    }

    /// The processes of this group and of all groups below it.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        for directory in self.hierarchies.directories(&self.path) {
            pids.extend(directory.pids_below()?);
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// The processes of this group and of all groups below it, as one
    /// hierarchy has them: quicker than [`Group::pids`], and enough to count.
    pub fn counted_pids(&self) -> Result<Vec<i32>> {
        let directory = match self.controller_v1(Controller::Pids) {
            Some(directory) => directory,
            None => self.unified()?,
        };
        directory.pids_below()
    }

    /// Sends a signal to every process of this group and of all below it.
    /// SIGKILL reaches also those that are made meanwhile.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        if signal != Signal::KILL {
            return self.signal_all(signal).map(drop);
        }
        if let Ok(unified) = self.unified() {
            write_if_there(&unified, "cgroup.kill", "1")?;
            if self.hierarchies.v1.is_empty() {
                return Ok(());
            }
        }
        self.kill_each()
    }

    /// Kills one by one, for processes that are in v1 hierarchies only (put
    /// there by another runtime, or there is no v2). While the group is frozen
    /// no process can fork out of reach; dying needs it thawed.
    fn kill_each(&self) -> Result<()> {
        let frozen = self.freezer().filter(Directory::exists);
        for _ in 0..KILL_ROUNDS_MAX {
            if let Some(freezer) = &frozen {
                write_if_there(freezer, "freezer.state", "FROZEN")?;
            }
            let alive = self.signal_all(Signal::KILL);
            if let Some(freezer) = &frozen {
                write_if_there(freezer, "freezer.state", "THAWED")?;
            }
            if alive? == 0 || frozen.is_some() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Returns how many there were.
    fn signal_all(&self, signal: Signal) -> Result<usize> {
        let pids = self.pids()?;
        for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
            match rustix::process::kill_process(pid, signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => {
                    let object = format!("process {} of {}", pid.as_raw_nonzero(), self.path);
                    return Err(Error::new("signal", object, errno));
                }
            }
        }
        Ok(pids.len())
    }

    /// Stops every process of the group and of those below it; returns when
    /// they stand.
    pub fn freeze(&self) -> Result<()> {
        self.set_frozen(true)
    }

    /// Lets them go on.
    pub fn thaw(&self) -> Result<()> {
        self.set_frozen(false)
    }

    fn set_frozen(&self, frozen: bool) -> Result<()> {
        // Where there are both, the v1 freezer has also what other runtimes
        // put there.
        if let Some(freezer) = self.freezer() {
            let state = if frozen { "FROZEN" } else { "THAWED" };
            freezer.write("freezer.state", state)?;
            return self.wait(state, || Ok(freezer.read("freezer.state")? == state));
        }
        let unified = self.unified()?;
        let value = if frozen { "1" } else { "0" };
        unified.write("cgroup.freeze", value)?;
        self.wait(value, || {
            let events = unified.read("cgroup.events")?;
            Ok(super::file::keyed(&events, "frozen") == Some(frozen.into()))
        })
    }

    fn wait(&self, state: &str, reached: impl Fn() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + FREEZE_MAX;
        let mut pause = Duration::from_micros(100);
        while !reached()? {
            if Instant::now() > deadline {
                let object = format!("cgroup {} to become {state}", self.path);
                return Err(Error::new("wait for", object, Errno::TIMEDOUT));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The directory through which others can stop the group's processes.
    pub fn freezer_path(&self) -> Result<PathBuf> {
        let freezer = self.freezer().map_or_else(|| self.unified(), Ok)?;
        Ok(freezer.path().to_owned())
    }

    /// The group's directory in the hierarchy that lies at `name` below the
    /// host's /sys/fs/cgroup; an empty name is the unified one of a host that
    /// has no other.
    pub fn directory_at(&self, name: &str) -> Option<PathBuf> {
        if name.is_empty() {
            return self.unified().ok().map(|unified| unified.path().to_owned());
        }
        let named = |mount: &Path| mount.file_name().is_some_and(|there| there == name);
        let old = self.hierarchies.v1.iter().find(|old| named(&old.mount));
        match old {
            Some(old) => Some(self.old(old).path().to_owned()),
            None if name == "unified" => self.directory_at(""),
            None => None,
        }
    }

    /// What the group used, and its limits, as far as this machine counts them.
    pub fn stats(&self) -> Result<Stats> {
        stats::all(self)
    }

    /// Processor time, memory and what was waited for, for those who ask
    /// often: a third of the files.
    pub fn usage(&self) -> Result<Stats> {
        stats::usage(self)
    }

    fn freezer(&self) -> Option<Directory> {
        self.controller_v1(Controller::Freezer)
    }

    fn old(&self, old: &Old) -> Directory {
        Directory::new(&old.mount, &self.path).logged(self.log.clone())
    }

    /// The group's directory in the v1 hierarchy that has a controller.
    pub(super) fn controller_v1(&self, controller: Controller) -> Option<Directory> {
        self.hierarchies.old(controller).map(|old| self.old(old))
    }

    /// The group's directory in the v2 hierarchy, when that one has the
    /// controller.
    pub(super) fn controller_v2(&self, controller: Controller) -> Option<Directory> {
        self.unified().ok().filter(|_| self.hierarchies.unified_has(controller))
    }

    /// The group's directory in the v2 hierarchy.
    pub(super) fn unified(&self) -> Result<Directory> {
        match &self.hierarchies.unified {
            Some(unified) => {
                Ok(Directory::new(&unified.mount, &self.path).logged(self.log.clone()))
            }
            None => {
                let object = format!("{} in the unified hierarchy (there is none)", self.path);
                Err(Error::new("use", object, Errno::OPNOTSUPP))
            }
        }
    }
}

/// Writes to a file of a group that somebody else may remove meanwhile.
fn write_if_there(directory: &Directory, file: &str, value: &str) -> Result<()> {
    match directory.try_write(file, value) {
        Ok(()) | Err(Errno::NOENT | Errno::NODEV) => Ok(()),
        Err(errno) => Err(directory.write_error(file, value, errno)),
    }
}
