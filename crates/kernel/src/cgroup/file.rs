//! Reading and writing the small files of one group in one hierarchy.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use corten_base::limits::CGROUP_FILE_BYTES_MAX;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::undo::UndoLog;
use crate::{Context as _, Error, Result};

/// One group in one hierarchy.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    path: PathBuf,
    /// Where writes are remembered, if they may have to be taken back.
    log: Option<UndoLog>,
}

impl Directory {
    /// The group `group` (`/a/b`, or empty for the root) below a mount point.
    pub fn new(mount: &Path, group: &str) -> Self {
        let mut path = mount.as_os_str().to_owned();
        path.push(group);
        Self { path: path.into(), log: None }
    }

    /// The same, remembering what it writes.
    pub fn logged(self, log: Option<UndoLog>) -> Self {
        Self { log, ..self }
    }

    pub fn without_log(&self) -> Self {
        Self { path: self.path.clone(), log: None }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn child(&self, name: &str) -> Self {
        Self { path: self.path.join(name), log: self.log.clone() }
    }

    pub fn exists(&self) -> bool {
        self.path.is_dir()
    }

    pub fn has(&self, file: &str) -> bool {
        self.path.join(file).exists()
    }

    /// Makes the group; one that is there already is fine. Whether it is new.
    pub fn make(&self) -> std::result::Result<bool, Errno> {
        match fs::create_dir(&self.path) {
            Ok(()) => Ok(true),
            Err(error) => match Errno::from_io_error(&error).unwrap_or(Errno::IO) {
                Errno::EXIST => Ok(false),
                errno => Err(errno),
            },
        }
    }

    /// Writes a value. Files of groups are never created.
    pub fn write(&self, file: &str, value: &str) -> Result<()> {
        self.try_write(file, value).map_err(|errno| self.write_error(file, value, errno))
    }

    /// As [`Directory::write`], for callers that have a use for the bare errno.
    pub fn try_write(&self, file: &str, value: &str) -> std::result::Result<(), Errno> {
        // What cannot be read has nothing to go back to.
        let before = self.log.as_ref().and_then(|log| Some((log, self.read(file).ok()?)));
        OpenOptions::new()
            .write(true)
            .open(self.path.join(file))
            .and_then(|mut opened| opened.write_all(value.as_bytes()))
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        if let Some((log, before)) = before {
            log.note(self, file, before, value);
        }
        Ok(())
    }

    /// The error of a write, with file and value.
    pub fn write_error(&self, file: &str, value: &str, errno: Errno) -> Error {
        let hint = match errno {
            Errno::NOENT => " (the group is gone, or this machine has no such controller)",
            _ => "",
        };
        Error::new("write", format!("{value:?} to {file} of {}{hint}", self.path.display()), errno)
    }

    /// The whole file, without the newline at its end.
    pub fn read(&self, file: &str) -> Result<String> {
        self.read_by(file, Reads::UntilShort)
    }

    fn read_by(&self, file: &str, reads: Reads) -> Result<String> {
        let what = || format!("{file} of {}", self.path.display());
        let opened = File::open(self.path.join(file));
        let bytes = opened.and_then(|file| read_all(file, reads)).context("read", what)?;
        let mut text = String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        text.truncate(text.trim_end().len());
        Ok(text)
    }

    /// As [`Directory::read`]; `None` when this machine has no such file, or
    /// the kernel has no data for it.
    pub fn read_optional(&self, file: &str) -> Result<Option<String>> {
        match self.read(file) {
            Ok(text) => Ok(Some(text)),
            Err(error) if matches!(error.errno, Errno::NOENT | Errno::OPNOTSUPP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The group itself, as `CLONE_INTO_CGROUP` and bpf take it.
    pub fn open(&self) -> Result<OwnedFd> {
        OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::DIRECTORY.bits() as i32)
            .open(&self.path)
            .map(OwnedFd::from)
            .context("open", || self.path.display().to_string())
    }

    pub fn open_file(&self, file: &str, write: bool) -> Result<OwnedFd> {
        OpenOptions::new()
            .read(!write)
            .write(write)
            .open(self.path.join(file))
            .map(OwnedFd::from)
            .context("open", || format!("{file} of {}", self.path.display()))
    }

    /// Names of the groups below; none when the group is not there.
    pub fn children(&self) -> Result<Vec<String>> {
        let what = || self.path.display().to_string();
        let listing = match fs::read_dir(&self.path) {
            Ok(listing) => listing,
            Err(error) if gone(&error) => return Ok(Vec::new()),
            Err(error) => return Err(error).context("list", what),
        };
        let mut names = Vec::new();
        for entry in listing {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) if gone(&error) => break,
                Err(error) => return Err(error).context("list", what),
            };
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                names.extend(entry.file_name().into_string());
            }
        }
        Ok(names)
    }

    /// The processes right in this group; none when it is not there.
    pub fn pids(&self) -> Result<Vec<i32>> {
        match self.read_by("cgroup.procs", Reads::UntilEmpty) {
            Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
            Err(error) if matches!(error.errno, Errno::NOENT | Errno::NODEV) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// The processes of this group and of all groups below it.
    pub fn pids_below(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        let mut pending = vec![self.clone()];
        while let Some(directory) = pending.pop() {
            pids.extend(directory.pids()?);
            pending.extend(directory.children()?.iter().map(|name| directory.child(name)));
        }
        Ok(pids)
    }
}

/// Nearly all files of groups fit into one read; a list of figures reads
/// hundreds of them.
const FILE_BYTES: usize = 4096;

/// When a file has been read to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    /// When a read gives less than there is room for: the kernel makes the text
    /// of such a file at once, and gives all of it that fits.
    UntilShort,
    /// When a read gives nothing: a list is made line by line, and a read may
    /// end with any of them.
    UntilEmpty,
}

fn read_all(mut file: File, reads: Reads) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; FILE_BYTES];
    let mut length = 0;
    loop {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(count) => {
                length += count;
                if reads == Reads::UntilShort && length < bytes.len() {
                    break;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if length == bytes.len() {
            if length as u64 >= CGROUP_FILE_BYTES_MAX {
                break;
            }
            bytes.resize(length * 4, 0);
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

fn gone(error: &std::io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NODEV))
}

/// The number after `key ` in a file of such lines.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}
