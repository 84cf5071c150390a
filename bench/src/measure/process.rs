//! What processes use, by the kernel's own account.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;

/// The proportional share of memory, in kB.
pub fn pss_kb(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The name of the program that a process runs, without its directory.
pub fn program(pid: u32) -> Option<String> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let name = path.file_name()?.to_string_lossy().into_owned();
    Some(name.strip_suffix(" (deleted)").unwrap_or(&name).to_owned())
}

/// What programs could take without swapping, in kB.
pub fn available_kb() -> f64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(f64::NAN)
}

/// Nanoseconds on the processor, by thread: finer than the ticks of
/// `/proc/<pid>/stat`.
#[derive(Debug, Default)]
pub struct CpuTime(HashMap<OsString, u64>);

impl CpuTime {
    /// What a process used so far.
    pub fn of(pid: u32) -> Self {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let time = |thread: fs::DirEntry| {
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            Some((thread.file_name(), text.split(' ').next()?.parse().ok()?))
        };
        Self(threads.filter_map(time).collect())
    }

    /// What it used since then, in milliseconds; threads that ended meanwhile
    /// are left out.
    pub fn ms_since(&self, before: &Self) -> f64 {
        let since = |(thread, now): (&OsString, &u64)| {
            now.saturating_sub(before.0.get(thread).copied().unwrap_or(0))
        };
        self.0.iter().map(since).sum::<u64>() as f64 / 1e6
    }
}
