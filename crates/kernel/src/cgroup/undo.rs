//! A change of limits that can be taken back: what files held before they
//! were written.

use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;

use super::file::Directory;
use crate::Result;

/// One file that was written.
#[derive(Debug)]
struct Written {
    group: Directory,
    file: String,
    /// Whole, as it was read.
    before: String,
    /// What was written.
    value: String,
}

/// Remembers, for the directories that carry it, what is written.
#[derive(Debug, Clone, Default)]
pub(super) struct UndoLog(Arc<Mutex<Vec<Written>>>);

impl UndoLog {
    pub fn note(&self, group: &Directory, file: &str, before: String, value: &str) {
        let (file, value) = (file.to_owned(), value.to_owned());
        let written = Written { group: group.without_log(), file, before, value };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(written);
    }

    /// Writes everything back, the last first: limits that bound one another
    /// then pass through the states that they came by. Goes on after an error,
    /// and returns the first.
    fn restore(&self) -> Result<()> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut outcome = Ok(());
        while let Some(written) = log.pop() {
            outcome = outcome.and(written.restore());
        }
        outcome
    }
}

impl Written {
    fn restore(&self) -> Result<()> {
        for value in values_before(&self.file, &self.before, &self.value) {
            match self.group.try_write(&self.file, &value) {
                // A group that is gone has no limits.
                Ok(()) | Err(Errno::NOENT | Errno::NODEV) => {}
                Err(errno) => return Err(self.group.write_error(&self.file, &value, errno)),
            }
        }
        Ok(())
    }
}

/// What to write so that a file reads as it did before.
fn values_before(file: &str, before: &str, written: &str) -> Vec<String> {
    // A write of nothing would not reach the kernel.
    if before.is_empty() && !file.starts_with("io.") {
        return vec!["\n".to_owned()];
    }
    let mut values: Vec<String> = before.lines().map(str::to_owned).collect();
    // This one shows only the disks that have a limit.
    if file == "io.max"
        && let Some(disk) = written.split(' ').next()
        && !values.iter().any(|line| line.split(' ').next() == Some(disk))
    {
        values.push(format!("{disk} rbps=max wbps=max riops=max wiops=max"));
    }
    values
}

/// A change of limits that was made, and can still be taken back.
#[derive(Debug)]
pub struct Undo(UndoLog);

impl Undo {
    pub(super) fn new(log: UndoLog) -> Self {
        Self(log)
    }

    /// Takes the change back.
    pub fn restore(self) -> Result<()> {
        self.0.restore()
    }
}

#[cfg(test)]
mod tests {
    use super::values_before;

    #[test]
    fn what_is_written_back() {
        assert_eq!(values_before("memory.max", "max", "1"), ["max"]);
        assert_eq!(values_before("cpuset.cpus", "", "0"), ["\n"]);
        let one = "8:0 rbps=1 wbps=max riops=max wiops=max";
        assert_eq!(values_before("io.max", one, "8:0 rbps=2"), [one]);
        let restored = values_before("io.max", one, "8:16 rbps=2");
        assert_eq!(restored, [one, "8:16 rbps=max wbps=max riops=max wiops=max"]);
        assert_eq!(values_before("io.weight", "default 100\n8:0 5", "7"), ["default 100", "8:0 5"]);
    }
}
