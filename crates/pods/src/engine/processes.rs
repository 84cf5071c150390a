//! The processes of a container, as the kernel tells of them.

use std::os::unix::fs::MetadataExt;

use corten_base::Namespace;
use corten_base::limits::{PROCESS_COMMAND_BYTES_MAX, PROCESSES_LISTED_MAX};

use super::exec::check_running;
use super::{Engine, blocking};
use crate::error::Result;
use crate::view::ProcessView;

/// Ticks of the clock in a second, in `/proc`: the same on all that we run on.
const TICKS: u64 = 100;

impl Engine {
    /// The processes of a running container, the first one first.
    pub async fn processes(&self, ns: &Namespace, id: &str) -> Result<Vec<ProcessView>> {
        let container = self.inner.table.find_container(ns, id)?;
        check_running(&container)?;
        let group = self.inner.cgroups.open(&container.record.borrow().cgroup)?;
        blocking(move || {
            let mut pids = group.pids()?;
            pids.sort_unstable();
            pids.truncate(PROCESSES_LISTED_MAX);
            // Those that have ended meanwhile are left out.
            Ok(pids.into_iter().filter_map(process).collect())
        })
        .await
    }
}

fn process(pid: i32) -> Option<ProcessView> {
    let directory = format!("/proc/{pid}");
    let uid = std::fs::metadata(&directory).ok()?.uid();
    let stat = std::fs::read_to_string(format!("{directory}/stat")).ok()?;
    // The name stands in parentheses, and may hold some.
    let (head, rest) = stat.rsplit_once(") ")?;
    let name = head.split_once('(').map_or("", |(_, name)| name);
    let fields: Vec<&str> = rest.split(' ').collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    let mut command = std::fs::read(format!("{directory}/cmdline")).ok()?;
    command.truncate(PROCESS_COMMAND_BYTES_MAX);
    let words: Vec<_> = command
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(String::from_utf8_lossy)
        .collect();
    Some(ProcessView {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        uid,
        state: fields.first()?.chars().next()?,
        threads: number(17)?,
        cpu_ns: (number(11)? + number(12)?) * (1_000_000_000 / TICKS),
        memory_bytes: memory_bytes(&directory),
        command: if words.is_empty() { format!("[{name}]") } else { words.join(" ") },
    })
}

/// What is there of the memory that it has mapped. One that has ended, and is
/// not yet waited for, has none.
fn memory_bytes(directory: &str) -> u64 {
    let status = std::fs::read_to_string(format!("{directory}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_told_of() {
        let ours = process(std::process::id().cast_signed()).unwrap();
        assert_eq!(ours.pid, std::process::id().cast_signed());
        assert!(ours.threads > 0 && ours.memory_bytes > 0 && !ours.command.is_empty(), "{ours:?}");
        assert!(process(0).is_none());
    }
}
