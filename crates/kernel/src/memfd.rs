//! Sealed memory files: bytes that their receiver can map and trust to stay.

use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

use crate::process::last_errno;
use crate::{Context, Error, Result};

/// What must hold for a mapping to be a plain `&[u8]`: nobody can write to the
/// file, nor cut it off under the mapping.
const SEALS: SealFlags =
    SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);

/// A new memory file with these bytes, sealed against every change.
pub fn sealed(name: &str, bytes: &[u8]) -> Result<OwnedFd> {
    let object = || format!("the memory file {name:?}");
    // NOEXEC_SEAL is refused by kernels before 6.3, and is what newer ones may
    // insist on (vm.memfd_noexec).
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags),
        other => other,
    }
    .context("make", object)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        // By position, so that whoever reads it as a stream begins at 0.
        match rustix::io::pwrite(&fd, rest, (bytes.len() - rest.len()) as u64) {
            Ok(count) => rest = &rest[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::new("write", object(), errno)),
        }
    }
    rustix::fs::fcntl_add_seals(&fd, SEALS).context("seal", object)?;
    Ok(fd)
}

/// A sealed memory file, mapped for reading.
#[derive(Debug)]
pub struct Mapped {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping is private to this value, read-only and, by its seals,
// never changes; it may be read from any thread.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps a sealed memory file of at most `bytes_max` bytes. A file without
    /// seals is refused with `EPERM`, a larger one with `EFBIG`.
    pub fn new(fd: BorrowedFd<'_>, bytes_max: usize) -> Result<Self> {
        Self::map(fd, bytes_max).context("map", || "a sealed memory file")
    }

    fn map(fd: BorrowedFd<'_>, bytes_max: usize) -> std::result::Result<Self, Errno> {
        let needed = SealFlags::WRITE | SealFlags::SHRINK;
        // Anything that is no memory file has no seals: EINVAL.
        if !rustix::fs::fcntl_get_seals(fd)?.contains(needed) {
            return Err(Errno::PERM);
        }
        let size = rustix::fs::fstat(fd)?.st_size;
        let length = usize::try_from(size).map_err(|_| Errno::FBIG)?;
        if length > bytes_max {
            return Err(Errno::FBIG);
        }
        if length == 0 {
            return Ok(Self { start: NonNull::dangling(), length });
        }
        // SAFETY: a new mapping at an address of the kernel's choice touches no
        // memory of ours; the result is checked before use.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                fd.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(last_errno());
        }
        let start = NonNull::new(start.cast()).ok_or(Errno::NOMEM)?;
        Ok(Self { start, length })
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` is the beginning of a readable mapping of `length`
        // bytes (or dangling, for none), which lives as long as `self`. The
        // seals, checked before mapping and never removable, keep its content
        // and length as they are.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: the mapping is ours, and no reference into it outlives us.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
        }
    }
}

/// Maps a sealed memory file; see [`Mapped::new`].
pub fn map(fd: &impl AsFd, bytes_max: usize) -> Result<Mapped> {
    Mapped::new(fd.as_fd(), bytes_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_stay() {
        let bytes: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        let fd = sealed("test", &bytes).unwrap();
        let mapped = map(&fd, 1 << 20).unwrap();
        assert_eq!(&mapped[..], &bytes[..]);
        assert_eq!(rustix::io::write(&fd, b"x"), Err(Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&fd, 1), Err(Errno::PERM));
        assert_eq!(map(&fd, 99_999).unwrap_err().errno, Errno::FBIG);
        assert!(map(&sealed("empty", b"").unwrap(), 0).unwrap().is_empty());
    }

    #[test]
    fn what_could_change_is_refused() {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("open", flags).unwrap();
        assert_eq!(map(&fd, 10).unwrap_err().errno, Errno::PERM);
        let file = tempfile::tempfile().unwrap();
        assert_eq!(map(&file, 10).unwrap_err().errno, Errno::INVAL);
    }
}
