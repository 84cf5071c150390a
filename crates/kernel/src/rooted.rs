//! Paths that never lead out of a directory, and trees that are hostile.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{
    AtFlags, CWD, IFlags, Mode, OFlags, RawDir, ResolveFlags, ioctl_getflags, ioctl_setflags,
    openat, openat2, renameat, unlinkat,
};
use rustix::io::Errno;

use crate::error::{Context, Result};

/// Tries of an `openat2` that says EAGAIN: a rename elsewhere on the machine
/// made the walk unsure.
const RESOLVE_TRIES: usize = 128;

/// A directory that paths are looked up in as if it were `/`.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// A root at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        openat(CWD, path, DIRECTORY, Mode::empty())
            .map(Self)
            .context("open", || path.display().to_string())
    }

    /// A root at a directory that is open already.
    pub fn from_fd(directory: OwnedFd) -> Self {
        Self(directory)
    }

    /// Opens what `path` names. Links are followed inside the root: absolute
    /// ones begin at it and `..` stops at it. Magic links and other file
    /// systems are refused; a last component that is a link is followed unless
    /// `flags` has NOFOLLOW.
    pub fn open_in(&self, path: &[u8], flags: OFlags) -> std::result::Result<OwnedFd, Errno> {
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        self.resolve(path, flags, how)
    }

    /// Like [`Root::open_in`], but goes on into other file systems: for the root
    /// of a running container, with what is mounted in it.
    pub fn open_across(&self, path: &[u8], flags: OFlags) -> std::result::Result<OwnedFd, Errno> {
        self.resolve(path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    /// Opens what `path` names, refusing every link on the way (ELOOP) and
    /// everything that would leave the root (EXDEV).
    pub fn open_beneath(&self, path: &[u8], flags: OFlags) -> std::result::Result<OwnedFd, Errno> {
        let how = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        self.resolve(path, flags, how)
    }

    /// The first `most` bytes of a file beneath this directory. A FIFO in its
    /// place is empty, and does not stop us.
    pub fn read(&self, path: &[u8], most: usize) -> std::result::Result<Vec<u8>, Errno> {
        let file = self.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC)?;
        let mut bytes = vec![0; most];
        let mut length = 0;
        while let Some(room) = bytes.get_mut(length..).filter(|room| !room.is_empty()) {
            match rustix::io::read(&file, room) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        bytes.truncate(length);
        Ok(bytes)
    }

    fn resolve(
        &self,
        path: &[u8],
        flags: OFlags,
        how: ResolveFlags,
    ) -> std::result::Result<OwnedFd, Errno> {
        let path: &[u8] = if path.is_empty() { b"." } else { path };
        let flags = flags | OFlags::CLOEXEC;
        let mut tries = 0;
        loop {
            match openat2(&self.0, path, flags, Mode::empty(), how) {
                Err(Errno::AGAIN) if tries < RESOLVE_TRIES => tries += 1,
                Err(Errno::INTR) => {}
                result => return result,
            }
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const LISTING: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Deletes the file or tree `name` in directory `parent`, however deep and
/// whatever its modes and flags: no recursion, two descriptors at a time. A
/// directory that is not empty is renamed into `parent` as `<name>-<n>` and
/// deleted from there, so `parent` must be the caller's alone.
/// Ends early when `stop` is set, leaving the rest in `parent`.
pub fn remove_tree(parent: &Path, name: &OsStr, stop: &AtomicBool) -> Result<()> {
    let describe = || parent.join(name).display().to_string();
    let directory = openat(CWD, parent, LISTING, Mode::empty()).context("open", describe)?;
    let first =
        CString::new(name.as_bytes()).map_err(|_| Errno::INVAL).context("delete", describe)?;
    let mut removal = Removal { parent: directory, base: name, next: 0, waiting: vec![first] };
    removal.run(stop).context("delete", describe)
}

/// A deletion under way.
struct Removal<'a> {
    parent: OwnedFd,
    /// Names what is moved up.
    base: &'a OsStr,
    next: u64,
    /// Directories in `parent` that are to go.
    waiting: Vec<CString>,
}

impl Removal<'_> {
    fn run(&mut self, stop: &AtomicBool) -> std::result::Result<(), Errno> {
        let mut first_error = Ok(());
        while let Some(name) = self.waiting.pop() {
            if stop.load(Ordering::Relaxed) {
                return first_error;
            }
            if let Err(errno) = self.remove(&name, stop) {
                first_error = first_error.and(Err(errno));
            }
        }
        first_error
    }

    /// Removes one name of `parent`, moving the directories in it up.
    fn remove(&mut self, name: &CStr, stop: &AtomicBool) -> std::result::Result<(), Errno> {
        if unlink_any(self.parent.as_fd(), name)? == Unlinked::Yes {
            return Ok(());
        }
        let directory = openat(&self.parent, name, LISTING, Mode::empty())?;
        let mut buffer = Vec::with_capacity(32 << 10);
        let mut first_error = Ok(());
        let mut entries = RawDir::new(&directory, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let entry = entry?;
            let child = entry.file_name();
            if matches!(child.to_bytes(), b"." | b"..") {
                continue;
            }
            if let Err(errno) = self.remove_child(&directory, child) {
                first_error = first_error.and(Err(errno));
            }
        }
        first_error?;
        match unlink_any(self.parent.as_fd(), name)? {
            Unlinked::Yes => Ok(()),
            Unlinked::NotEmpty => Err(Errno::NOTEMPTY),
        }
    }

    fn remove_child(
        &mut self,
        directory: &OwnedFd,
        child: &CStr,
    ) -> std::result::Result<(), Errno> {
        if unlink_any(directory.as_fd(), child)? == Unlinked::Yes {
            return Ok(());
        }
        let mut up = self.base.as_bytes().to_vec();
        up.extend_from_slice(format!("-{}", self.next).as_bytes());
        self.next += 1;
        let up = CString::new(up).map_err(|_| Errno::INVAL)?;
        match renameat(directory, child, &self.parent, &up) {
            Err(Errno::PERM) => {
                clear_flags(directory.as_fd(), child);
                renameat(directory, child, &self.parent, &up)?;
            }
            result => result?,
        }
        self.waiting.push(up);
        Ok(())
    }
}

#[derive(PartialEq, Eq)]
enum Unlinked {
    Yes,
    NotEmpty,
}

/// Unlinks a file, or a directory if it is empty; what is not there is gone.
fn unlink_any(directory: BorrowedFd<'_>, name: &CStr) -> std::result::Result<Unlinked, Errno> {
    let attempt = || match unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => unlinkat(directory, name, AtFlags::REMOVEDIR),
        result => result,
    };
    let result = match attempt() {
        // Immutable or append-only, itself or the directory.
        Err(Errno::PERM) => {
            clear_flags(directory, name);
            attempt()
        }
        result => result,
    };
    match result {
        Ok(()) | Err(Errno::NOENT) => Ok(Unlinked::Yes),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(Unlinked::NotEmpty),
        Err(errno) => Err(errno),
    }
}

/// Takes the immutable and append-only flags off a directory and a file or
/// directory in it. Whether that worked is seen by what is tried next.
fn clear_flags(directory: BorrowedFd<'_>, name: &CStr) {
    let clear = |fd: BorrowedFd<'_>| {
        if let Ok(flags) = ioctl_getflags(fd) {
            let _ = ioctl_setflags(fd, flags - (IFlags::IMMUTABLE | IFlags::APPEND));
        }
    };
    clear(directory);
    // A device or FIFO could block or act on open, and carries no such flags.
    let is_plain =
        rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
            let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
            kind.is_file() || kind.is_dir()
        });
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    if is_plain && let Ok(fd) = openat(directory, name, flags, Mode::empty()) {
        clear(fd.as_fd());
    }
}
