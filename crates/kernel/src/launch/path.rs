//! Paths inside a container's root, resolved beneath it whatever its links say.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

const PATH_MAX: usize = 4096;
const LINKS_MAX: usize = 40;

/// Opens a path beneath `root`, which is where absolute links and `..` end.
pub(super) fn open_in(root: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        // AGAIN: something was renamed during the walk, and the kernel cannot
        // tell whether it led outside.
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// A C string of bounded length on the stack.
pub(super) struct Text {
    bytes: [u8; PATH_MAX],
    length: usize,
}

impl Text {
    pub(super) fn new() -> Self {
        Self { bytes: [0; PATH_MAX], length: 0 }
    }

    pub(super) fn from(bytes: &[u8]) -> Result<Self, Errno> {
        let mut text = Self::new();
        text.push(bytes)?;
        Ok(text)
    }

    /// Adds bytes; one byte is kept for the NUL.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        let end = self.length.checked_add(bytes.len()).ok_or(Errno::NAMETOOLONG)?;
        if end >= PATH_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        self.bytes.get_mut(self.length..end).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(bytes);
        self.length = end;
        Ok(())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&[])
    }

    pub(super) fn as_c_str(&self) -> Result<&CStr, Errno> {
        let bytes = self.bytes.get(..=self.length).ok_or(Errno::NAMETOOLONG)?;
        CStr::from_bytes_with_nul(bytes).map_err(|_| Errno::INVAL)
    }
}

/// What [`ensure`] makes at the end of a path that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Make {
    Directory,
    File,
}

/// Opens a path (`O_PATH`), making what is missing of it: directories on the
/// way, and `make` at its end.
pub(super) fn ensure(root: BorrowedFd<'_>, path: &CStr, make: Make) -> Result<OwnedFd, Errno> {
    match open_in(root, path, OFlags::PATH) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let mut wanted = Text::from(path.to_bytes())?;
    for _ in 0..LINKS_MAX {
        match make_missing(root, &wanted, make)? {
            Made::All(fd) => return Ok(fd),
            Made::Link(through) => wanted = through,
        }
    }
    Err(Errno::LOOP)
}

#[expect(clippy::large_enum_variant, reason = "nothing may be allocated here")]
enum Made {
    All(OwnedFd),
    /// A link that leads to nothing was met: the path is this one.
    Link(Text),
}

fn make_missing(root: BorrowedFd<'_>, wanted: &Text, make: Make) -> Result<Made, Errno> {
    let bytes = wanted.as_bytes();
    let mut parent = open_in(root, c"/", OFlags::PATH | OFlags::DIRECTORY)?;
    let mut start = 0;
    while start < bytes.len() {
        let rest = bytes.get(start..).unwrap_or(&[]);
        if rest.first() == Some(&b'/') {
            start += 1;
            continue;
        }
        let length = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
        let end = start + length;
        let after = bytes.get(end..).unwrap_or(&[]);
        let last = after.iter().all(|byte| *byte == b'/');
        let prefix = Text::from(bytes.get(..end).unwrap_or(&[]))?;
        let name = Text::from(rest.get(..length).unwrap_or(&[]))?;
        parent = match open_in(root, prefix.as_c_str()?, OFlags::PATH) {
            Ok(found) => found,
            Err(Errno::NOENT) => {
                let file = last && make == Make::File;
                match make_one(parent.as_fd(), name.as_c_str()?, file) {
                    Ok(()) => open_in(root, prefix.as_c_str()?, OFlags::PATH)?,
                    Err(Errno::EXIST) => {
                        let before = bytes.get(..start).unwrap_or(&[]);
                        return follow(parent.as_fd(), before, &name, after).map(Made::Link);
                    }
                    Err(errno) => return Err(errno),
                }
            }
            Err(errno) => return Err(errno),
        };
        start = end;
    }
    Ok(Made::All(parent))
}

fn make_one(parent: BorrowedFd<'_>, name: &CStr, file: bool) -> Result<(), Errno> {
    if file {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
    } else {
        rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))
    }
}

/// The path that a link's text makes of `before/name` + `after`.
fn follow(parent: BorrowedFd<'_>, before: &[u8], name: &Text, after: &[u8]) -> Result<Text, Errno> {
    let mut buffer = [0u8; PATH_MAX];
    let length = rustix::fs::readlinkat_raw(parent, name.as_c_str()?, &mut buffer[..])?;
    let link = buffer.get(..length).unwrap_or(&[]);
    let mut path = Text::new();
    if link.first() != Some(&b'/') {
        path.push(before)?;
    }
    path.push(link)?;
    path.push(after)?;
    Ok(path)
}

/// Makes the directory a path lies in, and returns it with the last name.
pub(super) fn ensure_parent(root: BorrowedFd<'_>, path: &CStr) -> Result<(OwnedFd, Text), Errno> {
    let bytes = path.to_bytes();
    let slash = bytes.iter().rposition(|byte| *byte == b'/').ok_or(Errno::INVAL)?;
    let name = bytes.get(slash + 1..).unwrap_or(&[]);
    if name.is_empty() || name == b"." || name == b".." {
        return Err(Errno::INVAL);
    }
    let mut parent = Text::from(b"/")?;
    parent.push(bytes.get(..slash).unwrap_or(&[]))?;
    Ok((ensure(root, parent.as_c_str()?, Make::Directory)?, Text::from(name)?))
}
