//! An archive unpacked into a tree that lives: what `cp` writes.
//!
//! Links on the way to an entry are followed inside the root, as a process in
//! it would; the entry itself never goes through one. Files that are there are
//! written anew in place, so that one which is mounted stays so.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use corten_base::limits::{LAYER_BYTES_MAX, LAYER_ENTRIES_MAX};
use corten_kernel::rooted::Root;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, chownat, fchmod, fchown, ftruncate, futimens,
    linkat, mkdirat, mknodat, openat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::Limits;
use super::copy_out::reopen;
use super::entry::{Entries, Entry, Kind};
use super::make::{time, write, write_sparse};
use super::stream::Stream;
use super::tree::{clean, failed, refused, split, stat, timestamps};
use crate::error::{Error, Result};

/// What becomes of the first name in every path of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Top {
    /// It stays.
    Keep,
    /// It is another.
    Rename(Vec<u8>),
    /// It is left out: what was below it is at the top.
    Strip,
}

/// Where an archive goes.
pub struct CopyIn<'a> {
    /// The root that paths are looked up in.
    pub root: &'a Root,
    /// A directory in it.
    pub directory: &'a [u8],
    /// What the archive's top is called there.
    pub top: Top,
    /// Whose the copies are, on the host, from the ids of the archive.
    pub owner: &'a dyn Fn(u32, u32) -> (u32, u32),
}

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopiedIn {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of file content.
    pub bytes: u64,
}

/// Unpacks an archive.
pub fn copy_in(place: &CopyIn<'_>, reader: impl Read) -> Result<CopiedIn> {
    let limits = Limits::default();
    let budget = limits.bytes.saturating_mul(2).saturating_add(1 << 20);
    let mut stream = Stream::unhashed(reader, budget);
    let mut entries = Entries::new();
    let mut copied = CopiedIn::default();
    while let Some(entry) = entries.next(&mut stream)? {
        copied.entries += 1;
        copied.bytes = copied.bytes.saturating_add(entry.data);
        if copied.entries > LAYER_ENTRIES_MAX || copied.bytes > LAYER_BYTES_MAX {
            return Err(Error::bad_archive("it has more entries or bytes than can be copied"));
        }
        match place.path(&entry.path)? {
            Some(path) => place.make(&entry, &path, &mut stream, &limits)?,
            None => stream.skip(entry.data)?,
        }
        stream.skip_padding(entry.data)?;
    }
    stream.drain()?;
    Ok(copied)
}

impl CopyIn<'_> {
    /// Where an entry goes; none for the directory itself.
    fn path(&self, written: &[u8]) -> Result<Option<Vec<u8>>> {
        let path = clean(written)?;
        let (first, rest) = match path.iter().position(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (path.as_slice(), &[][..]),
        };
        let renamed = match &self.top {
            Top::Keep => path.clone(),
            Top::Rename(name) if rest.is_empty() => name.clone(),
            Top::Rename(name) => [name, &b"/"[..], rest].concat(),
            Top::Strip => rest.to_vec(),
        };
        if first.is_empty() || renamed.is_empty() {
            return Ok(None);
        }
        Ok(Some([self.directory, b"/", &renamed].concat()))
    }

    fn make<R: Read>(
        &self,
        entry: &Entry,
        path: &[u8],
        stream: &mut Stream<R>,
        limits: &Limits,
    ) -> Result<()> {
        let fail = |errno| failed(path, errno);
        let (parent, name) = split(path);
        let parent = self.parent(parent)?;
        let at = parent.as_fd();
        match &entry.kind {
            Kind::File(map) => {
                let file = self.file(at, path, name)?;
                match map {
                    None => stream.pass(entry.data, |bytes| write(&file, bytes).map_err(fail))?,
                    Some(map) => write_sparse(&file, map, path, stream, limits)?,
                }
                let (uid, gid) = self.owner(entry);
                fchown(&file, uid, gid).map_err(fail)?;
                fchmod(&file, Mode::from_raw_mode(entry.mode)).map_err(fail)?;
                return futimens(&file, &timestamps(time(entry, path)?)).map_err(fail);
            }
            Kind::Directory => {
                stream.skip(entry.data)?;
                return self.directory(entry, at, path, name);
            }
            Kind::Symlink(target) => {
                replace(at, path, name, || symlinkat(target.as_slice(), at, name))?;
            }
            Kind::HardLink(target) => return self.hard_link(at, path, name, target),
            Kind::Fifo => {
                let mode = Mode::from_raw_mode(entry.mode & 0o777);
                replace(at, path, name, || mknodat(at, name, FileType::Fifo, mode, 0))?;
            }
            Kind::CharDevice | Kind::BlockDevice => {
                return Err(refused(path, "devices are given to a container when it is made"));
            }
        }
        let (uid, gid) = self.owner(entry);
        chownat(at, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
        let times = timestamps(time(entry, path)?);
        utimensat(at, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)
    }

    fn owner(&self, entry: &Entry) -> (Option<Uid>, Option<Gid>) {
        let (uid, gid) = (self.owner)(entry.uid, entry.gid);
        (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
    }

    /// The directory of an entry; made where the archive left it out.
    fn parent(&self, path: &[u8]) -> Result<OwnedFd> {
        let open = |path: &[u8]| self.root.open_across(path, OFlags::PATH | OFlags::DIRECTORY);
        match open(path) {
            Err(Errno::NOENT) => {}
            opened => return opened.map_err(|errno| failed(path, errno)),
        }
        let (above, name) = split(path);
        if name.is_empty() {
            return Err(failed(path, Errno::NOENT));
        }
        let above = self.parent(above)?;
        let (uid, gid) = (self.owner)(0, 0);
        mkdirat(&above, name, Mode::from_raw_mode(0o755))
            .and_then(|()| {
                let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                chownat(&above, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            })
            .and_then(|()| open(path))
            .map_err(|errno| failed(path, errno))
    }

    /// A file to write: the one that is there, emptied, or a new one.
    fn file(&self, at: BorrowedFd<'_>, path: &[u8], name: &[u8]) -> Result<OwnedFd> {
        let fail = |errno| failed(path, errno);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(at, name, flags, Mode::empty()) {
            Ok(there) => {
                let found = rustix::fs::fstat(&there).map_err(fail)?;
                if FileType::from_raw_mode(found.st_mode) == FileType::RegularFile {
                    match reopen(&there, OFlags::WRONLY | OFlags::NONBLOCK) {
                        // It is being executed: that goes on with the old one.
                        Err(Errno::TXTBSY) => {}
                        file => {
                            let file = file.map_err(fail)?;
                            ftruncate(&file, 0).map_err(fail)?;
                            return Ok(file);
                        }
                    }
                }
            }
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(fail(errno)),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(0o600);
        replace(at, path, name, || openat(at, name, flags | OFlags::CLOEXEC, mode))
    }

    /// One that is there stays as it is.
    fn directory(&self, entry: &Entry, at: BorrowedFd<'_>, path: &[u8], name: &[u8]) -> Result<()> {
        let fail = |errno| failed(path, errno);
        match mkdirat(at, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                // A link to a directory is as good, as for a process inside.
                let open = self.root.open_across(path, OFlags::PATH | OFlags::DIRECTORY);
                return open.map(drop).map_err(fail);
            }
            Err(errno) => return Err(fail(errno)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(at, name, flags, Mode::empty()).map_err(fail)?;
        let (uid, gid) = self.owner(entry);
        fchown(&made, uid, gid).map_err(fail)?;
        fchmod(&made, Mode::from_raw_mode(entry.mode)).map_err(fail)
    }

    fn hard_link(&self, at: BorrowedFd<'_>, path: &[u8], name: &[u8], target: &[u8]) -> Result<()> {
        let missing = || refused(path, "it is a hard link to what is not in the archive");
        let target = self.path(target)?.ok_or_else(missing)?;
        let (parent, target_name) = split(&target);
        let parent = self
            .root
            .open_across(parent, OFlags::PATH | OFlags::DIRECTORY)
            .map_err(|_| missing())?;
        let found = stat(parent.as_fd(), target_name).map_err(|_| missing())?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            return Err(missing());
        }
        if stat(at, name)
            .is_ok_and(|there| (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino))
        {
            return Ok(());
        }
        replace(at, path, name, || linkat(&parent, target_name, at, name, AtFlags::empty()))
    }
}

/// Makes what is not a directory; what has its name gives way, unless it is one.
fn replace<T>(
    at: BorrowedFd<'_>,
    path: &[u8],
    name: &[u8],
    make: impl Fn() -> std::result::Result<T, Errno>,
) -> Result<T> {
    match make() {
        Err(Errno::EXIST) => {}
        made => return made.map_err(|errno| failed(path, errno)),
    }
    match unlinkat(at, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => return Err(refused(path, "there is a directory of that name")),
        Err(Errno::BUSY) => return Err(refused(path, "something is mounted there")),
        unlinked => unlinked.map_err(|errno| failed(path, errno))?,
    }
    make().map_err(|errno| failed(path, errno))
}
