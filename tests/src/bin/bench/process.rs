//! What processes use, by the kernel's own account.

use std::fs;

/// Clock ticks of a second, in `/proc/<pid>/stat`; Linux has had no other for
/// programs since 2.6.
const TICKS: f64 = 100.0;

/// The proportional share of memory, in kB.
pub fn pss_kb(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Processor time so far, in milliseconds.
pub fn cpu_ms(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may have blanks; it ends with the last parenthesis.
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) * 1e3 / TICKS)
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
