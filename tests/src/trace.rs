//! System calls of a daemon, and of all that it starts, counted.
//!
//! strace follows the daemon. What is counted does not vary from run to run:
//! not how threads wait for one another, not memory, not what was asked in vain
//! and is asked again. A container's command is not ours: it counts until it is
//! executed, and no further.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::daemon::Daemon;
use crate::machine::Machine;
use crate::poll::until;

/// No call for so long, and what an operation has begun is done. Longer than
/// the daemon waits before it does what nobody waits for.
const SETTLED: Duration = Duration::from_millis(500);
/// When a test gives up waiting for that.
const PATIENCE: Duration = Duration::from_secs(60);

/// How threads begin, wait and wake, and memory: this depends on who is faster.
const UNCOUNTED: &[&str] = &[
    "brk",
    "clock_gettime",
    "clock_nanosleep",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "exit",
    "futex",
    "getrandom",
    "gettid",
    "madvise",
    "membarrier",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "nanosleep",
    "poll",
    "ppoll",
    "restart_syscall",
    "rseq",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "sched_yield",
    "set_robust_list",
    "sigaltstack",
    "wait4",
    "waitid",
];

/// Calls that make something durable.
const SYNCS: &[&str] = &["fdatasync", "fsync", "msync", "sync", "sync_file_range", "syncfs"];
/// Calls that make or change mounts, of whichever namespace.
const MOUNTS: &[&str] = &[
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "pivot_root",
    "umount2",
];

/// What an operation has cost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// By what they do: `cgroups` and other `directories` made, `commits` of
    /// records, programs `executed`, `mounts`, `processes` (not threads), other
    /// `syncs`, files `written`; as strace prints them.
    pub kinds: BTreeMap<&'static str, Vec<String>>,
    /// By their names.
    pub by_call: BTreeMap<String, u64>,
}

impl Counts {
    /// All of them.
    pub fn calls(&self) -> u64 {
        self.by_call.values().sum()
    }

    /// Those of a kind.
    pub fn of(&self, kind: &str) -> &[String] {
        self.kinds.get(kind).map_or(&[], Vec::as_slice)
    }

    fn add(&mut self, call: &Call) {
        if !call.is_counted() {
            return;
        }
        let kind = call.kind();
        if let Some(kind) = kind {
            self.kinds.entry(kind).or_default().push(call.to_string());
        }
        if !call.is_of_a_commit() {
            *self.by_call.entry(call.name.clone()).or_default() += 1;
        }
    }
}

/// A strace that follows a daemon.
pub struct Trace {
    strace: Child,
    path: PathBuf,
    output: BufReader<File>,
    calls: Calls,
}

impl Trace {
    /// Begins to follow.
    ///
    /// # Panics
    /// If strace cannot.
    pub async fn of(machine: &Machine, daemon: &Daemon) -> Self {
        let (path, said) = (machine.path("strace"), machine.path("strace.said"));
        let output = File::create_new(&path).and_then(|_| File::open(&path)).expect("a file");
        let strace = Command::new("strace")
            .args(["-f", "-y", "-s", "0", "-e", "signal=none", "-p", &daemon.pid().to_string()])
            .arg("-o")
            .arg(&path)
            .stderr(File::create(&said).expect("a file"))
            .spawn()
            .expect("strace can be run");
        let trace = Self { strace, path, output: BufReader::new(output), calls: Calls::default() };
        until("strace is attached", async || {
            std::fs::read_to_string(&said).ok().filter(|said| said.contains(" attached"))
        })
        .await;
        trace
    }

    /// What some work costs, with all that it leaves to be done behind it; the
    /// daemon rests before.
    ///
    /// # Panics
    /// If the daemon does not come to rest.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> (T, Counts) {
        let outcome = work.await;
        (outcome, self.settle().await)
    }

    /// What has come since it was last asked, until nothing came for a while.
    ///
    /// # Panics
    /// If the daemon does not come to rest.
    pub async fn settle(&mut self) -> Counts {
        let (mut counts, begun, mut last) = (Counts::default(), Instant::now(), Instant::now());
        while last.elapsed() < SETTLED {
            assert!(begun.elapsed() < PATIENCE, "the daemon does not come to rest");
            let lines = self.lines();
            if !lines.is_empty() {
                last = Instant::now();
            }
            for line in lines {
                if let Some(call) = self.calls.line(line.trim_end()) {
                    counts.add(&call);
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        counts
    }

    /// What strace prints within some time, whatever it is: of a daemon that
    /// rests, nothing.
    pub async fn disturbances(&mut self, time: Duration) -> Vec<String> {
        tokio::time::sleep(time).await;
        self.lines()
    }

    /// What is new; not the half of a line that is being written.
    fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let length = self.output.read_line(&mut line).expect("what strace writes is read");
            if line.ends_with('\n') {
                lines.push(line);
                continue;
            }
            let back = i64::try_from(length).expect("a line is short");
            self.output.seek_relative(-back).expect("a file can be read again");
            return lines;
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // It lets go of all that it follows.
        let pid = rustix::process::Pid::from_child(&self.strace);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.strace.wait();
        // Another may follow this daemon later.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What strace prints, line by line.
#[derive(Default)]
struct Calls {
    /// Beginnings of calls that last, by their threads.
    begun: HashMap<u32, String>,
    /// Processes that execute something of others.
    others: HashSet<u32>,
}

/// A system call that is over.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    name: String,
    arguments: String,
    result: String,
}

impl Calls {
    /// A call that is over with this line.
    fn line(&mut self, line: &str) -> Option<Call> {
        let (thread, text) = line.split_once(' ')?;
        let (thread, text) = (thread.parse().ok()?, text.trim_start());
        if text.starts_with("+++") {
            self.begun.remove(&thread);
            self.others.remove(&thread);
            return None;
        }
        if let Some(begin) = text.strip_suffix("<unfinished ...>") {
            self.begun.insert(thread, begin.trim_end().to_owned());
            return None;
        }
        let whole = match text.strip_prefix("<... ") {
            Some(resumed) => {
                let (_, rest) = resumed.split_once("resumed>")?;
                // One that had begun when nobody looked yet is not known.
                self.begun.remove(&thread)? + rest
            }
            None => text.to_owned(),
        };
        let call = Call::read(&whole)?;
        if self.others.contains(&thread) {
            return None;
        }
        if call.kind() == Some("executed") && !call.arguments.contains("corten-shim") {
            self.others.insert(thread);
        }
        Some(call)
    }
}

impl Call {
    /// `name(arguments) = result`
    fn read(text: &str) -> Option<Self> {
        let (name, rest) = text.split_once('(')?;
        let (arguments, result) = rest.rsplit_once(" = ")?;
        let arguments = arguments.trim_end().strip_suffix(')')?;
        let [name, arguments, result] = [name, arguments, result].map(str::to_owned);
        Some(Self { name, arguments, result })
    }

    /// It did not fail.
    fn succeeded(&self) -> bool {
        !self.result.starts_with('-') && !self.result.starts_with('?')
    }

    /// Whether it is there in every run.
    fn is_counted(&self) -> bool {
        let in_vain = ["EAGAIN", "EINTR", "ERESTART"];
        let wakes = self.arguments.split(',').next().unwrap_or_default().contains("[eventfd]");
        // Only where overflows are checked, too: whether what is closed was open.
        let others = ["CLONE_THREAD", "PR_SET_NAME", "F_GETFD"];
        !UNCOUNTED.contains(&self.name.as_str())
            && !in_vain.iter().any(|error| self.result.contains(error))
            && !wakes
            && !others.iter().any(|flag| self.arguments.contains(flag))
    }

    /// Records are gathered for a time: so in how many commits they come depends
    /// on how busy the machine is.
    fn is_of_a_commit(&self) -> bool {
        self.arguments.split(',').next().unwrap_or_default().contains("/records.redb>")
    }

    /// What it does, if that is worth a number of its own.
    fn kind(&self) -> Option<&'static str> {
        let name = self.name.as_str();
        if SYNCS.contains(&name) {
            return Some(if self.is_of_a_commit() { "commits" } else { "syncs" });
        }
        if MOUNTS.contains(&name) {
            return Some("mounts");
        }
        let writes = ["O_WRONLY", "O_RDWR", "O_CREAT"];
        match name {
            "execve" | "execveat" if self.succeeded() => Some("executed"),
            "clone" | "clone3" | "fork" | "vfork" if self.succeeded() => Some("processes"),
            "mkdir" | "mkdirat" if self.succeeded() => {
                let cgroup = self.arguments.contains("/sys/fs/cgroup");
                Some(if cgroup { "cgroups" } else { "directories" })
            }
            "open" | "openat" | "openat2" | "creat"
                if self.succeeded() && writes.iter().any(|flag| self.arguments.contains(flag)) =>
            {
                Some("written")
            }
            _ => None,
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}({}) = {}", self.name, self.arguments, self.result)
    }
}

#[cfg(test)]
mod tests {
    use super::{Calls, Counts};

    #[test]
    fn strace_is_understood() {
        let text = r#"
7 openat(AT_FDCWD</>, "/a", O_WRONLY|O_CREAT|O_CLOEXEC, 0666) = 3</a>
7 clone3({flags=CLONE_PIDFD, exit_signal=SIGCHLD}, 88 <unfinished ...>
8 read(5<anon_inode:[eventfd]>, ""..., 8) = 8
7 <... clone3 resumed> => {parent_tid=[0]}) = 9
8 recvfrom(4<UNIX-STREAM:[1]>, 0x1, 8, 0, NULL, NULL) = -1 EAGAIN (Resource temporarily unavailable)
8 <... futex resumed>) = 0
9 mkdirat(6</sys/fs/cgroup/pids>, "x", 0755) = 0
9 execve("/bin/true", [""...], 0x1 /* 0 vars */) = 0
9 openat(AT_FDCWD</>, "/b", O_RDWR) = 3</b>
9 +++ exited with 0 +++
7 fdatasync(3</a>)                  = 0
7 pwrite64(11</data/records.redb>, ""..., 4096, 0) = 4096
7 fdatasync(11</data/records.redb>) = 0
"#;
        let (mut calls, mut counts) = (Calls::default(), Counts::default());
        for call in text.lines().filter_map(|line| calls.line(line)) {
            counts.add(&call);
        }
        let kinds: Vec<_> = counts.kinds.iter().map(|(kind, calls)| (*kind, calls.len())).collect();
        let each = ["cgroups", "commits", "executed", "processes", "syncs", "written"];
        assert_eq!(kinds, each.map(|kind| (kind, 1)));
        assert_eq!(counts.calls(), 5, "{counts:?}");
    }
}
