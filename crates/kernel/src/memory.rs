//! What a process holds without needing it.

use std::fs::File;
use std::os::raw::{c_int, c_void};
use std::os::unix::fs::FileExt as _;

use crate::{Context as _, Result};

/// The heaps of glibc: few enough to be shared, enough that threads seldom wait
/// for each other.
#[cfg(target_env = "gnu")]
const HEAPS: c_int = 2;

/// From here on a block is mapped for itself, and goes back when it is freed.
/// glibc's own threshold grows with what was freed, and then a heap keeps the
/// holes that large buffers have left.
#[cfg(target_env = "gnu")]
const LARGE_BYTES: c_int = 128 << 10;

/// Keeps the heap of a process with many threads small: glibc gives each
/// thread a heap of its own (up to eight for each processor), and what one has
/// freed the others cannot use. To be called before there are threads.
pub fn share_heaps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes numbers, and changes how later allocations are served.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, HEAPS);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE_BYTES);
    }
}

/// Gives freed pages of the heap back to the kernel. Takes about a millisecond
/// for some megabytes; others who allocate wait for it.
pub fn give_back_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: touches nothing that is allocated.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Lets go of the program's own code and constants: what is needed comes back
/// from the page cache when it is used, sixteen pages at a time; what only the
/// beginning needed does not. (Breakpoints of a debugger are forgotten, too.)
pub fn give_back_code() {
    // SAFETY: the callback has the signature that is asked for, and ends before
    // the call does.
    unsafe { libc::dl_iterate_phdr(Some(let_go), std::ptr::null_mut()) };
}

/// Lets go of the segments of one object that cannot be written to. Ends the
/// iteration: the program itself comes first.
unsafe extern "C" fn let_go(
    object: *mut libc::dl_phdr_info,
    _size: usize,
    _data: *mut c_void,
) -> c_int {
    // SAFETY: the caller shows a whole object, with all its program headers.
    let (base, headers) = unsafe {
        let object = &*object;
        let count = usize::from(object.dlpi_phnum);
        (object.dlpi_addr, std::slice::from_raw_parts(object.dlpi_phdr, count))
    };
    for header in headers {
        if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0 {
            let page = page_bytes();
            let start = (base + header.p_vaddr) as usize;
            let end = start + header.p_memsz as usize;
            // The last page may belong to the next segment, too.
            let (start, end) = (start.next_multiple_of(page), end / page * page);
            if start < end {
                // SAFETY: pages of a file, mapped privately, that were never
                // written to: they read the same when they are mapped again.
                unsafe { libc::madvise(start as *mut c_void, end - start, libc::MADV_DONTNEED) };
            }
        }
    }
    1
}

/// What a process has in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// Bytes that are its alone: heap, stacks, and what it has changed of its
    /// program.
    pub private_bytes: u64,
    /// Bytes of files: above all its own code.
    pub file_bytes: u64,
}

/// Tells how much memory this process has.
#[derive(Debug)]
pub struct Gauge(File);

impl Gauge {
    /// One whose every look is a single system call.
    ///
    /// # Errors
    /// Where /proc does not tell.
    pub fn open() -> Result<Self> {
        const STATM: &str = "/proc/self/statm";
        File::open(STATM).map(Self).context("open", || STATM)
    }

    /// What it holds. None if that cannot be told now.
    pub fn held(&self) -> Option<Held> {
        let mut buffer = [0; 128];
        let length = self.0.read_at(&mut buffer, 0).ok()?;
        let text = std::str::from_utf8(&buffer[..length]).ok()?;
        let mut pages = text.split(' ').skip(1).map(str::parse::<u64>);
        let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
        let bytes = |pages: u64| pages * page_bytes() as u64;
        Some(Held {
            private_bytes: bytes(resident.saturating_sub(shared)),
            file_bytes: bytes(shared),
        })
    }
}

fn page_bytes() -> usize {
    // SAFETY: takes a number.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    static TABLE: [u8; 1 << 16] = [7; 1 << 16];

    #[test]
    fn code_that_was_let_go_comes_back() {
        let sum = || TABLE.iter().map(|byte| u64::from(std::hint::black_box(*byte))).sum::<u64>();
        assert_eq!(sum(), 7 << 16);
        give_back_code();
        assert_eq!(sum(), 7 << 16);
    }

    #[test]
    fn what_is_held_is_told() {
        let told = Gauge::open().unwrap().held().unwrap();
        assert!(told.private_bytes > 100 << 10 && told.file_bytes > 100 << 10, "{told:?}");
        give_back_heap();
    }
}
