//! Copies what the image has at a path into the tmpfs that hides it.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RawDir, Stat, Uid};
use rustix::io::Errno;

/// How deep directories are followed.
pub(super) const DEPTH_MAX: u32 = 32;

/// Copies everything in one directory into another: directories, files and
/// links, with owners and modes. Anything else is passed over.
pub(super) fn directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: u32) -> Result<(), Errno> {
    let depth = depth.checked_sub(1).ok_or(Errno::LOOP)?;
    let stat = rustix::fs::fstat(from)?;
    let mut buffer = [MaybeUninit::<u8>::uninit(); 2048];
    let mut entries = RawDir::new(from, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            one(from, to, name, depth)?;
        }
    }
    own(to, &stat)
}

fn own(fd: BorrowedFd<'_>, stat: &Stat) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(fd, Some(uid), Some(gid))?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(stat.st_mode & 0o7777))
}

fn one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: u32) -> Result<(), Errno> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let open = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
            let open = open | OFlags::DIRECTORY;
            let source = rustix::fs::openat(from, name, open, Mode::empty())?;
            let copy = rustix::fs::openat(to, name, open, Mode::empty())?;
            directory(source.as_fd(), copy.as_fd(), depth)
        }
        FileType::RegularFile => {
            let source = rustix::fs::openat(from, name, open, Mode::empty())?;
            let make = open | OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
            let copy = rustix::fs::openat(to, name, make, Mode::from_raw_mode(0o600))?;
            while rustix::fs::sendfile(&copy, &source, None, 1 << 20)? > 0 {}
            own(copy.as_fd(), &stat)
        }
        FileType::Symlink => {
            let mut buffer = [0u8; 4097];
            let length = rustix::fs::readlinkat_raw(from, name, &mut buffer[..4096])?;
            if let Some(end) = buffer.get_mut(length) {
                *end = 0;
            }
            let link = CStr::from_bytes_until_nul(&buffer).map_err(|_| Errno::INVAL)?;
            rustix::fs::symlinkat(link, to, name)?;
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(to, name, Some(uid), Some(gid), flags)
        }
        _ => Ok(()),
    }
}
