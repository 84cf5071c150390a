//! What a group has used.

use std::sync::OnceLock;

use super::file::{Directory, keyed};
use super::group::Group;
use super::hierarchy::Controller;
use crate::Result;

/// What a group, with everything below it, used. A part that this machine does
/// not count is `None` or empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stats {
    /// Processor time.
    pub cpu: Option<Cpu>,
    /// Memory.
    pub memory: Option<Memory>,
    /// Processes and threads.
    pub pids: Option<Pids>,
    /// Huge pages, one entry for each size.
    pub hugepages: Vec<Hugepages>,
    /// Disks, one entry for each.
    pub io: Vec<Io>,
    /// Time lost waiting for a processor.
    pub cpu_pressure: Option<Pressure>,
    /// Time lost waiting for memory.
    pub memory_pressure: Option<Pressure>,
    /// Time lost waiting for disks.
    pub io_pressure: Option<Pressure>,
}

/// Processor time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cpu {
    /// All of it, nanoseconds.
    pub usage_ns: u64,
    /// In programs, nanoseconds. From here on on v1 only with all that is
    /// counted: each is a file.
    pub user_ns: u64,
    /// In the kernel, nanoseconds.
    pub system_ns: u64,
    /// Periods of the quota that passed.
    pub periods: u64,
    /// Those in which the group was held back.
    pub throttled_periods: u64,
    /// How long it was, nanoseconds.
    pub throttled_ns: u64,
}

/// Memory, in bytes where nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// All that is charged.
    pub usage: u64,
    /// Usage without the file pages that are first to go.
    pub working_set: u64,
    /// Anonymous pages.
    pub rss: u64,
    /// File pages.
    pub cache: u64,
    /// File pages that are mapped.
    pub mapped_file: u64,
    /// Swap in use, where it is counted.
    pub swap: Option<u64>,
    /// Page faults.
    pub faults: u64,
    /// Those that had to read from a disk.
    pub major_faults: u64,
    /// The limit; `None` for none.
    pub limit: Option<u64>,
    /// How much swap it may use; `None` for no limit, or where it is not counted.
    pub swap_limit: Option<u64>,
    /// Processes killed for want of memory; only with all that is counted.
    pub oom_kills: u64,
    /// Of the kernel's on its behalf; likewise.
    pub kernel: u64,
    /// The most that was ever charged, where the kernel keeps it; likewise.
    pub peak: Option<u64>,
    /// How often the limit was met; likewise.
    pub limit_hits: u64,
}

/// Processes and threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pids {
    /// How many there are.
    pub current: u64,
    /// How many there may be; `None` for no limit.
    pub limit: Option<u64>,
}

/// One size of huge pages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hugepages {
    /// `2MB`
    pub page_size: String,
    /// Bytes in use.
    pub usage: u64,
    /// The most that were ever in use, where the kernel keeps it.
    pub peak: Option<u64>,
}

/// One disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Io {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Bytes.
    pub read_bytes: u64,
    /// Bytes.
    pub written_bytes: u64,
    /// How often.
    pub reads: u64,
    /// How often.
    pub writes: u64,
}

/// Pressure stall information.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pressure {
    /// At least one process waited.
    pub some: PressureLine,
    /// All processes waited.
    pub full: PressureLine,
}

/// One line of it. Averages are in hundredths of a per cent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PressureLine {
    /// Of the last 10 seconds.
    pub average_10: u32,
    /// Of the last 60 seconds.
    pub average_60: u32,
    /// Of the last 300 seconds.
    pub average_300: u32,
    /// Since the group was made, microseconds.
    pub total_us: u64,
}

/// v1 shows «no limit» as the largest number of pages.
const V1_UNLIMITED: u64 = 1 << 62;

/// How much is to be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Detail {
    /// What is asked for often.
    Usage,
    /// Everything.
    All,
}

pub(super) fn usage(group: &Group) -> Result<Stats> {
    read(group, Detail::Usage)
}

pub(super) fn all(group: &Group) -> Result<Stats> {
    let counted = read(group, Detail::All)?;
    Ok(Stats { pids: pids(group)?, hugepages: hugepages(group)?, io: io(group)?, ..counted })
}

fn read(group: &Group, detail: Detail) -> Result<Stats> {
    let unified = group.unified().ok();
    let pressure = |file: &str| match &unified {
        Some(directory) => directory.read_optional(file).map(|text| text.as_deref().map(pressure)),
        None => Ok(None),
    };
    Ok(Stats {
        cpu: cpu(group, detail)?,
        memory: memory(group, detail)?,
        cpu_pressure: pressure("cpu.pressure")?,
        memory_pressure: pressure("memory.pressure")?,
        io_pressure: pressure("io.pressure")?,
        ..Stats::default()
    })
}

fn cpu(group: &Group, detail: Detail) -> Result<Option<Cpu>> {
    let Some(directory) = group.controller_v1(Controller::Cpuacct) else {
        // Every v2 group counts time, with the controller or without.
        let Ok(directory) = group.unified() else { return Ok(None) };
        return Ok(directory.read_optional("cpu.stat")?.as_deref().map(cpu_v2));
    };
    let time = |file: &str| -> Result<u64> { Ok(directory.read(file)?.parse().unwrap_or(0)) };
    let mut cpu = Cpu { usage_ns: time("cpuacct.usage")?, ..Cpu::default() };
    if detail == Detail::Usage {
        return Ok(Some(cpu));
    }
    cpu.user_ns = time("cpuacct.usage_user")?;
    cpu.system_ns = time("cpuacct.usage_sys")?;
    if let Some(directory) = group.controller_v1(Controller::Cpu) {
        let text = directory.read("cpu.stat")?;
        cpu.periods = keyed(&text, "nr_periods").unwrap_or(0);
        cpu.throttled_periods = keyed(&text, "nr_throttled").unwrap_or(0);
        cpu.throttled_ns = keyed(&text, "throttled_time").unwrap_or(0);
    }
    Ok(Some(cpu))
}

fn cpu_v2(text: &str) -> Cpu {
    let count = |key| keyed(text, key).unwrap_or(0);
    let time = |key| count(key).saturating_mul(1000);
    Cpu {
        usage_ns: time("usage_usec"),
        user_ns: time("user_usec"),
        system_ns: time("system_usec"),
        periods: count("nr_periods"),
        throttled_periods: count("nr_throttled"),
        throttled_ns: time("throttled_usec"),
    }
}

fn memory(group: &Group, detail: Detail) -> Result<Option<Memory>> {
    if let Some(directory) = group.controller_v1(Controller::Memory) {
        return memory_v1(&directory, detail).map(Some);
    }
    match group.controller_v2(Controller::Memory) {
        Some(directory) if directory.has("memory.current") => {
            memory_v2(&directory, detail).map(Some)
        }
        _ => Ok(None),
    }
}

fn memory_v1(directory: &Directory, detail: Detail) -> Result<Memory> {
    let text = directory.read("memory.stat")?;
    let count = |key| keyed(&text, key).unwrap_or(0);
    let usage = number(&directory.read("memory.usage_in_bytes")?);
    let limited = |key| keyed(&text, key).filter(|bytes| *bytes < V1_UNLIMITED);
    let limit = limited("hierarchical_memory_limit");
    // v1 limits memory and swap together.
    let together = limited("hierarchical_memsw_limit");
    let mut memory = Memory {
        usage,
        working_set: usage.saturating_sub(count("total_inactive_file")),
        rss: count("total_rss"),
        cache: count("total_cache"),
        mapped_file: count("total_mapped_file"),
        swap: keyed(&text, "total_swap"),
        faults: count("total_pgfault"),
        major_faults: count("total_pgmajfault"),
        limit,
        swap_limit: together.zip(limit).map(|(both, memory)| both.saturating_sub(memory)),
        ..Memory::default()
    };
    if detail == Detail::All {
        let oom = directory.read("memory.oom_control")?;
        memory.oom_kills = keyed(&oom, "oom_kill").unwrap_or(0);
        let optional = |file| directory.read_optional(file).map(|text| text.as_deref().map(number));
        memory.kernel = optional("memory.kmem.usage_in_bytes")?.unwrap_or(0);
        memory.peak = optional("memory.max_usage_in_bytes")?;
        memory.limit_hits = optional("memory.failcnt")?.unwrap_or(0);
    }
    Ok(memory)
}

fn memory_v2(directory: &Directory, detail: Detail) -> Result<Memory> {
    let text = directory.read("memory.stat")?;
    let count = |key| keyed(&text, key).unwrap_or(0);
    let usage = number(&directory.read("memory.current")?);
    let swap = directory.read_optional("memory.swap.current")?;
    let swap_limit = directory.read_optional("memory.swap.max")?;
    let mut memory = Memory {
        usage,
        working_set: usage.saturating_sub(count("inactive_file")),
        rss: count("anon"),
        cache: count("file"),
        mapped_file: count("file_mapped"),
        swap: swap.as_deref().map(number),
        faults: count("pgfault"),
        major_faults: count("pgmajfault"),
        limit: directory.read("memory.max")?.parse().ok(),
        swap_limit: swap_limit.and_then(|text| text.parse().ok()),
        ..Memory::default()
    };
    if detail == Detail::All {
        // `kernel` is there since Linux 5.18; before, its larger parts are.
        let parts = ["kernel_stack", "pagetables", "percpu", "sock", "slab"];
        let sum = || parts.into_iter().map(count).sum();
        memory.kernel = keyed(&text, "kernel").unwrap_or_else(sum);
        memory.peak = directory.read_optional("memory.peak")?.as_deref().map(number);
        let events = directory.read("memory.events")?;
        memory.oom_kills = keyed(&events, "oom_kill").unwrap_or(0);
        memory.limit_hits = keyed(&events, "max").unwrap_or(0);
    }
    Ok(memory)
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

fn pids(group: &Group) -> Result<Option<Pids>> {
    let directory =
        group.controller_v1(Controller::Pids).or_else(|| group.controller_v2(Controller::Pids));
    let Some(directory) = directory else { return Ok(None) };
    let Some(current) = directory.read_optional("pids.current")? else { return Ok(None) };
    let limit = directory.read("pids.max")?.parse().ok();
    Ok(Some(Pids { current: number(&current), limit }))
}

fn hugepages(group: &Group) -> Result<Vec<Hugepages>> {
    let old = group.controller_v1(Controller::Hugetlb);
    let (usage, peak) = match old {
        Some(_) => ("usage_in_bytes", Some("max_usage_in_bytes")),
        None => ("current", None),
    };
    let Some(directory) = old.or_else(|| group.controller_v2(Controller::Hugetlb)) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for size in page_sizes() {
        let read = |file: &str| -> Result<Option<u64>> {
            let text = directory.read_optional(&format!("hugetlb.{size}.{file}"))?;
            Ok(text.as_deref().map(number))
        };
        let peak = match peak {
            Some(file) => read(file)?,
            None => None,
        };
        // What never had any has none: nearly all groups.
        let usage = if peak == Some(0) { peak } else { read(usage)? };
        let Some(usage) = usage else { continue };
        found.push(Hugepages { page_size: size.clone(), usage, peak });
    }
    Ok(found)
}

/// The sizes of huge pages of this machine, as the files of groups name them.
/// They are those of its processor, and do not change.
fn page_sizes() -> &'static [String] {
    static SIZES: OnceLock<Vec<String>> = OnceLock::new();
    SIZES.get_or_init(|| {
        let Ok(listing) = std::fs::read_dir("/sys/kernel/mm/hugepages") else {
            return Vec::new();
        };
        let size = |name: String| {
            let kilobytes = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            Some(size_name(kilobytes))
        };
        let names = listing.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut sizes: Vec<String> = names.filter_map(size).collect();
        sizes.sort_unstable();
        sizes
    })
}

fn size_name(kilobytes: u64) -> String {
    match kilobytes {
        kb if kb >= 1 << 20 => format!("{}GB", kb >> 20),
        kb if kb >= 1 << 10 => format!("{}MB", kb >> 10),
        kb => format!("{kb}KB"),
    }
}

fn io(group: &Group) -> Result<Vec<Io>> {
    if let Some(directory) = group.controller_v1(Controller::Io) {
        let bytes = directory.read_optional("blkio.throttle.io_service_bytes_recursive")?;
        let counts = directory.read_optional("blkio.throttle.io_serviced_recursive")?;
        return Ok(io_v1(&bytes.unwrap_or_default(), &counts.unwrap_or_default()));
    }
    let Some(directory) = group.controller_v2(Controller::Io) else { return Ok(Vec::new()) };
    Ok(io_v2(&directory.read_optional("io.stat")?.unwrap_or_default()))
}

/// Lines `8:0 Read 4096`, bytes in one file and counts in the other.
fn io_v1(bytes: &str, counts: &str) -> Vec<Io> {
    let mut found: Vec<Io> = Vec::new();
    for (text, in_bytes) in [(bytes, true), (counts, false)] {
        for line in text.lines() {
            let mut words = line.split(' ');
            let (Some(device), Some(what), Some(value)) =
                (words.next().and_then(device), words.next(), words.next())
            else {
                continue;
            };
            let disk = disk(&mut found, device);
            let place = match (what, in_bytes) {
                ("Read", true) => &mut disk.read_bytes,
                ("Write", true) => &mut disk.written_bytes,
                ("Read", false) => &mut disk.reads,
                ("Write", false) => &mut disk.writes,
                _ => continue,
            };
            *place = number(value);
        }
    }
    found
}

/// Lines `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`.
fn io_v2(text: &str) -> Vec<Io> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let Some(device) = words.next().and_then(device) else { continue };
        let disk = disk(&mut found, device);
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let place = match key {
                "rbytes" => &mut disk.read_bytes,
                "wbytes" => &mut disk.written_bytes,
                "rios" => &mut disk.reads,
                "wios" => &mut disk.writes,
                _ => continue,
            };
            *place = number(value);
        }
    }
    found
}

fn device(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn disk(disks: &mut Vec<Io>, (major, minor): (u32, u32)) -> &mut Io {
    let at = disks.iter().position(|disk| (disk.major, disk.minor) == (major, minor));
    let at = at.unwrap_or_else(|| {
        disks.push(Io { major, minor, ..Io::default() });
        disks.len() - 1
    });
    &mut disks[at]
}

/// Lines `some avg10=0.12 avg60=0.00 avg300=0.00 total=1234`.
fn pressure(text: &str) -> Pressure {
    let line = |name: &str| {
        let mut found = PressureLine::default();
        let Some(line) = text.lines().find_map(|line| line.strip_prefix(name)) else {
            return found;
        };
        for (key, value) in line.split(' ').filter_map(|word| word.split_once('=')) {
            // The kernel always writes two decimals.
            let hundredths = || value.replace('.', "").parse().unwrap_or(0);
            match key {
                "avg10" => found.average_10 = hundredths(),
                "avg60" => found.average_60 = hundredths(),
                "avg300" => found.average_300 = hundredths(),
                "total" => found.total_us = number(value),
                _ => {}
            }
        }
        found
    };
    Pressure { some: line("some "), full: line("full ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks() {
        let v1 =
            io_v1("8:0 Read 10\n8:0 Write 20\n8:0 Total 30\nTotal 30", "8:0 Read 1\n8:16 Write 2");
        let one = Io { major: 8, read_bytes: 10, written_bytes: 20, reads: 1, ..Io::default() };
        let two = Io { major: 8, minor: 16, writes: 2, ..Io::default() };
        assert_eq!(v1, [one, two]);
        assert_eq!(io_v2("8:16 rbytes=0 wbytes=0 rios=0 wios=2 dbytes=5 dios=1"), [two]);
    }

    #[test]
    fn stalls() {
        let text = "some avg10=1.25 avg60=0.00 avg300=12.00 total=77\n";
        let some =
            PressureLine { average_10: 125, average_300: 1200, total_us: 77, ..Default::default() };
        assert_eq!(pressure(text), Pressure { some, full: PressureLine::default() });
    }

    #[test]
    fn sizes() {
        assert_eq!([64, 2048, 1 << 20].map(size_name), ["64KB", "2MB", "1GB"]);
    }
}
