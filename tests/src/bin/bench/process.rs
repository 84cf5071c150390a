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

/// Nanoseconds on the processor, by thread: finer than the ticks of
/// `/proc/<pid>/stat`.
#[derive(Default)]
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

/// The shim of a sandbox: its second argument is the id.
pub fn shim_of(sandbox: &str) -> Option<u32> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let line = fs::read(process.path().join("cmdline")).ok()?;
        let mut words = line.split(|byte| *byte == 0);
        let ours = words.next() == Some(b"corten-shim") && words.next() == Some(sandbox.as_bytes());
        ours.then_some(pid)
    })
}
