//! Writing plans.

use std::ffi::CStr;

use corten_base::limits::PLAN_BYTES_MAX;
use corten_kernel::launch::{
    CStrList, Capabilities, MountAttributes, NamespaceKind, Propagation, Step, TargetKind,
};

use super::wire::Tag;
use super::{Header, Hook, HookPoint, JoinTarget, MAGIC, PlanError};
use crate::frame::VERSION;

/// Writes a plan, step by step. What is pushed is copied at once.
#[derive(Debug, Clone)]
pub struct PlanBuilder {
    header: Vec<u8>,
    hooks: Bytes,
    hook_count: u32,
    steps: Bytes,
    step_count: u32,
    ended: bool,
    misplaced: bool,
}

/// Bytes that grow by the plan's primitives.
#[derive(Debug, Clone, Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }
    fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    fn blob(&mut self, bytes: &[u8]) {
        // More than fits a u32 is more than a plan may have: `finish` refuses it.
        self.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(bytes);
    }
    fn text(&mut self, text: &CStr) {
        self.blob(text.to_bytes_with_nul());
    }
    fn list(&mut self, list: CStrList<'_>) {
        self.u32(list.count);
        self.blob(list.bytes);
    }
    fn attributes(&mut self, attributes: MountAttributes) {
        self.u64(attributes.set);
        self.u64(attributes.clear);
        self.u8(u8::from(attributes.recursive));
    }
    fn tag(&mut self, tag: Tag) {
        self.u8(tag as u8);
    }
}

impl PlanBuilder {
    /// A plan without hooks and steps yet.
    pub fn new(header: &Header<'_>) -> Self {
        let mut bytes = Bytes::default();
        bytes.u8(header.new_namespaces);
        match header.join {
            JoinTarget::Own => bytes.u8(0),
            JoinTarget::PidOf(container) => {
                bytes.u8(1);
                bytes.blob(container.as_bytes());
            }
            JoinTarget::Container => bytes.u8(2),
        }
        bytes.u8(u8::from(header.user_namespace));
        bytes.u8(u8::from(header.console));
        bytes.u16(header.fd_count);
        bytes.u32(header.hook_mounts.map_or(u32::MAX, |index| u32::from(index.0)));
        bytes.u8(u8::from(header.delegate.is_some()));
        if let Some(delegate) = header.delegate {
            bytes.u16(delegate.directory.0);
            bytes.text(delegate.pid_file);
            for fd in [delegate.console, delegate.inherit] {
                bytes.u8(u8::from(fd.is_some()));
                if let Some(fd) = fd {
                    bytes.u16(fd.0);
                }
            }
            bytes.u32(delegate.timeout_ms);
        }
        Self {
            header: bytes.0,
            hooks: Bytes::default(),
            hook_count: 0,
            steps: Bytes::default(),
            step_count: 0,
            ended: false,
            misplaced: false,
        }
    }

    /// Adds a hook that the shim runs.
    pub fn hook(&mut self, hook: &Hook<'_>) {
        self.hook_count += 1;
        let bytes = &mut self.hooks;
        bytes.u8(match hook.point {
            HookPoint::CreateRuntime => 0,
            HookPoint::PostStart => 1,
            HookPoint::PostStop => 2,
            HookPoint::Start => 3,
        });
        bytes.list(hook.args);
        bytes.list(hook.env);
        bytes.blob(hook.state_before_pid);
        bytes.blob(hook.state_after_pid);
        bytes.u32(hook.timeout_ms);
    }

    /// Adds a step.
    pub fn step(&mut self, step: &Step<'_>) {
        self.misplaced |= self.ended;
        self.ended |= matches!(step, Step::Exec { .. } | Step::Init);
        self.step_count += 1;
        write_step(&mut self.steps, step);
    }

    /// The number that the next step will have.
    pub fn next_index(&self) -> u32 {
        self.step_count
    }

    /// The plan's bytes.
    pub fn finish(self) -> Result<Vec<u8>, PlanError> {
        if !self.ended || self.misplaced {
            return Err(PlanError::NoEnd);
        }
        let mut plan = Bytes(MAGIC.to_vec());
        plan.u16(VERSION);
        plan.blob(&self.header);
        plan.u32(self.hook_count);
        plan.blob(&self.hooks.0);
        plan.u32(self.step_count);
        plan.blob(&self.steps.0);
        if plan.0.len() > PLAN_BYTES_MAX {
            return Err(PlanError::TooLong);
        }
        Ok(plan.0)
    }
}

pub(super) fn kind_number(kind: NamespaceKind) -> u8 {
    match kind {
        NamespaceKind::Mount => 0,
        NamespaceKind::Net => 1,
        NamespaceKind::Ipc => 2,
        NamespaceKind::Uts => 3,
        NamespaceKind::Pid => 4,
        NamespaceKind::User => 5,
        NamespaceKind::Cgroup => 6,
        NamespaceKind::Time => 7,
    }
}

fn propagation_number(propagation: Option<Propagation>) -> u8 {
    match propagation {
        None => 0,
        Some(Propagation::Private) => 1,
        Some(Propagation::Slave) => 2,
        Some(Propagation::Shared) => 3,
        Some(Propagation::Unbindable) => 4,
    }
}

fn write_capabilities(bytes: &mut Bytes, sets: &Capabilities) {
    bytes.u64(sets.bounding);
    bytes.u64(sets.effective);
    bytes.u64(sets.permitted);
    bytes.u64(sets.inheritable);
    bytes.u64(sets.ambient);
}

fn write_step(bytes: &mut Bytes, step: &Step<'_>) {
    bytes.tag(Tag::of(step));
    match *step {
        Step::EnterCgroups
        | Step::AwaitStart
        | Step::NewSession
        | Step::BecomeNamespaceRoot
        | Step::SwitchRoot
        | Step::ReadonlyRoot
        | Step::NoNewPrivileges
        | Step::Init => {}
        Step::AwaitHooks { point } => bytes.u8(point),
        Step::JoinNamespace { fd, kind } => {
            bytes.u16(fd.0);
            bytes.u8(kind_number(kind));
        }
        Step::NewNamespace { kind } => bytes.u8(kind_number(kind)),
        Step::Hostname { name } | Step::Domainname { name } => bytes.text(name),
        Step::Capabilities { sets } => write_capabilities(bytes, &sets),
        Step::BoundingSet { bounding } => bytes.u64(bounding),
        Step::OomScoreAdj { value } | Step::Nice { value } => bytes.u32(value as u32),
        Step::Rlimit { resource, soft, hard } => {
            bytes.u32(resource);
            bytes.u64(soft);
            bytes.u64(hard);
        }
        Step::Umask { mask } => bytes.u32(mask),
        Step::Groups { list } => bytes.blob(list),
        Step::User { uid, gid } => {
            bytes.u32(uid);
            bytes.u32(gid);
        }
        Step::Mask { path } | Step::ReadonlyPath { path } | Step::WorkingDirectory { path } => {
            bytes.text(path);
        }
        Step::EnsureDirectory { path, uid, gid } => {
            bytes.text(path);
            bytes.u32(uid);
            bytes.u32(gid);
        }
        Step::Sysctl { path, value } => {
            bytes.text(path);
            bytes.text(value);
        }
        Step::Seccomp { program, flags } => {
            bytes.blob(program);
            bytes.u32(flags);
        }
        Step::ExecLabel { attribute, label } => {
            bytes.text(attribute);
            bytes.text(label);
        }
        Step::Hook { args, env, state_before_pid, state_after_pid, timeout_ms } => {
            bytes.list(args);
            bytes.list(env);
            bytes.blob(state_before_pid);
            bytes.blob(state_after_pid);
            bytes.u32(timeout_ms);
        }
        Step::Exec { candidates, args, env } => {
            bytes.list(candidates);
            bytes.list(args);
            bytes.list(env);
        }
        Step::RootPropagation { .. }
        | Step::Root { .. }
        | Step::MountFd { .. }
        | Step::MountOwn { .. }
        | Step::MountNew { .. }
        | Step::Remount { .. }
        | Step::Device { .. }
        | Step::Symlink { .. }
        | Step::Console { .. } => write_mount_step(bytes, step),
    }
}

/// The steps that build the root filesystem.
fn write_mount_step(bytes: &mut Bytes, step: &Step<'_>) {
    match *step {
        Step::RootPropagation { propagation } => bytes.u8(propagation_number(Some(propagation))),
        Step::Root { fd } => bytes.u16(fd.0),
        Step::MountFd { fd, target, kind, attributes, propagation } => {
            bytes.u16(fd.0);
            bytes.text(target);
            bytes.u8(match kind {
                TargetKind::Directory => 0,
                TargetKind::File => 1,
                TargetKind::LikeSource => 2,
            });
            bytes.attributes(attributes);
            bytes.u8(propagation_number(propagation));
        }
        Step::MountOwn { source, target, attributes } => {
            bytes.text(source);
            bytes.text(target);
            bytes.attributes(attributes);
        }
        Step::MountNew { fstype, source, options, target, attributes, copy_up } => {
            bytes.text(fstype);
            bytes.text(source);
            bytes.list(options);
            bytes.text(target);
            bytes.attributes(attributes);
            bytes.u8(u8::from(copy_up));
        }
        Step::Remount { target, attributes } => {
            bytes.text(target);
            bytes.attributes(attributes);
        }
        Step::Device { path, mode, major, minor, uid, gid } => {
            bytes.text(path);
            for number in [mode, major, minor, uid, gid] {
                bytes.u32(number);
            }
        }
        Step::Symlink { target, path } => {
            bytes.text(target);
            bytes.text(path);
        }
        Step::Console { uid, rows, columns } => {
            bytes.u32(uid);
            bytes.u16(rows);
            bytes.u16(columns);
        }
        _ => {}
    }
}
