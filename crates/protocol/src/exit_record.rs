//! Exit records: what a shim appends to a file in `/run` for every process
//! that ended, so that a daemon learns of it even when both had died.
//!
//! Each record has the same size, so that a reader finds the next one.

use corten_base::ContainerId;
use corten_base::limits::EXIT_RECORD_BYTES;

use crate::frame::bytes::{Reader, Writer};
use crate::frame::{DecodeError, Exit, LaunchFailure, Target};

const MAGIC: [u8; 4] = *b"crtx";
const VERSION: u16 = 1;

/// One process that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitRecord {
    /// Who.
    pub target: Target,
    /// When its command began, nanoseconds since 1970; 0 if it never did.
    pub started_ns: i64,
    /// How it ended.
    pub exit: Exit,
    /// Why its command never began, if it was the launch that failed.
    pub failure: Option<LaunchFailure>,
}

impl ExitRecord {
    /// The record's bytes.
    pub fn encode(&self) -> [u8; EXIT_RECORD_BYTES] {
        let mut writer = Writer::new();
        writer.raw(&MAGIC);
        writer.u16(VERSION);
        writer.flags(&[self.target.exec.is_some(), self.failure.is_some()]);
        writer.container(&self.target.container);
        writer.u64(self.target.exec.map_or(0, |exec| exec.0));
        writer.i64(self.started_ns);
        self.exit.write(&mut writer);
        self.failure.unwrap_or(LaunchFailure { step: 0, errno: 0 }).write(&mut writer);
        let mut record = [0; EXIT_RECORD_BYTES];
        let bytes = writer.finish();
        record[..bytes.len()].copy_from_slice(&bytes);
        record
    }

    /// One record's bytes.
    pub fn decode(record: &[u8; EXIT_RECORD_BYTES]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(record);
        if reader.array()? != MAGIC {
            return Err(DecodeError::NoFrame);
        }
        match reader.u16()? {
            VERSION => {}
            version => return Err(DecodeError::Version(version)),
        }
        let [is_exec, has_failure] = reader.flags()?;
        let container: ContainerId = reader.container()?;
        let exec = reader.exec()?;
        let started_ns = reader.i64()?;
        let exit = Exit::read(&mut reader)?;
        let failure = LaunchFailure::read(&mut reader)?;
        Ok(Self {
            target: Target { container, exec: is_exec.then_some(exec) },
            started_ns,
            exit,
            failure: has_failure.then_some(failure),
        })
    }

    /// All records of a file. A record that makes no sense is an error of its
    /// own, and the next ones are still read; what is cut off at the end (the
    /// shim died while it wrote) is passed over.
    pub fn read_all(file: &[u8]) -> impl Iterator<Item = Result<Self, DecodeError>> + '_ {
        file.as_chunks::<EXIT_RECORD_BYTES>().0.iter().map(Self::decode)
    }
}

/// The records of a file that make sense, in the order in which they were
/// written. See [`ExitRecord::read_all`] for those that do not.
pub fn parse(file: &[u8]) -> impl Iterator<Item = ExitRecord> + '_ {
    ExitRecord::read_all(file).filter_map(Result::ok)
}

#[cfg(test)]
mod tests {
    use corten_base::ExecId;

    use super::*;

    fn records() -> [ExitRecord; 2] {
        let container = ContainerId::from_random([0xa5; 32]);
        let exit = Exit { code: 137, oom_killed: true, timed_out: false, at_ns: i64::MAX };
        let first = ExitRecord {
            target: Target { container: container.clone(), exec: None },
            started_ns: 12,
            exit,
            failure: None,
        };
        let second = ExitRecord {
            target: Target { container, exec: Some(ExecId(u64::MAX)) },
            started_ns: 0,
            exit: Exit { code: 0, oom_killed: false, timed_out: true, at_ns: 5 },
            failure: Some(LaunchFailure { step: LaunchFailure::CLONE, errno: 12 }),
        };
        [first, second]
    }

    #[test]
    fn records_come_back_one_after_the_other() {
        let mut file: Vec<u8> = records().iter().flat_map(ExitRecord::encode).collect();
        file.extend_from_slice(b"crtx cut off");
        let read: Vec<_> = ExitRecord::read_all(&file).map(Result::unwrap).collect();
        assert_eq!(read, records());
    }

    #[test]
    fn a_damaged_record_does_not_hide_the_next() {
        let mut file: Vec<u8> = records().iter().flat_map(ExitRecord::encode).collect();
        file[4] = 9;
        let read: Vec<_> = ExitRecord::read_all(&file).collect();
        assert_eq!(read[0], Err(DecodeError::Version(9)));
        assert_eq!(read[1].as_ref(), Ok(&records()[1]));
    }
}
