//! Removing groups.

use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::file::Directory;
use crate::{Error, Result};

/// How long groups that are still busy are tried again: their last process may
/// be dead and not yet out of them.
const BUSY_MAX: Duration = Duration::from_secs(2);

/// Removes these groups and all below them; done when nothing is there.
/// Goes on after an error, and returns the first.
pub(super) fn trees(directories: &[Directory]) -> Result<()> {
    let deadline = Instant::now() + BUSY_MAX;
    let mut outcome = Ok(());
    for directory in directories {
        let removed = tree(directory, deadline);
        outcome = outcome.and(removed);
    }
    outcome
}

/// Removes those without processes and groups; whether that was all. Stops at
/// the first that is not, so that the others still show who is in it.
pub(super) fn all_empty(directories: &[Directory]) -> bool {
    directories.iter().all(|directory| one(directory).is_ok())
}

fn tree(directory: &Directory, deadline: Instant) -> Result<()> {
    match one(directory) {
        Ok(()) => return Ok(()),
        // Groups below, or processes: the second try tells.
        Err(Errno::BUSY | Errno::NOTEMPTY) => {}
        Err(errno) => return Err(error(directory, errno)),
    }
    let mut pause = Duration::from_millis(1);
    loop {
        for name in directory.children()? {
            tree(&directory.child(&name), deadline)?;
        }
        match one(directory) {
            Ok(()) => return Ok(()),
            Err(Errno::BUSY | Errno::NOTEMPTY) if Instant::now() < deadline => {
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            Err(errno) => return Err(error(directory, errno)),
        }
    }
}

fn one(directory: &Directory) -> std::result::Result<(), Errno> {
    match std::fs::remove_dir(directory.path()) {
        Ok(()) => Ok(()),
        Err(error) => match Errno::from_io_error(&error).unwrap_or(Errno::IO) {
            Errno::NOENT => Ok(()),
            errno => Err(errno),
        },
    }
}

fn error(directory: &Directory, errno: Errno) -> Error {
    let path = directory.path().display();
    let object = match errno {
        Errno::BUSY => {
            let pids = directory.pids_below().unwrap_or_default();
            let shown: Vec<_> = pids.iter().take(8).map(ToString::to_string).collect();
            format!("cgroup {path} (processes in it: {})", shown.join(" "))
        }
        _ => format!("cgroup {path}"),
    };
    Error::new("remove", object, errno)
}
