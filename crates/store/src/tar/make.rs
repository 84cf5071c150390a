//! Making entries: files, links, devices, directories and whiteouts.

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Uid, XattrFlags, chmodat, chownat, fchmod,
    fchown, fsetxattr, ftruncate, futimens, linkat, lsetxattr, makedev, mknodat, openat, symlinkat,
    utimensat,
};
use rustix::io::{Errno, pwrite};

use super::Limits;
use super::entry::{Entry, Kind};
use super::sparse::Map;
use super::stream::Stream;
use super::tree::{Tree, clean, failed, is_whiteout, refused, set_opaque, split, stat, timestamps};
use crate::error::{Error, Result};

/// Before the name of what is hidden.
const WHITEOUT: &[u8] = b".wh.";
/// Before names that aufs kept for itself.
const AUFS: &[u8] = b".wh..wh.";
/// In a directory that hides all below it.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Makes one entry, taking its data off the stream (not the padding).
pub(super) fn make<R: Read>(
    tree: &mut Tree,
    entry: &Entry,
    stream: &mut Stream<R>,
    limits: &Limits,
) -> Result<()> {
    tree.count()?;
    let path = clean(&entry.path)?;
    let (_, name) = split(&path);
    if path.is_empty() {
        if !matches!(entry.kind, Kind::Directory) {
            return Err(refused(&entry.path, "the root can only be a directory"));
        }
        stream.skip(entry.data)?;
        return make_root(tree, entry);
    }
    if name.starts_with(WHITEOUT) {
        stream.skip(entry.data)?;
        return make_whiteout(tree, &path, name);
    }
    let (parent, name) = tree.place(&path)?;
    let at = parent.as_fd();
    match &entry.kind {
        Kind::File(map) => {
            make_file(tree, entry, at, &path, name, map.as_ref(), stream, limits)?;
        }
        Kind::Directory => {
            stream.skip(entry.data)?;
            make_directory(tree, entry, at, &path, name)?;
        }
        Kind::Symlink(target) => {
            if target.is_empty() || target.contains(&0) {
                return Err(refused(&path, "the content of the link is empty or holds a NUL"));
            }
            tree.replace(at, &path, name, || symlinkat(target.as_slice(), at, name))?;
            finish_node(entry, at, &path, name, false)?;
        }
        Kind::HardLink(target) => make_hard_link(tree, at, &path, name, target)?,
        Kind::CharDevice => make_node(tree, entry, at, &path, name, FileType::CharacterDevice)?,
        Kind::BlockDevice => make_node(tree, entry, at, &path, name, FileType::BlockDevice)?,
        Kind::Fifo => make_node(tree, entry, at, &path, name, FileType::Fifo)?,
    }
    tree.keep(&path, parent);
    Ok(())
}

/// The attributes of the root itself.
fn make_root(tree: &mut Tree, entry: &Entry) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let fd = tree.root().open_in(b"", flags).map_err(|errno| failed(b".", errno))?;
    own(&fd, entry).map_err(|errno| failed(b".", errno))?;
    set_xattrs(&fd, entry)?;
    tree.directory_named(b"", entry.mode, time(entry, b".")?)
}

fn make_directory(
    tree: &mut Tree,
    entry: &Entry,
    at: BorrowedFd<'_>,
    path: &[u8],
    name: &[u8],
) -> Result<()> {
    let new = tree.directory(at, path, name)?;
    // One that was there may belong to someone else.
    if !new || (entry.uid, entry.gid) != (0, 0) {
        let (uid, gid) = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
        chownat(at, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| failed(path, errno))?;
    }
    if !entry.xattrs.is_empty() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(at, name, flags, Mode::empty()).map_err(|errno| failed(path, errno))?;
        set_xattrs(&fd, entry)?;
    }
    tree.directory_named(path, entry.mode, time(entry, path)?)
}

#[allow(clippy::too_many_arguments)]
fn make_file<R: Read>(
    tree: &mut Tree,
    entry: &Entry,
    at: BorrowedFd<'_>,
    path: &[u8],
    name: &[u8],
    map: Option<&Map>,
    stream: &mut Stream<R>,
    limits: &Limits,
) -> Result<()> {
    let fail = |errno| failed(path, errno);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(entry.mode & 0o777);
    let file = tree.replace(at, path, name, || openat(at, name, flags, mode))?;
    match map {
        None => stream.pass(entry.data, |bytes| write(&file, bytes).map_err(fail))?,
        Some(map) => write_sparse(&file, map, path, stream, limits)?,
    }
    own(&file, entry).map_err(fail)?;
    set_xattrs(&file, entry)?;
    if entry.mode & (0o7000 | tree.umask) != 0 {
        fchmod(&file, Mode::from_raw_mode(entry.mode)).map_err(fail)?;
    }
    futimens(&file, &timestamps(time(entry, path)?)).map_err(fail)
}

pub(super) fn write(file: &OwnedFd, mut bytes: &[u8]) -> std::result::Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

pub(super) fn write_sparse<R: Read>(
    file: &OwnedFd,
    map: &Map,
    path: &[u8],
    stream: &mut Stream<R>,
    limits: &Limits,
) -> Result<()> {
    if map.size > limits.bytes {
        return Err(refused(path, "with its holes it is larger than a layer may be"));
    }
    let fail = |errno| failed(path, errno);
    for piece in &map.pieces {
        let mut offset = piece.offset;
        stream.pass(piece.length, |mut bytes| {
            while !bytes.is_empty() {
                let length = pwrite(file, bytes, offset).map_err(fail)?;
                offset += length as u64;
                bytes = &bytes[length..];
            }
            Ok(())
        })?;
    }
    ftruncate(file, map.size).map_err(fail)
}

fn make_hard_link(
    tree: &mut Tree,
    at: BorrowedFd<'_>,
    path: &[u8],
    name: &[u8],
    target: &[u8],
) -> Result<()> {
    let target = clean(target)?;
    let missing = || {
        let target = String::from_utf8_lossy(&target);
        refused(path, &format!("it is a hard link to {target:?}, which is no file in this layer"))
    };
    let (target_parent, target_name) = split(&target);
    if target_name.is_empty() {
        return Err(missing());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let from = tree.root().open_in(target_parent, flags).map_err(|_| missing())?;
    let found = stat(from.as_fd(), target_name).map_err(|_| missing())?;
    if FileType::from_raw_mode(found.st_mode) == FileType::Directory || is_whiteout(&found) {
        return Err(missing());
    }
    // A link to itself, or said twice, is there already.
    if let Ok(present) = stat(at, name)
        && present.st_ino == found.st_ino
    {
        return Ok(());
    }
    tree.replace(at, path, name, || linkat(&from, target_name, at, name, AtFlags::empty()))
}

fn make_node(
    tree: &mut Tree,
    entry: &Entry,
    at: BorrowedFd<'_>,
    path: &[u8],
    name: &[u8],
    kind: FileType,
) -> Result<()> {
    let device = makedev(entry.major, entry.minor);
    let mode = Mode::from_raw_mode(entry.mode & 0o777);
    tree.replace(at, path, name, || mknodat(at, name, kind, mode, device))?;
    finish_node(entry, at, path, name, true)
}

/// Owner, mode, attributes and time of what cannot be opened for writing.
fn finish_node(
    entry: &Entry,
    at: BorrowedFd<'_>,
    path: &[u8],
    name: &[u8],
    has_mode: bool,
) -> Result<()> {
    let fail = |errno| failed(path, errno);
    if (entry.uid, entry.gid) != (0, 0) {
        let (uid, gid) = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
        chownat(at, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
    }
    if has_mode {
        // We have just made it, and it is no link.
        chmodat(at, name, Mode::from_raw_mode(entry.mode), AtFlags::empty()).map_err(fail)?;
    }
    for (key, value) in wanted_xattrs(entry) {
        let mut place = format!("/proc/self/fd/{}/", at.as_raw_fd()).into_bytes();
        place.extend_from_slice(name);
        let result = lsetxattr(place.as_slice(), key, value, XattrFlags::empty());
        tolerate(result, key).map_err(|errno| xattr_failed(path, key, errno))?;
    }
    utimensat(at, name, &timestamps(time(entry, path)?), AtFlags::SYMLINK_NOFOLLOW).map_err(fail)
}

/// `.wh.<name>` hides a name of the layers below, `.wh..wh..opq` all of them.
fn make_whiteout(tree: &mut Tree, path: &[u8], name: &[u8]) -> Result<()> {
    let fail = |errno| failed(path, errno);
    if name == OPAQUE {
        let (parent, _) = tree.place(path)?;
        set_opaque(parent.as_fd(), b".").map_err(fail)?;
        tree.keep(path, parent);
        return Ok(());
    }
    if name.starts_with(AUFS) {
        return Ok(());
    }
    let hidden = &name[WHITEOUT.len()..];
    if matches!(hidden, b"" | b"." | b"..") {
        return Err(refused(path, "it hides nothing that could have a name"));
    }
    let (parent, _) = tree.place(path)?;
    match stat(parent.as_fd(), hidden) {
        // What this layer brings itself stays; of what is below, nothing shows.
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => {
            set_opaque(parent.as_fd(), hidden).map_err(fail)?;
        }
        Ok(_) => {}
        Err(Errno::NOENT) => {
            mknodat(&parent, hidden, FileType::CharacterDevice, Mode::empty(), 0).map_err(fail)?;
        }
        Err(errno) => return Err(fail(errno)),
    }
    tree.keep(path, parent);
    Ok(())
}

fn own(fd: &OwnedFd, entry: &Entry) -> std::result::Result<(), Errno> {
    if (entry.uid, entry.gid) == (0, 0) {
        return Ok(());
    }
    fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
}

fn set_xattrs(fd: &OwnedFd, entry: &Entry) -> Result<()> {
    for (key, value) in wanted_xattrs(entry) {
        let result = fsetxattr(fd, key, value, XattrFlags::empty());
        tolerate(result, key).map_err(|errno| xattr_failed(&entry.path, key, errno))?;
    }
    Ok(())
}

/// Overlay's own attributes could lead it astray, and SELinux labels belong
/// to the host.
fn wanted_xattrs(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    entry
        .xattrs
        .iter()
        .map(|(key, value)| (key.as_slice(), value.as_slice()))
        .filter(|(key, _)| !key.starts_with(b"trusted.overlay.") && *key != b"security.selinux")
}

/// A file system, or a kind of file, may lack attributes. Only a lost
/// capability changes what a program can do.
fn tolerate(result: std::result::Result<(), Errno>, key: &[u8]) -> std::result::Result<(), Errno> {
    match result {
        Err(Errno::OPNOTSUPP | Errno::PERM) if key != b"security.capability" => Ok(()),
        result => result,
    }
}

fn xattr_failed(path: &[u8], key: &[u8], errno: Errno) -> Error {
    Error::Io {
        verb: "set extended attribute",
        object: format!(
            "{:?} of entry {:?}",
            String::from_utf8_lossy(key),
            String::from_utf8_lossy(path)
        ),
        source: errno.into(),
    }
}

pub(super) fn time(entry: &Entry, path: &[u8]) -> Result<Timespec> {
    let (seconds, nanoseconds) = entry.mtime;
    if nanoseconds >= 1_000_000_000 {
        return Err(refused(path, "its time is malformed"));
    }
    Ok(Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() })
}
