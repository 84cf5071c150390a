//! Requests as bytes.

use super::bytes::{Reader, Writer};
use super::codec::{begin, open};
use super::{
    Attached, CgroupFds, DecodeError, PodNamespaces, RUN_PLAN_BYTES_MAX, Request, Stdio, Target,
};
use corten_base::limits::SELINUX_LABEL_BYTES_MAX;

const HELLO: u16 = 1;
const SANDBOX: u16 = 2;
const NAMESPACES: u16 = 3;
const CREATE: u16 = 4;
const START: u16 = 5;
const EXEC: u16 = 6;
const KILL: u16 = 7;
const RESIZE: u16 = 8;
const CLOSE_STDIN: u16 = 9;
const REOPEN_LOG: u16 = 10;
const LIST: u16 = 11;
const DELETE: u16 = 12;
const SHUTDOWN: u16 = 13;
const ATTACH: u16 = 14;
const HANG_UP: u16 = 15;
const RUN: u16 = 16;

impl Request {
    /// The frame of this request. The reply carries the same number.
    pub fn encode(&self, number: u32) -> Vec<u8> {
        let mut writer = begin(self.kind(), number);
        self.write(&mut writer);
        writer.finish()
    }

    /// A frame's request and number.
    pub fn decode(frame: &[u8]) -> Result<(u32, Self), DecodeError> {
        let mut reader = Reader::new(frame);
        let (kind, number) = open(&mut reader)?;
        let request = Self::read(kind, &mut reader)?;
        reader.finish()?;
        Ok((number, request))
    }

    /// The number of a request whose rest makes no sense, so that it can be
    /// refused.
    pub fn number(frame: &[u8]) -> Option<u32> {
        open(&mut Reader::new(frame)).ok().map(|(_, number)| number)
    }

    fn kind(&self) -> u16 {
        match self {
            Self::Hello { .. } => HELLO,
            Self::Sandbox { .. } => SANDBOX,
            Self::Namespaces => NAMESPACES,
            Self::Create { .. } => CREATE,
            Self::Start { .. } => START,
            Self::Exec { .. } => EXEC,
            Self::Run { .. } => RUN,
            Self::Kill { .. } => KILL,
            Self::Resize { .. } => RESIZE,
            Self::CloseStdin { .. } => CLOSE_STDIN,
            Self::HangUp { .. } => HANG_UP,
            Self::Attach { .. } => ATTACH,
            Self::ReopenLog { .. } => REOPEN_LOG,
            Self::List => LIST,
            Self::Delete { .. } => DELETE,
            Self::Shutdown => SHUTDOWN,
        }
    }

    fn write(&self, writer: &mut Writer) {
        match self {
            Self::Hello { version } => writer.u16(*version),
            Self::Sandbox { namespaces, shm_bytes, shm_uid, shm_gid, shm_label } => {
                namespaces.write(writer);
                writer.u64(*shm_bytes);
                writer.u32(*shm_uid);
                writer.u32(*shm_gid);
                writer.text(shm_label);
            }
            Self::Create { container, stdio, cgroup } => {
                writer.container(container);
                stdio.write(writer);
                cgroup.write(writer);
            }
            Self::Exec { container, exec, stdio, timeout_ms, cgroup } => {
                writer.container(container);
                writer.u64(exec.0);
                stdio.write(writer);
                writer.u64(*timeout_ms);
                cgroup.write(writer);
            }
            Self::Run { container, exec, timeout_ms, cgroup, plan } => {
                writer.container(container);
                writer.u64(exec.0);
                writer.u64(*timeout_ms);
                cgroup.write(writer);
                writer.bytes(plan);
            }
            Self::Kill { target, signal, all } => {
                target.write(writer);
                writer.i32(*signal);
                writer.flags(&[*all]);
            }
            Self::Resize { target, rows, columns } => {
                target.write(writer);
                writer.u16(*rows);
                writer.u16(*columns);
            }
            Self::Attach { container, streams } => {
                writer.container(container);
                streams.write(writer);
            }
            Self::Start { container } | Self::ReopenLog { container } => {
                writer.container(container);
            }
            Self::CloseStdin { target } | Self::HangUp { target } | Self::Delete { target } => {
                target.write(writer);
            }
            Self::Namespaces | Self::List | Self::Shutdown => {}
        }
    }

    fn read(kind: u16, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match kind {
            HELLO => Self::Hello { version: reader.u16()? },
            SANDBOX => Self::Sandbox {
                namespaces: PodNamespaces::read(reader)?,
                shm_bytes: reader.u64()?,
                shm_uid: reader.u32()?,
                shm_gid: reader.u32()?,
                shm_label: reader.text(SELINUX_LABEL_BYTES_MAX)?,
            },
            NAMESPACES => Self::Namespaces,
            CREATE => Self::Create {
                container: reader.container()?,
                stdio: Stdio::read(reader)?,
                cgroup: CgroupFds::read(reader)?,
            },
            START => Self::Start { container: reader.container()? },
            EXEC => Self::Exec {
                container: reader.container()?,
                exec: reader.exec()?,
                stdio: Stdio::read(reader)?,
                timeout_ms: reader.u64()?,
                cgroup: CgroupFds::read(reader)?,
            },
            RUN => Self::Run {
                container: reader.container()?,
                exec: reader.exec()?,
                timeout_ms: reader.u64()?,
                cgroup: CgroupFds::read(reader)?,
                plan: reader.bytes(RUN_PLAN_BYTES_MAX)?,
            },
            KILL => Self::Kill {
                target: Target::read(reader)?,
                signal: reader.i32()?,
                all: reader.bool()?,
            },
            RESIZE => Self::Resize {
                target: Target::read(reader)?,
                rows: reader.u16()?,
                columns: reader.u16()?,
            },
            CLOSE_STDIN => Self::CloseStdin { target: Target::read(reader)? },
            HANG_UP => Self::HangUp { target: Target::read(reader)? },
            REOPEN_LOG => Self::ReopenLog { container: reader.container()? },
            LIST => Self::List,
            ATTACH => {
                Self::Attach { container: reader.container()?, streams: Attached::read(reader)? }
            }
            DELETE => Self::Delete { target: Target::read(reader)? },
            SHUTDOWN => Self::Shutdown,
            kind => return Err(DecodeError::Kind(kind)),
        })
    }
}
