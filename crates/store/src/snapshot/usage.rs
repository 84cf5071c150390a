//! What a container has written.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use crate::error::{IoContext, Result};

/// Directories deeper than this are not counted: each level holds a descriptor.
const DEPTH_MAX: usize = 100;
/// Entries between two breaks.
const BREAK_ENTRIES: u64 = 4096;
/// How long a break of a walk in the background is: longer than what it read
/// until then takes from a fast disk.
pub(super) const BREAK: Duration = Duration::from_millis(20);
/// Bytes of the blocks that `st_blocks` counts.
const BLOCK_BYTES: u64 = 512;

/// Disk used by the files of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes allocated on the disk.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

/// Counts what is below `path`, up to so many entries, with breaks. The
/// container may be changing it meanwhile, and may be hostile: no link is
/// followed, entries and depth are bounded.
pub(super) fn count(path: &Path, entries_max: u64, pause: Duration) -> Result<Usage> {
    let root =
        openat(CWD, path, LISTING, Mode::empty()).doing("open", || path.display().to_string())?;
    walk(root, entries_max, pause).doing("count the files in", || path.display().to_string())
}

const LISTING: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn walk(root: OwnedFd, max: u64, pause: Duration) -> std::result::Result<Usage, Errno> {
    let mut usage = Usage::default();
    // Files with several names, so that each counts once.
    let mut linked = HashSet::new();
    let mut stack = vec![Dir::new(root)?];
    while let Some(directory) = stack.last_mut() {
        let Some(entry) = directory.next() else {
            stack.pop();
            continue;
        };
        let entry = entry?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        let fd = directory.fd()?;
        let stat = match statat(fd, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno),
        };
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_directory || stat.st_nlink == 1 || linked.insert(stat.st_ino) {
            usage.inodes += 1;
            usage.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK_BYTES;
        }
        if usage.inodes >= max {
            break;
        }
        if usage.inodes.is_multiple_of(BREAK_ENTRIES) && !pause.is_zero() {
            std::thread::sleep(pause);
        }
        if is_directory && stack.len() < DEPTH_MAX {
            let below = stack.last().and_then(|directory| directory.fd().ok());
            let opened =
                below.map(|fd| openat(fd.as_fd(), entry.file_name(), LISTING, Mode::empty()));
            // One that has gone meanwhile needs no counting.
            if let Some(Ok(fd)) = opened {
                stack.push(Dir::new(fd)?);
            }
        }
    }
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_each_file_once_and_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/f"), vec![1; 100_000]).unwrap();
        std::fs::hard_link(dir.path().join("d/f"), dir.path().join("g")).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("l")).unwrap();
        let usage = count(dir.path(), 1000, Duration::ZERO).unwrap();
        assert_eq!(usage.inodes, 3);
        assert!((100_000..200_000).contains(&usage.bytes), "{usage:?}");
        assert_eq!(count(dir.path(), 2, BREAK).unwrap().inodes, 2);
    }
}
