//! The head of every frame, and the parts that several frames share.

use super::bytes::{Reader, Writer};
use super::{
    Attached, CgroupFds, DecodeError, Exit, LaunchFailure, Phase, PodNamespaces, Refusal, Stdio,
    Target, VERSION,
};

/// How every frame begins.
const MAGIC: [u8; 4] = *b"crtn";

/// Starts a frame: magic, version, kind, number of the request (0: none).
pub(super) fn begin(kind: u16, number: u32) -> Writer {
    let mut writer = Writer::new();
    writer.raw(&MAGIC);
    writer.u16(VERSION);
    writer.u16(kind);
    writer.u32(number);
    writer
}

/// Reads the head: kind and number.
pub(super) fn open(reader: &mut Reader<'_>) -> Result<(u16, u32), DecodeError> {
    if reader.array().map_err(|_| DecodeError::NoFrame)? != MAGIC {
        return Err(DecodeError::NoFrame);
    }
    match reader.u16()? {
        VERSION => Ok((reader.u16()?, reader.u32()?)),
        version => Err(DecodeError::Version(version)),
    }
}

impl Stdio {
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.flags(&[self.terminal, self.stdin, self.stdin_once, self.log, self.hand_over]);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let [terminal, stdin, stdin_once, log, hand_over] = reader.flags()?;
        Ok(Self { terminal, stdin, stdin_once, log, hand_over })
    }
}

impl Attached {
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.flags(&[self.stdin, self.stdout, self.stderr]);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let [stdin, stdout, stderr] = reader.flags()?;
        Ok(Self { stdin, stdout, stderr })
    }
}

impl CgroupFds {
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.flags(&[self.into, self.kill, self.oom]);
        writer.u8(self.tasks);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let [into, kill, oom] = reader.flags()?;
        Ok(Self { into, kill, tasks: reader.u8()?, oom })
    }

    /// How many descriptors these are.
    pub fn count(&self) -> usize {
        usize::from(self.into)
            + usize::from(self.kill)
            + usize::from(self.tasks)
            + usize::from(self.oom)
    }
}

impl PodNamespaces {
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.flags(&[self.user, self.net, self.ipc, self.uts]);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let [user, net, ipc, uts] = reader.flags()?;
        Ok(Self { user, net, ipc, uts })
    }

    /// How many descriptors these are.
    pub fn count(&self) -> usize {
        [self.user, self.net, self.ipc, self.uts].into_iter().filter(|there| *there).count()
    }
}

impl Target {
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.container(&self.container);
        writer.flags(&[self.exec.is_some()]);
        if let Some(exec) = self.exec {
            writer.u64(exec.0);
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { container: reader.container()?, exec: reader.optional(Reader::exec)? })
    }
}

impl Phase {
    pub(super) fn write(self, writer: &mut Writer) {
        writer.u8(match self {
            Self::Creating => 1,
            Self::Created => 2,
            Self::Running => 3,
            Self::Ended => 4,
        });
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            1 => Self::Creating,
            2 => Self::Created,
            3 => Self::Running,
            4 => Self::Ended,
            _ => return Err(DecodeError::Value("a phase")),
        })
    }
}

impl Exit {
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.i32(self.code);
        writer.flags(&[self.oom_killed, self.timed_out]);
        writer.i64(self.at_ns);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let code = reader.i32()?;
        let [oom_killed, timed_out] = reader.flags()?;
        Ok(Self { code, oom_killed, timed_out, at_ns: reader.i64()? })
    }
}

impl LaunchFailure {
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.u32(self.step);
        writer.i32(self.errno);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { step: reader.u32()?, errno: reader.i32()? })
    }
}

impl Refusal {
    pub(super) fn write(&self, writer: &mut Writer) {
        match self {
            Self::Unknown => writer.u8(1),
            Self::WrongPhase(phase) => {
                writer.u8(2);
                phase.write(writer);
            }
            Self::Exists => writer.u8(3),
            Self::Malformed => writer.u8(4),
            Self::Full => writer.u8(5),
            Self::System { errno } => {
                writer.u8(6);
                writer.i32(*errno);
            }
            Self::Launch(failure) => {
                writer.u8(7);
                failure.write(writer);
            }
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            1 => Self::Unknown,
            2 => Self::WrongPhase(Phase::read(reader)?),
            3 => Self::Exists,
            4 => Self::Malformed,
            5 => Self::Full,
            6 => Self::System { errno: reader.i32()? },
            7 => Self::Launch(LaunchFailure::read(reader)?),
            _ => return Err(DecodeError::Value("a refusal")),
        })
    }
}
