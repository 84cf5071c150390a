//! Replies and events as bytes.

use super::bytes::{Reader, Writer};
use super::codec::{begin, open};
use super::{
    Attached, DecodeError, Event, Exit, FromShim, LaunchFailure, OUTPUT_BYTES_MAX, Phase,
    PodNamespaces, Refusal, Reply, Target,
};

// Replies lie below 256, events above.
const DONE: u16 = 1;
const HELLO: u16 = 2;
const RUNNING: u16 = 3;
const LISTED: u16 = 4;
const NAMESPACES: u16 = 5;
const REFUSED: u16 = 6;
const ATTACHED: u16 = 7;
const ENDED: u16 = 8;
const PRESENT: u16 = 0x101;
const CREATED: u16 = 0x102;
const EXITED: u16 = 0x103;
const FAILED: u16 = 0x104;
const OUT_OF_MEMORY: u16 = 0x105;
const WARNING: u16 = 0x106;
const LOG_BROKEN: u16 = 0x107;

impl FromShim {
    /// The frame of this message.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Reply(number, reply) => {
                let mut writer = begin(reply.kind(), *number);
                reply.write(&mut writer);
                writer.finish()
            }
            Self::Event(event) => {
                let mut writer = begin(event.kind(), 0);
                event.write(&mut writer);
                writer.finish()
            }
        }
    }

    /// A frame's message.
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(frame);
        let (kind, number) = open(&mut reader)?;
        let message = if kind < PRESENT {
            Self::Reply(number, Reply::read(kind, &mut reader)?)
        } else {
            Self::Event(Event::read(kind, &mut reader)?)
        };
        reader.finish()?;
        Ok(message)
    }
}

impl Reply {
    fn kind(&self) -> u16 {
        match self {
            Self::Done => DONE,
            Self::Hello { .. } => HELLO,
            Self::Running { .. } => RUNNING,
            Self::Ended { .. } => ENDED,
            Self::Listed => LISTED,
            Self::Namespaces(_) => NAMESPACES,
            Self::Attached(_) => ATTACHED,
            Self::Refused(_) => REFUSED,
        }
    }

    fn write(&self, writer: &mut Writer) {
        match self {
            Self::Done | Self::Listed => {}
            Self::Hello { version } => writer.u16(*version),
            Self::Running { pid, at_ns } => {
                writer.i32(*pid);
                writer.i64(*at_ns);
            }
            Self::Ended { exit, output } => {
                exit.write(writer);
                for bytes in output {
                    writer.bytes(bytes);
                }
            }
            Self::Namespaces(namespaces) => namespaces.write(writer),
            Self::Attached(streams) => streams.write(writer),
            Self::Refused(refusal) => refusal.write(writer),
        }
    }

    fn read(kind: u16, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match kind {
            DONE => Self::Done,
            HELLO => Self::Hello { version: reader.u16()? },
            RUNNING => Self::Running { pid: reader.i32()?, at_ns: reader.i64()? },
            ENDED => Self::Ended {
                exit: Exit::read(reader)?,
                output: [reader.bytes(OUTPUT_BYTES_MAX)?, reader.bytes(OUTPUT_BYTES_MAX)?],
            },
            LISTED => Self::Listed,
            NAMESPACES => Self::Namespaces(PodNamespaces::read(reader)?),
            ATTACHED => Self::Attached(Attached::read(reader)?),
            REFUSED => Self::Refused(Refusal::read(reader)?),
            kind => return Err(DecodeError::Kind(kind)),
        })
    }
}

impl Event {
    fn kind(&self) -> u16 {
        match self {
            Self::Present { .. } => PRESENT,
            Self::Created { .. } => CREATED,
            Self::Exited { .. } => EXITED,
            Self::Failed { .. } => FAILED,
            Self::OutOfMemory { .. } => OUT_OF_MEMORY,
            Self::Warning { .. } => WARNING,
            Self::LogBroken { .. } => LOG_BROKEN,
        }
    }

    fn write(&self, writer: &mut Writer) {
        match self {
            Self::Present { target, phase, pid, started_ns, exit, failure } => {
                target.write(writer);
                phase.write(writer);
                writer.i32(*pid);
                writer.i64(*started_ns);
                writer.flags(&[exit.is_some()]);
                if let Some(exit) = exit {
                    exit.write(writer);
                }
                writer.flags(&[failure.is_some()]);
                if let Some(failure) = failure {
                    failure.write(writer);
                }
            }
            Self::Created { container, pid } => {
                writer.container(container);
                writer.i32(*pid);
            }
            Self::Exited { target, exit } => {
                target.write(writer);
                exit.write(writer);
            }
            Self::Failed { target, failure } => {
                target.write(writer);
                failure.write(writer);
            }
            Self::OutOfMemory { container } => writer.container(container),
            Self::Warning { target, step, errno } => {
                target.write(writer);
                writer.u32(*step);
                writer.i32(*errno);
            }
            Self::LogBroken { container, errno } => {
                writer.container(container);
                writer.i32(*errno);
            }
        }
    }

    fn read(kind: u16, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match kind {
            PRESENT => Self::Present {
                target: Target::read(reader)?,
                phase: Phase::read(reader)?,
                pid: reader.i32()?,
                started_ns: reader.i64()?,
                exit: reader.optional(Exit::read)?,
                failure: reader.optional(LaunchFailure::read)?,
            },
            CREATED => Self::Created { container: reader.container()?, pid: reader.i32()? },
            EXITED => Self::Exited { target: Target::read(reader)?, exit: Exit::read(reader)? },
            FAILED => Self::Failed {
                target: Target::read(reader)?,
                failure: LaunchFailure::read(reader)?,
            },
            OUT_OF_MEMORY => Self::OutOfMemory { container: reader.container()? },
            WARNING => Self::Warning {
                target: Target::read(reader)?,
                step: reader.u32()?,
                errno: reader.i32()?,
            },
            LOG_BROKEN => Self::LogBroken { container: reader.container()?, errno: reader.i32()? },
            kind => return Err(DecodeError::Kind(kind)),
        })
    }
}
