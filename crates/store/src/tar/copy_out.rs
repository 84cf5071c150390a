//! A part of a tree that lives, as an archive: what `cp` reads.
//!
//! The tree may change while it is read, and by who would harm us: every path
//! is looked up inside the root, what is opened is looked at first, and a file
//! that becomes shorter is filled up with zeros.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use corten_base::limits::{LAYER_DIRECTORY_PATHS_BYTES_MAX, PATH_BYTES_MAX};
use corten_kernel::rooted::Root;
use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, major, minor, readlinkat};
use rustix::io::Errno;

use super::tree::{clean, failed, refused};
use super::write::{TarItem, TarKind, TarWriter};
use crate::error::{Error, IoContext, Result};

/// File systems of the kernel's own: they are left out unless they are named.
const KERNELS_OWN: [u64; 5] = [0x9fa0, 0x6265_6572, 0x6367_7270, 0x0027_e0eb, 0x1cd1];

/// What is to be read.
pub struct CopyOut<'a> {
    /// The root that paths are looked up in.
    pub root: &'a Root,
    /// What is copied, with all below it.
    pub path: &'a [u8],
    /// What it is called in the archive; empty for a directory whose entries
    /// stand at the top.
    pub name: &'a [u8],
    /// If it is a link, what that leads to is copied.
    pub follow: bool,
    /// The user and group ids of the archive, from those of the host.
    pub ids: [&'a dyn Fn(u32) -> u32; 2],
}

/// Writes an archive of it, and ends it.
pub fn copy_out<W: Write>(what: &CopyOut<'_>, out: W) -> Result<W> {
    let flags = OFlags::PATH | if what.follow { OFlags::empty() } else { OFlags::NOFOLLOW };
    let shown = || String::from_utf8_lossy(what.path).into_owned();
    let first = what.root.open_across(what.path, flags).doing("open", shown)?;
    let name = clean(what.name)?;
    let device = fstat(&first).doing("look at", shown)?.st_dev;
    let mut walk = Walk {
        ids: what.ids,
        writer: TarWriter::new(out),
        device,
        todo: Vec::new(),
        waiting_bytes: 0,
    };
    let root = walk.entry(first, &name)?;
    if let Some(directory) = root {
        let root = Root::from_fd(directory.try_clone().doing("copy", shown)?);
        walk.list(&directory, b"")?;
        while let Some(path) = walk.todo.pop() {
            walk.waiting_bytes -= path.len();
            walk.below(&root, &name, &path)?;
        }
    } else if name.is_empty() {
        return Err(refused(what.path, "it is no directory, and so has no entries"));
    }
    walk.writer.finish().map_err(not_written)
}

struct Walk<'a, W> {
    ids: [&'a dyn Fn(u32) -> u32; 2],
    writer: TarWriter<W>,
    /// The file system at which it begins.
    device: u64,
    /// Paths below the first, the next one last.
    todo: Vec<Vec<u8>>,
    waiting_bytes: usize,
}

impl<W: Write> Walk<'_, W> {
    /// An entry found in a directory. One that is gone by now is left out.
    fn below(&mut self, root: &Root, top: &[u8], path: &[u8]) -> Result<()> {
        let fd = match root.open_across(path, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(errno) => return Err(failed(path, errno)),
        };
        let name = if top.is_empty() { path.to_vec() } else { [top, b"/", path].concat() };
        if let Some(directory) = self.entry(fd, &name)? {
            self.list(&directory, path)?;
        }
        Ok(())
    }

    /// Writes one entry, which is open as a path. A directory is returned, to
    /// be listed.
    fn entry(&mut self, fd: OwnedFd, name: &[u8]) -> Result<Option<OwnedFd>> {
        let found = fstat(&fd).map_err(|errno| failed(name, errno))?;
        let kind = match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => return self.file(&fd, &found, name).map(|()| None),
            FileType::Directory => return self.directory(fd, &found, name),
            FileType::Symlink => {
                let target =
                    readlinkat(&fd, c"", Vec::new()).map_err(|errno| failed(name, errno))?;
                let item =
                    TarItem { kind: TarKind::Symlink(target.as_bytes()), ..item(name, &found) };
                return self.write(&item).map(|()| None);
            }
            FileType::CharacterDevice => {
                TarKind::CharDevice(major(found.st_rdev), minor(found.st_rdev))
            }
            FileType::BlockDevice => {
                TarKind::BlockDevice(major(found.st_rdev), minor(found.st_rdev))
            }
            FileType::Fifo => TarKind::Fifo,
            // A socket is of no use without who listens.
            FileType::Socket | FileType::Unknown => return Ok(None),
        };
        self.write(&TarItem { kind, ..item(name, &found) }).map(|()| None)
    }

    fn file(&mut self, path: &OwnedFd, found: &Stat, name: &[u8]) -> Result<()> {
        let file =
            reopen(path, OFlags::RDONLY | OFlags::NONBLOCK).map_err(|errno| failed(name, errno))?;
        let size = u64::try_from(found.st_size).unwrap_or_default();
        self.write(&TarItem { size, ..item(name, found) })?;
        let content = File::from(file).take(size).chain(io::repeat(0));
        self.writer.data(content, size).map_err(not_written)
    }

    /// None for one that is not to be listed.
    fn directory(&mut self, path: OwnedFd, found: &Stat, name: &[u8]) -> Result<Option<OwnedFd>> {
        if !name.is_empty() {
            let slash = [name, b"/"].concat();
            self.write(&TarItem { kind: TarKind::Directory, ..item(&slash, found) })?;
        }
        if found.st_dev != self.device {
            let of = rustix::fs::fstatfs(&path).map_err(|errno| failed(name, errno))?;
            if KERNELS_OWN.contains(&(of.f_type as u64)) {
                return Ok(None);
            }
        }
        reopen(&path, OFlags::RDONLY | OFlags::DIRECTORY)
            .map(Some)
            .map_err(|errno| failed(name, errno))
    }

    /// The names in a directory, for later.
    fn list(&mut self, directory: &OwnedFd, path: &[u8]) -> Result<()> {
        let fail = |errno| failed(path, errno);
        let first = self.todo.len();
        for entry in rustix::fs::Dir::read_from(directory).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let full = if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() };
            if full.len() >= PATH_BYTES_MAX {
                return Err(refused(&full[..100], "its name is longer than 4095 bytes"));
            }
            self.waiting_bytes += full.len();
            if self.waiting_bytes > LAYER_DIRECTORY_PATHS_BYTES_MAX {
                return Err(Error::TooMuch {
                    verb: "copy a directory",
                    what: "the length of the names in it",
                    max: LAYER_DIRECTORY_PATHS_BYTES_MAX as u64,
                });
            }
            self.todo.push(full);
        }
        self.todo[first..].sort_unstable_by(|one, other| other.cmp(one));
        Ok(())
    }

    fn write(&mut self, item: &TarItem<'_>) -> Result<()> {
        let [user, group] = self.ids;
        let item = TarItem { uid: user(item.uid), gid: group(item.gid), ..*item };
        self.writer.item(&item).map_err(not_written)
    }
}

/// Opens what is open as a path, and was looked at.
pub(super) fn reopen(path: impl AsFd, flags: OFlags) -> std::result::Result<OwnedFd, Errno> {
    let place = format!("/proc/self/fd/{}", path.as_fd().as_raw_fd());
    rustix::fs::open(&place, flags | OFlags::CLOEXEC, Mode::empty())
}

fn item<'a>(path: &'a [u8], found: &Stat) -> TarItem<'a> {
    TarItem {
        mode: found.st_mode & 0o7777,
        uid: found.st_uid,
        gid: found.st_gid,
        mtime: (found.st_mtime, u32::try_from(found.st_mtime_nsec).unwrap_or_default()),
        ..TarItem::file(path, 0)
    }
}

fn not_written(source: io::Error) -> Error {
    Error::Io { verb: "write", object: "an archive".into(), source }
}
