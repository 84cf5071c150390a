//! Where the directories of root file systems are made.
//!
//! ext4 without a journal (many a virtual machine's) gives an inode that was
//! deleted to nobody for the next minutes: whoever needs one tries those of its
//! group one by one, from the first. Where some hundred containers have come and
//! gone, that was a third of the cost of the next (each takes some fifteen
//! inodes). A directory gets an inode in the group of its parent, and its files
//! there as well, wherever it is renamed to later; only those in a directory that
//! is marked as a top one are spread over the disk. So there are lanes, each in
//! another part of it, and root file systems are made in each in turn.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{CWD, IFlags, Mode, OFlags, ioctl_getflags, ioctl_setflags, openat};

use crate::error::{IoContext, Result};
use crate::trash::Trash;

/// Few enough for their groups to stay in memory.
const LANES: usize = 32;

/// The lanes.
pub(super) struct Lanes {
    dir: PathBuf,
    next: AtomicUsize,
}

impl Lanes {
    /// Those below `dir`, which is there. What an earlier daemon left in them is
    /// thrown away.
    pub(super) fn open(dir: PathBuf, trash: &Trash) -> Result<Self> {
        spread(&dir);
        let lanes = Self { dir, next: AtomicUsize::new(0) };
        for number in 0..LANES {
            let lane = lanes.lane(number);
            match std::fs::create_dir(&lane) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    trash.discard_all_in(&lane)?;
                }
                made => made.doing("create", || lane.display().to_string())?,
            }
        }
        Ok(lanes)
    }

    /// Where nothing is, for a directory to be made. It does not stay there.
    pub(super) fn place(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.lane(number % LANES).join(number.to_string())
    }

    fn lane(&self, number: usize) -> PathBuf {
        self.dir.join(number.to_string())
    }
}

/// Tells the file system to spread what is made in a directory. Others than
/// ext4 do not know of it: that they do without is only slower.
fn spread(dir: &Path) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(dir) = openat(CWD, dir, flags, Mode::empty()) else { return };
    if let Ok(flags) = ioctl_getflags(&dir) {
        let _ = ioctl_setflags(&dir, flags | IFlags::TOPDIR);
    }
}
