//! A layer's directory made a tar again.
//!
//! The result depends on the layer alone: names are sorted, and what the
//! archive that was unpacked left out is left out. It is rarely the same bytes
//! as that archive. Holes of sparse files are written out.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use corten_base::Digest;
use corten_kernel::rooted::Root;
use rustix::fs::{FileType, Mode, OFlags, Stat, lgetxattr, llistxattr, major, minor, readlinkat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::tree::{is_whiteout, split, stat};
use super::write::{TarItem, TarKind, TarWriter};
use crate::error::{Error, IoContext, Result};

/// The kernel's own bound of the list and of a value.
const XATTR_BYTES: usize = 64 << 10;
const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// Writes a layer, and returns the digest and the length of the archive.
pub(crate) fn pack(tree: &Path, implied: &[Vec<u8>], out: &mut dyn Write) -> Result<(Digest, u64)> {
    let out = Counted { out, hash: Sha256::new(), bytes: 0 };
    let mut pack = Pack {
        root: Root::open(tree)?,
        writer: TarWriter::new(out),
        implied: implied.iter().map(Vec::as_slice).collect(),
        links: HashMap::new(),
        todo: Vec::new(),
        parent: None,
        buffer: vec![0; XATTR_BYTES],
    };
    pack.directory(b"")?;
    while let Some(path) = pack.todo.pop() {
        pack.entry(path)?;
    }
    let out = pack.writer.finish().map_err(not_written)?;
    Ok((Digest::from_sha256(out.hash.finalize().into()), out.bytes))
}

struct Pack<'a> {
    root: Root,
    writer: TarWriter<Counted<'a>>,
    /// Directories that the archive had left out.
    implied: BTreeSet<&'a [u8]>,
    /// The first names of files that have several.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Paths still to be written, the next one last.
    todo: Vec<Vec<u8>>,
    /// The directory of the last entry.
    parent: Option<(Vec<u8>, OwnedFd)>,
    buffer: Vec<u8>,
}

impl Pack<'_> {
    fn entry(&mut self, path: Vec<u8>) -> Result<()> {
        let (parent, name) = split(&path);
        let at = match self.parent.take() {
            Some((known, fd)) if known == parent => fd,
            _ => self.open(parent)?,
        };
        let found = stat(at.as_fd(), name).doing("look at", || show(&path))?;
        let file_type = FileType::from_raw_mode(found.st_mode);
        if file_type == FileType::Directory {
            self.parent = Some((parent.to_vec(), at));
            return self.directory(&path);
        }
        if is_whiteout(&found) {
            let hidden = [parent, if parent.is_empty() { b"" } else { b"/" }, b".wh.", name];
            let result = self.item(&TarItem { mode: 0, ..TarItem::file(&hidden.concat(), 0) });
            self.parent = Some((parent.to_vec(), at));
            return result;
        }
        let first = (found.st_nlink > 1)
            .then(|| self.links.insert((found.st_dev, found.st_ino), path.clone()))
            .flatten();
        if let Some(first) = first {
            self.item(&TarItem { kind: TarKind::HardLink(&first), ..item(&path, &found, &[]) })?;
            self.links.insert((found.st_dev, found.st_ino), first);
            self.parent = Some((parent.to_vec(), at));
            return Ok(());
        }
        let (xattrs, _) = self.xattrs(&at, name, &path)?;
        let plain = item(&path, &found, &xattrs);
        let (devmajor, devminor) = (major(found.st_rdev), minor(found.st_rdev));
        match file_type {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&at, name, flags, Mode::empty())
                    .doing("open", || show(&path))?;
                let size = u64::try_from(found.st_size).unwrap_or_default();
                self.item(&TarItem { size, ..plain })?;
                self.writer.data(File::from(file), size).doing("write", || show(&path))?;
            }
            FileType::Symlink => {
                let target =
                    readlinkat(&at, name, Vec::new()).doing("read link", || show(&path))?;
                self.item(&TarItem { kind: TarKind::Symlink(target.as_bytes()), ..plain })?;
            }
            FileType::CharacterDevice => {
                self.item(&TarItem { kind: TarKind::CharDevice(devmajor, devminor), ..plain })?;
            }
            FileType::BlockDevice => {
                self.item(&TarItem { kind: TarKind::BlockDevice(devmajor, devminor), ..plain })?;
            }
            FileType::Fifo => self.item(&TarItem { kind: TarKind::Fifo, ..plain })?,
            // Sockets are in no archive, so none was unpacked.
            FileType::Socket | FileType::Directory | FileType::Unknown => {}
        }
        self.parent = Some((parent.to_vec(), at));
        Ok(())
    }

    /// A directory, and its names for later.
    fn directory(&mut self, path: &[u8]) -> Result<()> {
        let fd = self.open(path)?;
        let (xattrs, opaque) = self.xattrs(&fd, b".", path)?;
        let slash = if path.is_empty() { b"./".to_vec() } else { [path, b"/"].concat() };
        if !self.implied.contains(path) {
            let found = rustix::fs::fstat(&fd).doing("look at", || show(path))?;
            self.item(&TarItem { kind: TarKind::Directory, ..item(&slash, &found, &xattrs) })?;
        }
        let prefix: &[u8] = if path.is_empty() { b"" } else { &slash };
        if opaque {
            let path = [prefix, b".wh..wh..opq"].concat();
            self.item(&TarItem { mode: 0, ..TarItem::file(&path, 0) })?;
        }
        let first = self.todo.len();
        for entry in rustix::fs::Dir::read_from(&fd).doing("list", || show(path))? {
            let entry = entry.doing("list", || show(path))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                self.todo.push([prefix, name].concat());
            }
        }
        self.todo[first..].sort_unstable_by(|one, other| other.cmp(one));
        Ok(())
    }

    fn open(&self, path: &[u8]) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let path = if path.is_empty() { b"." } else { path };
        self.root.open_beneath(path, flags).doing("open directory", || show(path))
    }

    fn item(&mut self, item: &TarItem<'_>) -> Result<()> {
        self.writer.item(item).map_err(not_written)
    }

    /// Attributes that belong into an archive, sorted, and whether the
    /// directory is opaque.
    fn xattrs(&mut self, at: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(Xattrs, bool)> {
        let mut place = format!("/proc/self/fd/{}/", at.as_raw_fd()).into_bytes();
        place.extend_from_slice(name);
        let verb = "read the extended attributes of";
        let length = match llistxattr(place.as_slice(), self.buffer.as_mut_slice()) {
            Ok(length) => length,
            Err(Errno::OPNOTSUPP) => 0,
            Err(errno) => return Err(errno).doing(verb, || show(path)),
        };
        let names = self.buffer[..length].to_vec();
        let (mut xattrs, mut opaque) = (Xattrs::new(), false);
        for key in names.split(|byte| *byte == 0).filter(|key| !key.is_empty()) {
            if key == b"security.selinux" {
                continue;
            }
            let length = lgetxattr(place.as_slice(), key, self.buffer.as_mut_slice())
                .doing(verb, || show(path))?;
            let value = &self.buffer[..length];
            if key.starts_with(b"trusted.overlay.") {
                opaque |= key == OPAQUE && value == b"y";
            } else {
                xattrs.push((key.to_vec(), value.to_vec()));
            }
        }
        xattrs.sort();
        Ok((xattrs, opaque))
    }
}

type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

fn item<'a>(path: &'a [u8], found: &Stat, xattrs: &'a [(Vec<u8>, Vec<u8>)]) -> TarItem<'a> {
    TarItem {
        mode: found.st_mode & 0o7777,
        uid: found.st_uid,
        gid: found.st_gid,
        mtime: (found.st_mtime, u32::try_from(found.st_mtime_nsec).unwrap_or_default()),
        xattrs,
        ..TarItem::file(path, 0)
    }
}

fn show(path: &[u8]) -> String {
    format!("{:?} of a layer", String::from_utf8_lossy(path))
}

fn not_written(source: io::Error) -> Error {
    Error::Io { verb: "write", object: "the archive of a layer".into(), source }
}

/// Hashes and counts what passes.
struct Counted<'a> {
    out: &'a mut dyn Write,
    hash: Sha256,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.out.write(bytes)?;
        self.hash.update(&bytes[..length]);
        self.bytes += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Archive, Item, describe, make_tree, unpack};
    use super::*;

    fn packed(tree: &Path, implied: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        let (digest, bytes) = pack(tree, implied, &mut out).unwrap();
        assert_eq!(bytes, out.len() as u64);
        assert_eq!(digest, Digest::from_sha256(Sha256::digest(&out).into()));
        out
    }

    #[test]
    fn everything_that_a_tree_can_hold_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        make_tree(dir.path());
        let archive = packed(dir.path(), &[]);
        let ours = unpack(&archive);
        ours.result.as_ref().unwrap();
        assert_eq!(describe(&ours.tree()), describe(dir.path()));
        assert_eq!(packed(&ours.tree(), &[]), archive);
        // GNU tar reads it, too.
        let (theirs, file) = (ours.dir.path().join("theirs"), ours.dir.path().join("archive"));
        std::fs::create_dir(&theirs).unwrap();
        std::fs::write(&file, &archive).unwrap();
        let status = std::process::Command::new("tar")
            .args(["--xattrs", "--xattrs-include=*", "--same-owner", "-p", "-C"])
            .arg(&theirs)
            .arg("-xf")
            .arg(&file)
            .status()
            .unwrap();
        assert!(status.success());
        assert_eq!(describe(&theirs), describe(dir.path()));
    }

    #[test]
    fn whiteouts_devices_and_left_out_parents_come_back() {
        let device = Item { kind: b'3', name: b"dev/tty0", device: (4, 70), ..Item::default() };
        let far = Item { name: b"far", ..Item::default() };
        let archive = Archive::default()
            .dir("opaque/", 0o1777)
            .file("opaque/.wh..wh..opq", b"")
            .file("opaque/new", b"new")
            .file("left/out/.wh.gone", b"")
            .pax(b'x', &[("uid", b"3000000"), ("mtime", b"-1.25")])
            .item(&far, b"")
            .item(&device, b"")
            .end();
        let first = unpack(&archive);
        let summary = first.result.as_ref().unwrap();
        let again = packed(&first.tree(), &summary.implied);
        let second = unpack(&again);
        let summary_again = second.result.as_ref().unwrap();
        assert_eq!(summary_again.implied, summary.implied);
        assert_eq!(packed(&second.tree(), &summary_again.implied), again);
        let names = super::super::members(again.as_slice(), 100, 1 << 20).unwrap();
        let names: Vec<_> =
            names.iter().map(|one| String::from_utf8(one.path.clone()).unwrap()).collect();
        assert_eq!(names, ["far", "left/out/.wh.gone", "opaque/.wh..wh..opq", "opaque/new"]);
        use std::os::unix::fs::MetadataExt;
        let look = |path: &str| second.tree().join(path).symlink_metadata().unwrap();
        assert_eq!((look("far").uid(), look("far").mtime()), (3_000_000, -2));
        assert_eq!(look("dev/tty0").rdev(), rustix::fs::makedev(4, 70));
        assert_eq!(look("left/out/gone").rdev(), 0);
    }
}
