//! The tree that grows: where an entry belongs, and what stands in its way.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::ops::Bound;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use corten_base::limits::{LAYER_DIRECTORY_PATHS_BYTES_MAX, PATH_BYTES_MAX};
use corten_kernel::rooted::{self, Root};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, Timespec, Timestamps, chmodat, fchmod, futimens,
    mkdirat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use crate::error::{Error, IoContext, Result};

/// Mode of a directory while its entries are being made. Its own comes last,
/// so that a set-group bit does not give its group to what is made in it.
const WORKING_MODE: u32 = 0o700;
/// Mode of a parent that the archive left out.
const IMPLIED_MODE: u32 = 0o755;

/// What a directory gets when all is made.
#[derive(Debug, Clone, Copy)]
struct Pending {
    mode: u32,
    mtime: Timespec,
}

pub(super) struct Tree {
    root: Root,
    /// Where what is replaced is deleted.
    scratch: PathBuf,
    scratch_fd: OwnedFd,
    replaced: u64,
    /// The directory that the last entry was made in; the next is mostly in
    /// the same.
    parent: Option<(Vec<u8>, OwnedFd)>,
    directories: BTreeMap<Vec<u8>, Pending>,
    implied: BTreeSet<Vec<u8>>,
    /// Bytes of the paths in both.
    path_bytes: usize,
    entries: u64,
    entries_max: u64,
    /// Permission bits that the process takes off new files.
    pub(super) umask: u32,
}

impl Tree {
    pub(super) fn open(path: &Path, entries_max: u64) -> Result<Self> {
        let scratch = path.parent().unwrap_or(path).to_owned();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let scratch_fd = rustix::fs::openat(CWD, &scratch, flags, Mode::empty())
            .doing("open", || scratch.display().to_string())?;
        rustix::fs::chmod(path, Mode::from_raw_mode(IMPLIED_MODE))
            .doing("change the mode of", || path.display().to_string())?;
        Ok(Self {
            root: Root::open(path)?,
            scratch,
            scratch_fd,
            replaced: 0,
            parent: None,
            directories: BTreeMap::new(),
            implied: BTreeSet::from([Vec::new()]),
            path_bytes: 0,
            entries: 0,
            entries_max,
            umask: umask(),
        })
    }

    pub(super) fn root(&self) -> &Root {
        &self.root
    }

    /// Counts an entry, or a directory that one implied.
    pub(super) fn count(&mut self) -> Result<()> {
        self.entries += 1;
        if self.entries > self.entries_max {
            let max = self.entries_max;
            return Err(Error::bad_archive(format!("it has more than {max} entries")));
        }
        Ok(())
    }

    /// The directory that `path` lies in, made if the archive left it out,
    /// and the last component. A root path has no place.
    pub(super) fn place<'p>(&mut self, path: &'p [u8]) -> Result<(OwnedFd, &'p [u8])> {
        let (parent, name) = split(path);
        if name.is_empty() {
            return Err(Error::bad_archive("its root is not a directory"));
        }
        // Taken out for the work on one entry, and put back by `keep`.
        if let Some((cached, fd)) = self.parent.take()
            && cached == parent
        {
            return Ok((fd, name));
        }
        match self.open_directory(parent) {
            Ok(fd) => Ok((fd, name)),
            Err(Errno::NOENT | Errno::NOTDIR) => {
                self.imply(parent)?;
                let fd = self.open_directory(parent).map_err(|errno| failed(path, errno))?;
                Ok((fd, name))
            }
            Err(errno) => Err(failed(path, errno)),
        }
    }

    /// Gives the directory of [`Tree::place`] back for the next entry.
    pub(super) fn keep(&mut self, path: &[u8], fd: OwnedFd) {
        self.parent = Some((split(path).0.to_vec(), fd));
    }

    fn open_directory(&self, path: &[u8]) -> std::result::Result<OwnedFd, Errno> {
        self.root.open_in(path, OFlags::PATH | OFlags::DIRECTORY)
    }

    /// Makes the directories on the way to and at `path` that are not there.
    fn imply(&mut self, path: &[u8]) -> Result<()> {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let ends: Vec<usize> = slashes.chain([path.len()]).collect();
        for end in ends {
            let step = &path[..end];
            let (parent, name) = split(step);
            match self.open_directory(step) {
                Ok(_) => continue,
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(errno) => return Err(failed(step, errno)),
            }
            let fd = self.open_directory(parent).map_err(|errno| failed(step, errno))?;
            // What an earlier whiteout hid comes back, but empty.
            let whiteout = stat(fd.as_fd(), name).is_ok_and(|found| is_whiteout(&found));
            if whiteout {
                unlinkat(&fd, name, AtFlags::empty()).map_err(|errno| failed(step, errno))?;
            }
            mkdirat(&fd, name, Mode::from_raw_mode(IMPLIED_MODE)).map_err(|errno| match errno {
                Errno::EXIST => refused(step, "an entry lies in it, but it is no directory"),
                errno => failed(step, errno),
            })?;
            chmodat(&fd, name, Mode::from_raw_mode(IMPLIED_MODE), AtFlags::empty())
                .map_err(|errno| failed(step, errno))?;
            if whiteout {
                set_opaque(fd.as_fd(), name).map_err(|errno| failed(step, errno))?;
            }
            self.count()?;
            self.remember_path(step)?;
            self.implied.insert(step.to_vec());
        }
        Ok(())
    }

    fn remember_path(&mut self, path: &[u8]) -> Result<()> {
        self.path_bytes += path.len();
        if self.path_bytes > LAYER_DIRECTORY_PATHS_BYTES_MAX {
            return Err(Error::bad_archive(format!(
                "the names of its directories take more than {LAYER_DIRECTORY_PATHS_BYTES_MAX} bytes"
            )));
        }
        Ok(())
    }

    /// Makes a directory, or takes one that is there. True if it is new.
    pub(super) fn directory(
        &mut self,
        at: BorrowedFd<'_>,
        path: &[u8],
        name: &[u8],
    ) -> Result<bool> {
        let mode = Mode::from_raw_mode(WORKING_MODE);
        match mkdirat(at, name, mode) {
            Ok(()) => return Ok(true),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(path, errno)),
        }
        let found = stat(at, name).map_err(|errno| failed(path, errno))?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            return Ok(false);
        }
        let whiteout = is_whiteout(&found);
        self.clear(at, path, name)?;
        mkdirat(at, name, mode).map_err(|errno| failed(path, errno))?;
        if whiteout {
            set_opaque(at, name).map_err(|errno| failed(path, errno))?;
        }
        Ok(true)
    }

    /// Takes down what a directory gets at the end.
    pub(super) fn directory_named(
        &mut self,
        path: &[u8],
        mode: u32,
        mtime: Timespec,
    ) -> Result<()> {
        self.implied.remove(path);
        if self.directories.insert(path.to_vec(), Pending { mode, mtime }).is_none() {
            self.remember_path(path)?;
        }
        Ok(())
    }

    /// Makes what is not a directory; what has its name already gives way.
    pub(super) fn replace<T>(
        &mut self,
        at: BorrowedFd<'_>,
        path: &[u8],
        name: &[u8],
        make: impl Fn() -> std::result::Result<T, Errno>,
    ) -> Result<T> {
        match make() {
            Err(Errno::EXIST) => {}
            result => return result.map_err(|errno| failed(path, errno)),
        }
        self.clear(at, path, name)?;
        make().map_err(|errno| failed(path, errno))
    }

    /// Removes what an earlier entry made.
    fn clear(&mut self, at: BorrowedFd<'_>, path: &[u8], name: &[u8]) -> Result<()> {
        match unlinkat(at, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => {}
            result => return result.map_err(|errno| failed(path, errno)),
        }
        let aside = OsString::from(format!("replaced-{}", self.replaced));
        self.replaced += 1;
        renameat(at, name, &self.scratch_fd, &aside).map_err(|errno| failed(path, errno))?;
        rooted::remove_tree(&self.scratch, &aside, &AtomicBool::new(false))?;
        self.forget_below(path);
        Ok(())
    }

    /// A directory is gone, with all in it.
    fn forget_below(&mut self, path: &[u8]) {
        let first = [path, b"/"].concat();
        let last = [path, b"0"].concat();
        let range = (Bound::Included(first.clone()), Bound::Excluded(last));
        let named: Vec<_> = self.directories.range(range.clone()).map(|(p, _)| p.clone()).collect();
        for path in named.iter().map(Vec::as_slice).chain([path]) {
            self.directories.remove(path);
        }
        let implied: Vec<_> = self.implied.range(range).cloned().collect();
        for path in implied.iter().map(Vec::as_slice).chain([path]) {
            self.implied.remove(path);
        }
    }

    /// Gives the directories their modes and times, which what was made in
    /// them has changed. Entries made, and what the archive left out.
    pub(super) fn finish(self) -> Result<(u64, Vec<Vec<u8>>)> {
        for (path, pending) in &self.directories {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let fd = match self.root.open_in(path, flags) {
                Ok(fd) => fd,
                // Reached through a link that was replaced since.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(errno) => return Err(failed(path, errno)),
            };
            fchmod(&fd, Mode::from_raw_mode(pending.mode)).map_err(|errno| failed(path, errno))?;
            futimens(&fd, &timestamps(pending.mtime)).map_err(|errno| failed(path, errno))?;
        }
        Ok((self.entries, self.implied.into_iter().collect()))
    }
}

/// Access and modification time alike.
pub(super) fn timestamps(mtime: Timespec) -> Timestamps {
    Timestamps { last_access: mtime, last_modification: mtime }
}

pub(super) fn stat(at: BorrowedFd<'_>, name: &[u8]) -> std::result::Result<Stat, Errno> {
    statat(at, name, AtFlags::SYMLINK_NOFOLLOW)
}

pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Hides what the layers below have in this directory.
pub(super) fn set_opaque(at: BorrowedFd<'_>, name: &[u8]) -> std::result::Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(at, name, flags, Mode::empty())?;
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::fsetxattr(&fd, c"trusted.overlay.opaque", b"y", flags)
}

/// A name as written, made relative to the root; empty is the root itself.
pub(super) fn clean(path: &[u8]) -> Result<Vec<u8>> {
    if path.contains(&0) {
        return Err(refused(path, "a name cannot hold a NUL"));
    }
    let mut clean = Vec::with_capacity(path.len());
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(refused(path, "a name with \"..\" could lead out of the layer")),
            _ => {
                if !clean.is_empty() {
                    clean.push(b'/');
                }
                clean.extend_from_slice(part);
            }
        }
    }
    if clean.len() >= PATH_BYTES_MAX {
        return Err(refused(&clean[..100], "its name is longer than 4095 bytes"));
    }
    Ok(clean)
}

/// Directory and last component.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// The archive is to blame for an entry.
pub(super) fn refused(path: &[u8], reason: &str) -> Error {
    Error::bad_archive(format!("entry {:?}: {reason}", String::from_utf8_lossy(path)))
}

/// An entry could not be made. Of some errors the archive is the cause.
pub(super) fn failed(path: &[u8], errno: Errno) -> Error {
    match errno {
        Errno::NAMETOOLONG => refused(path, "a part of its name is longer than 255 bytes"),
        Errno::LOOP => refused(path, "links on the way to it lead in a circle"),
        Errno::NOTDIR => refused(path, "something on the way to it is not a directory"),
        Errno::NOENT => refused(path, "a link on the way to it leads nowhere"),
        Errno::XDEV => refused(path, "it leads to another file system"),
        errno => Error::Io {
            verb: "unpack",
            object: format!("entry {:?}", String::from_utf8_lossy(path)),
            source: errno.into(),
        },
    }
}

/// The umask can only be read from here without changing it for a moment.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    // Unknown: take it that every bit may be missing, which costs a call per file.
    line.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o777)
}
