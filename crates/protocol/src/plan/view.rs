//! Reading plans, without allocation and without trust.

use std::ffi::CStr;

use corten_base::limits::PLAN_BYTES_MAX;
use corten_kernel::launch::{
    CStrList, Capabilities, FdIndex, MountAttributes, NamespaceKind, Propagation, Step, TargetKind,
};

use super::wire::Tag;
use super::{Delegate, Header, Hook, HookPoint, JoinTarget, MAGIC, PlanError};
use crate::frame::VERSION;

/// A plan that was found to be sound. Borrows from the bytes it was read from.
#[derive(Debug, Clone, Copy)]
pub struct PlanView<'a> {
    header: Header<'a>,
    hooks: &'a [u8],
    steps: &'a [u8],
    step_count: u32,
}

impl<'a> PlanView<'a> {
    /// Checks all of the bytes; afterwards nothing in them can surprise.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PlanError> {
        if bytes.len() > PLAN_BYTES_MAX {
            return Err(PlanError::TooLong);
        }
        let rest = bytes.strip_prefix(&MAGIC).ok_or(PlanError::NoPlan)?;
        let mut reader = Reader { rest };
        let malformed = |reader: &Reader<'_>| PlanError::Malformed(bytes.len() - reader.rest.len());
        let version = reader.u16().ok_or(malformed(&reader))?;
        if version != VERSION {
            return Err(PlanError::Version(version));
        }
        let (header, hook_count, hooks, step_count, steps) =
            sections(&mut reader).ok_or_else(|| malformed(&reader))?;
        let view = Self { header, hooks, steps, step_count };
        // Offsets in what follows are counted from the end of their section.
        if view.hooks().count() != hook_count as usize || view.hooks().ended_at() != 0 {
            return Err(PlanError::Malformed(bytes.len() - steps.len()));
        }
        view.check_steps(bytes.len())?;
        Ok(view)
    }

    fn check_steps(&self, length: usize) -> Result<(), PlanError> {
        let mut steps = self.steps();
        let mut count = 0;
        let mut ended = false;
        for step in steps.by_ref() {
            let fd = match step {
                Step::JoinNamespace { fd, .. } | Step::Root { fd } | Step::MountFd { fd, .. } => {
                    Some(fd)
                }
                _ => None,
            };
            if ended || fd.is_some_and(|fd| fd.0 >= self.header.fd_count) {
                return Err(if ended { PlanError::NoEnd } else { PlanError::Malformed(length) });
            }
            ended = matches!(step, Step::Exec { .. } | Step::Init);
            count += 1;
        }
        let left = steps.reader.rest.len();
        if left != 0 || count != self.step_count {
            return Err(PlanError::Malformed(length - left));
        }
        if ended { Ok(()) } else { Err(PlanError::NoEnd) }
    }

    /// What the shim has to know.
    pub fn header(&self) -> Header<'a> {
        self.header
    }

    /// The hooks that the shim runs.
    pub fn hooks(&self) -> Hooks<'a> {
        Hooks { reader: Reader { rest: self.hooks } }
    }

    /// The steps of the child.
    pub fn steps(&self) -> Steps<'a> {
        Steps { reader: Reader { rest: self.steps } }
    }

    /// How many steps there are.
    pub fn step_count(&self) -> u32 {
        self.step_count
    }

    /// What a step does, as part of a sentence: «mount proc at /proc».
    /// Also knows the numbers that stand for what is not a step.
    pub fn describe_step(&self, index: u32) -> String {
        super::describe::number(self.steps().nth(index as usize), index)
    }
}

type Sections<'a> = (Header<'a>, u32, &'a [u8], u32, &'a [u8]);

fn sections<'a>(reader: &mut Reader<'a>) -> Option<Sections<'a>> {
    let header = read_header(reader.blob()?)?;
    let hook_count = reader.u32()?;
    let hooks = reader.blob()?;
    let step_count = reader.u32()?;
    let steps = reader.blob()?;
    reader.rest.is_empty().then_some((header, hook_count, hooks, step_count, steps))
}

/// A newer writer may have added fields at the end: they are passed over.
fn read_header(bytes: &[u8]) -> Option<Header<'_>> {
    let mut reader = Reader { rest: bytes };
    let new_namespaces = reader.u8()?;
    let join = match reader.u8()? {
        0 => JoinTarget::Own,
        1 => JoinTarget::PidOf(std::str::from_utf8(reader.blob()?).ok()?),
        2 => JoinTarget::Container,
        _ => return None,
    };
    let user_namespace = reader.bool()?;
    let console = reader.bool()?;
    let fd_count = reader.u16()?;
    let hook_mounts = match reader.u32()? {
        u32::MAX => None,
        index if index < u32::from(fd_count) => Some(FdIndex(index as u16)),
        _ => return None,
    };
    // Plans of earlier versions end here.
    let delegate =
        if reader.rest.is_empty() { None } else { read_delegate(&mut reader, fd_count)? };
    Some(Header { new_namespaces, join, user_namespace, console, fd_count, hook_mounts, delegate })
}

fn read_delegate<'a>(reader: &mut Reader<'a>, fd_count: u16) -> Option<Option<Delegate<'a>>> {
    if !reader.bool()? {
        return Some(None);
    }
    let known = |fd: FdIndex| (fd.0 < fd_count).then_some(fd);
    let directory = known(reader.fd()?)?;
    let pid_file = reader.text()?;
    let optional = |reader: &mut Reader<'a>| {
        Some(if reader.bool()? { Some(known(reader.fd()?)?) } else { None })
    };
    let (console, inherit) = (optional(reader)?, optional(reader)?);
    // A name, and no way out of the directory.
    if pid_file.is_empty() || pid_file.to_bytes().contains(&b'/') {
        return None;
    }
    let timeout_ms = reader.u32()?;
    Some(Some(Delegate { directory, pid_file, console, inherit, timeout_ms }))
}

/// The hooks of a plan.
#[derive(Debug, Clone)]
pub struct Hooks<'a> {
    reader: Reader<'a>,
}

impl Hooks<'_> {
    /// How many bytes are left when reading has come to its end.
    fn ended_at(mut self) -> usize {
        self.by_ref().for_each(drop);
        self.reader.rest.len()
    }
}

impl<'a> Iterator for Hooks<'a> {
    type Item = Hook<'a>;

    fn next(&mut self) -> Option<Hook<'a>> {
        let mut reader = self.reader.clone();
        let hook = Hook {
            point: match reader.u8()? {
                0 => HookPoint::CreateRuntime,
                1 => HookPoint::PostStart,
                2 => HookPoint::PostStop,
                3 => HookPoint::Start,
                _ => return None,
            },
            args: reader.list()?,
            env: reader.list()?,
            state_before_pid: reader.blob()?,
            state_after_pid: reader.blob()?,
            timeout_ms: reader.u32()?,
        };
        self.reader = reader;
        Some(hook)
    }
}

/// The steps of a plan.
#[derive(Debug, Clone)]
pub struct Steps<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for Steps<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        let mut reader = self.reader.clone();
        let tag = Tag::from_number(reader.u8()?)?;
        let step = read_step(&mut reader, tag)?;
        self.reader = reader;
        Some(step)
    }
}

/// Reads primitives; each is none when the bytes do not have it.
#[derive(Debug, Clone)]
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*first)
    }
    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }
    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_le_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
    fn bool(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
    fn blob(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        let (first, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(first)
    }
    fn text(&mut self) -> Option<&'a CStr> {
        CStr::from_bytes_with_nul(self.blob()?).ok()
    }
    fn list(&mut self) -> Option<CStrList<'a>> {
        let count = self.u32()?;
        let bytes = self.blob()?;
        let ends = bytes.iter().filter(|byte| **byte == 0).count();
        let whole = bytes.last().is_none_or(|last| *last == 0);
        (whole && ends == count as usize).then_some(CStrList { count, bytes })
    }
    fn attributes(&mut self) -> Option<MountAttributes> {
        Some(MountAttributes { set: self.u64()?, clear: self.u64()?, recursive: self.bool()? })
    }
    fn kind(&mut self) -> Option<NamespaceKind> {
        Some(match self.u8()? {
            0 => NamespaceKind::Mount,
            1 => NamespaceKind::Net,
            2 => NamespaceKind::Ipc,
            3 => NamespaceKind::Uts,
            4 => NamespaceKind::Pid,
            5 => NamespaceKind::User,
            6 => NamespaceKind::Cgroup,
            7 => NamespaceKind::Time,
            _ => return None,
        })
    }
    fn propagation(&mut self) -> Option<Option<Propagation>> {
        Some(match self.u8()? {
            0 => None,
            1 => Some(Propagation::Private),
            2 => Some(Propagation::Slave),
            3 => Some(Propagation::Shared),
            4 => Some(Propagation::Unbindable),
            _ => return None,
        })
    }
    fn fd(&mut self) -> Option<FdIndex> {
        self.u16().map(FdIndex)
    }
    fn sets(&mut self) -> Option<Capabilities> {
        Some(Capabilities {
            bounding: self.u64()?,
            effective: self.u64()?,
            permitted: self.u64()?,
            inheritable: self.u64()?,
            ambient: self.u64()?,
        })
    }
}

fn read_step<'a>(r: &mut Reader<'a>, tag: Tag) -> Option<Step<'a>> {
    Some(match tag {
        Tag::EnterCgroups => Step::EnterCgroups,
        Tag::AwaitStart => Step::AwaitStart,
        Tag::AwaitHooks => Step::AwaitHooks { point: r.u8()? },
        Tag::JoinNamespace => Step::JoinNamespace { fd: r.fd()?, kind: r.kind()? },
        Tag::NewNamespace => Step::NewNamespace { kind: r.kind()? },
        Tag::Hostname => Step::Hostname { name: r.text()? },
        Tag::Domainname => Step::Domainname { name: r.text()? },
        Tag::NewSession => Step::NewSession,
        Tag::BecomeNamespaceRoot => Step::BecomeNamespaceRoot,
        Tag::SwitchRoot => Step::SwitchRoot,
        Tag::ReadonlyRoot => Step::ReadonlyRoot,
        Tag::Mask => Step::Mask { path: r.text()? },
        Tag::ReadonlyPath => Step::ReadonlyPath { path: r.text()? },
        Tag::EnsureDirectory => {
            Step::EnsureDirectory { path: r.text()?, uid: r.u32()?, gid: r.u32()? }
        }
        Tag::Sysctl => Step::Sysctl { path: r.text()?, value: r.text()? },
        Tag::OomScoreAdj => Step::OomScoreAdj { value: r.i32()? },
        Tag::Rlimit => Step::Rlimit { resource: r.u32()?, soft: r.u64()?, hard: r.u64()? },
        Tag::Nice => Step::Nice { value: r.i32()? },
        Tag::Umask => Step::Umask { mask: r.u32()? },
        Tag::Groups => {
            let list = r.blob()?;
            if list.len() % 4 != 0 {
                return None;
            }
            Step::Groups { list }
        }
        Tag::User => Step::User { uid: r.u32()?, gid: r.u32()? },
        Tag::WorkingDirectory => Step::WorkingDirectory { path: r.text()? },
        Tag::Capabilities => Step::Capabilities { sets: r.sets()? },
        Tag::BoundingSet => Step::BoundingSet { bounding: r.u64()? },
        Tag::NoNewPrivileges => Step::NoNewPrivileges,
        Tag::Seccomp => Step::Seccomp { program: r.blob()?, flags: r.u32()? },
        Tag::ExecLabel => Step::ExecLabel { attribute: r.text()?, label: r.text()? },
        Tag::Hook => Step::Hook {
            args: r.list()?,
            env: r.list()?,
            state_before_pid: r.blob()?,
            state_after_pid: r.blob()?,
            timeout_ms: r.u32()?,
        },
        Tag::Exec => Step::Exec { candidates: r.list()?, args: r.list()?, env: r.list()? },
        Tag::Init => Step::Init,
        Tag::RootPropagation
        | Tag::Root
        | Tag::MountFd
        | Tag::MountOwn
        | Tag::MountNew
        | Tag::Remount
        | Tag::Device
        | Tag::Symlink
        | Tag::Console => return read_mount_step(r, tag),
    })
}

/// The steps that build the root filesystem.
fn read_mount_step<'a>(r: &mut Reader<'a>, tag: Tag) -> Option<Step<'a>> {
    Some(match tag {
        Tag::RootPropagation => Step::RootPropagation { propagation: r.propagation()?? },
        Tag::Root => Step::Root { fd: r.fd()? },
        Tag::MountFd => Step::MountFd {
            fd: r.fd()?,
            target: r.text()?,
            kind: match r.u8()? {
                0 => TargetKind::Directory,
                1 => TargetKind::File,
                2 => TargetKind::LikeSource,
                _ => return None,
            },
            attributes: r.attributes()?,
            propagation: r.propagation()?,
        },
        Tag::MountOwn => {
            Step::MountOwn { source: r.text()?, target: r.text()?, attributes: r.attributes()? }
        }
        Tag::MountNew => Step::MountNew {
            fstype: r.text()?,
            source: r.text()?,
            options: r.list()?,
            target: r.text()?,
            attributes: r.attributes()?,
            copy_up: r.bool()?,
        },
        Tag::Remount => Step::Remount { target: r.text()?, attributes: r.attributes()? },
        Tag::Device => Step::Device {
            path: r.text()?,
            mode: r.u32()?,
            major: r.u32()?,
            minor: r.u32()?,
            uid: r.u32()?,
            gid: r.u32()?,
        },
        Tag::Symlink => Step::Symlink { target: r.text()?, path: r.text()? },
        Tag::Console => Step::Console { uid: r.u32()?, rows: r.u16()?, columns: r.u16()? },
        _ => return None,
    })
}
