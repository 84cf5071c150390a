//! From an OCI spec to a launch plan.
//!
//! What must be opened on the host (bind sources, namespaces) is named here and
//! opened elsewhere: [`bind_sources`] says what, in which order, and [`lower`]
//! is told the places of the descriptors. The order of the steps is decided in
//! this file alone; its reasons stand beside each group.

mod delegate;
mod hooks;
mod mounts;
mod options;
mod process;
mod resources;
mod restore;

use std::sync::Arc;

use corten_kernel::launch::{FdIndex, NamespaceKind, Propagation, Step};
use corten_protocol::plan::{Header, JoinTarget, PlanBuilder, PlanError, namespace_bit};

pub use delegate::{
    CREATE, CallFiles, RuntimeCall, STAGED_ROOT, Staged, delegate, delegate_exec, runtime_words,
    staged_sources,
};
pub use mounts::{BindSource, bind_sources};
pub use resources::cgroup_resources;
pub use restore::{NETWORK, RESTORE_LOG, RESTORE_PID, Restore, restore};

use crate::container::{CgroupLayout, sysctl_path};
use crate::error::{Error, Result};
use crate::oci::{Linux, NamespaceType, Process, Seccomp, Spec};
use crate::seccomp::Filter;

/// Where the descriptors of a plan are, and what else the spec does not say.
#[derive(Debug, Clone)]
pub struct LowerInput<'a> {
    /// Id of the container, as hooks are told.
    pub id: &'a str,
    /// Directory of its `config.json`, as hooks are told.
    pub bundle: &'a str,
    /// How many descriptors come with the plan.
    pub fd_count: u16,
    /// The root filesystem, a detached mount.
    pub root: FdIndex,
    /// One detached mount for each of [`bind_sources`], in that order.
    pub binds: &'a [FdIndex],
    /// Namespaces that are joined, by kind. User and PID namespaces are not
    /// here: the shim has them, see [`LowerInput::pid_of`].
    pub namespaces: &'a [(NamespaceType, FdIndex)],
    /// The container in whose PID namespace this one lives: the pod's init, or
    /// the target of an ephemeral container. Used where the spec joins one.
    pub pid_of: &'a str,
    /// Host paths of binds that the shim has in its own mount namespace, and
    /// the path there (the pod's /dev/shm). They are not opened.
    pub own_mounts: &'a [(&'a str, &'a str)],
    /// What is shown at /sys/fs/cgroup of v1 hierarchies: their names, and a
    /// detached mount of the container's group in each. Empty on a unified host.
    pub v1_cgroups: &'a [(&'a str, FdIndex)],
    /// The host's mount namespace, for hooks.
    pub host_mounts: Option<FdIndex>,
}

/// The v1 hierarchies of a node that a container sees, whose mounts are to be
/// handed over from `first` on.
pub fn v1_cgroups<'a>(
    spec: &Spec,
    layout: &'a CgroupLayout,
    first: u16,
) -> Vec<(&'a str, FdIndex)> {
    let CgroupLayout::V1 { hierarchies } = layout else { return Vec::new() };
    if !spec.mounts.iter().any(mounts::shows_cgroups) {
        return Vec::new();
    }
    hierarchies.iter().map(String::as_str).zip((first..).map(FdIndex)).collect()
}

/// A plan being written.
pub(crate) struct Plan {
    builder: PlanBuilder,
}

impl Plan {
    pub(crate) fn step(&mut self, step: Step<'_>) {
        self.builder.step(&step);
    }
}

pub(crate) fn plan_error(error: PlanError) -> Error {
    Error::Plan { reason: error.to_string() }
}

/// A text as the kernel takes it.
pub(crate) fn c_text(field: &'static str, text: &str) -> Result<std::ffi::CString> {
    std::ffi::CString::new(text).map_err(|_| Error::invalid(field, text, "it must not hold NUL"))
}

/// The filter of a container's processes. To make it takes some time, and many
/// containers have the same: it is worth keeping.
pub fn filter(profile: &Seccomp) -> Result<Filter> {
    process::compiled(profile)
}

/// The launch plan of a container's init; `filter` is what [`filter`] makes of
/// the spec's profile.
pub fn lower(spec: &Spec, input: &LowerInput<'_>, filter: Option<&Filter>) -> Result<Vec<u8>> {
    let no_linux = Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&no_linux);
    let process = spec
        .process
        .as_ref()
        .ok_or_else(|| Error::invalid("spec", "process", "it must be there"))?;
    refuse_unsupported(linux, process)?;
    let header = header(linux, process, input, spec)?;
    let mut plan = Plan { builder: PlanBuilder::new(&header) };
    hooks::of_runtime(&mut plan.builder, spec, input)?;

    // In its cgroups before anything else costs memory or time; killable in
    // the right order from the first moment.
    plan.step(Step::EnterCgroups);
    process::oom_score(&mut plan, process);
    if linux.namespace(NamespaceType::User).is_some() {
        plan.step(Step::BecomeNamespaceRoot);
    }
    namespaces(&mut plan, spec, linux, input)?;
    plan.step(Step::NewSession);
    hooks::enter_host_mounts(&mut plan, spec, linux, input)?;
    plan.step(Step::RootPropagation { propagation: Propagation::Private });
    plan.step(Step::Root { fd: input.root });
    mounts::all(&mut plan, spec, linux, process, input)?;
    sysctls(&mut plan, linux)?;
    if !(spec.hooks.prestart.is_empty() && spec.hooks.create_runtime.is_empty()) {
        plan.step(Step::AwaitHooks { point: 0 });
    }
    hooks::in_container(&mut plan, &spec.hooks.create_container, spec, input, "creating")?;
    plan.step(Step::SwitchRoot);
    process::ensure_directory(&mut plan, process)?;
    if spec.root.as_ref().is_some_and(|root| root.readonly) {
        plan.step(Step::ReadonlyRoot);
    }
    mounts::hide(&mut plan, linux)?;
    process::limits(&mut plan, process)?;
    process::working_directory(&mut plan, process)?;
    // Everything that can fail for want of something on the host has been
    // done. What follows gives up abilities, of which the parent's word to go
    // on must not depend: a strict filter allows neither to send nor to receive.
    plan.step(Step::AwaitStart);
    hooks::in_container(&mut plan, &spec.hooks.start_container, spec, input, "created")?;
    process::give_up(&mut plan, process, filter)?;
    process::execute(&mut plan, process)?;
    plan.builder.finish().map_err(plan_error)
}

/// What execs in a container take from its spec: little enough to be kept.
#[derive(Debug)]
pub struct ExecBase {
    process: Process,
    user_namespace: bool,
    filter: Option<Arc<Filter>>,
}

impl ExecBase {
    /// Of a container with this spec and filter.
    pub fn new(spec: &Spec, filter: Option<Arc<Filter>>) -> Self {
        let linux = spec.linux.as_ref();
        Self {
            process: spec.process.clone().unwrap_or_default(),
            user_namespace: linux.is_some_and(|it| it.namespace(NamespaceType::User).is_some()),
            filter,
        }
    }

    /// The container's own process.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// The launch plan of one more process in a container: `base` is the
/// container's, `process` what `container::exec_process` made. It joins all
/// of the container's namespaces. An exec with privileges has no filter.
pub fn lower_exec(base: &ExecBase, process: &Process, privileged: bool) -> Result<Vec<u8>> {
    refuse_unsupported(&Linux::default(), process)?;
    let user_namespace = base.user_namespace;
    let header = Header {
        join: JoinTarget::Container,
        user_namespace,
        console: process.terminal,
        ..Header::default()
    };
    let mut plan = Plan { builder: PlanBuilder::new(&header) };
    plan.step(Step::EnterCgroups);
    process::oom_score(&mut plan, process);
    if user_namespace {
        plan.step(Step::BecomeNamespaceRoot);
    }
    plan.step(Step::NewSession);
    process::console(&mut plan, process);
    process::limits(&mut plan, process)?;
    process::working_directory(&mut plan, process)?;
    let filter = base.filter.as_deref().filter(|_| !privileged);
    process::give_up(&mut plan, process, filter)?;
    process::execute(&mut plan, process)?;
    plan.builder.finish().map_err(plan_error)
}

fn header<'a>(
    linux: &Linux,
    process: &Process,
    input: &LowerInput<'a>,
    spec: &Spec,
) -> Result<Header<'a>> {
    let mut new_namespaces = namespace_bit(NamespaceKind::Mount);
    let mut join = JoinTarget::Own;
    match linux.namespace(NamespaceType::Pid) {
        Some(_) if !input.pid_of.is_empty() => join = JoinTarget::PidOf(input.pid_of),
        Some(namespace) if namespace.path.is_empty() => {
            new_namespaces |= namespace_bit(NamespaceKind::Pid);
        }
        Some(_) => {
            return Err(Error::invalid(
                "PID namespace",
                "a path",
                "our launcher needs the container whose namespace it is",
            ));
        }
        None => {}
    }
    let hooked = spec.hooks != crate::oci::Hooks::default();
    if hooked && input.host_mounts.is_none() {
        return Err(Error::invalid("hooks", "", "they need the host's mount namespace"));
    }
    Ok(Header {
        new_namespaces,
        join,
        user_namespace: linux.namespace(NamespaceType::User).is_some(),
        console: process.terminal,
        fd_count: input.fd_count,
        hook_mounts: input.host_mounts.filter(|_| hooked),
        delegate: None,
    })
}

/// Joined first, made last: a new namespace belongs to where one is then.
fn namespaces(plan: &mut Plan, spec: &Spec, linux: &Linux, input: &LowerInput<'_>) -> Result<()> {
    let kinds = [
        (NamespaceType::Ipc, NamespaceKind::Ipc),
        (NamespaceType::Uts, NamespaceKind::Uts),
        (NamespaceType::Network, NamespaceKind::Net),
        (NamespaceType::Cgroup, NamespaceKind::Cgroup),
    ];
    let listed = kinds.iter().filter_map(|(kind, step)| Some((linux.namespace(*kind)?, *step)));
    for (namespace, kind) in listed.clone() {
        let fd = input.namespaces.iter().find(|(known, _)| *known == namespace.kind);
        match fd {
            Some((_, fd)) => plan.step(Step::JoinNamespace { fd: *fd, kind }),
            None if namespace.path.is_empty() => {}
            None => {
                return Err(Error::invalid(
                    "namespace",
                    namespace.path.as_str(),
                    "its descriptor was not opened",
                ));
            }
        }
    }
    let joined = |wanted| input.namespaces.iter().any(|(known, _)| *known == wanted);
    for (_, kind) in listed.filter(|(namespace, _)| !joined(namespace.kind)) {
        plan.step(Step::NewNamespace { kind });
    }
    if !spec.hostname.is_empty() {
        let name = c_text("host name", &spec.hostname)?;
        plan.step(Step::Hostname { name: &name });
    }
    if !spec.domainname.is_empty() {
        let name = c_text("domain name", &spec.domainname)?;
        plan.step(Step::Domainname { name: &name });
    }
    Ok(())
}

fn sysctls(plan: &mut Plan, linux: &Linux) -> Result<()> {
    for (name, value) in &linux.sysctl {
        let path = sysctl_path(name)?;
        let (path, value) = (c_text("sysctl", &path)?, c_text("sysctl", value)?);
        plan.step(Step::Sysctl { path: &path, value: &value });
    }
    Ok(())
}

/// Nothing of a spec is ignored in silence.
fn refuse_unsupported(linux: &Linux, process: &Process) -> Result<()> {
    let unsupported = |what: &str| {
        Err(Error::Unsupported { what: what.into(), remedy: "use another runtime handler" })
    };
    if linux.personality.as_ref().is_some_and(|p| p.domain != "LINUX" || !p.flags.is_empty()) {
        return unsupported("linux.personality");
    }
    if !linux.time_offsets.is_empty() || linux.namespace(NamespaceType::Time).is_some() {
        return unsupported("a time namespace");
    }
    if !linux.net_devices.is_empty() {
        return unsupported("linux.netDevices");
    }
    if linux.intel_rdt.is_some() {
        return unsupported("linux.intelRdt");
    }
    if process.io_priority.is_some() {
        return unsupported("process.ioPriority");
    }
    if process.exec_cpu_affinity.is_some() {
        return unsupported("process.execCPUAffinity");
    }
    Ok(())
}

#[cfg(test)]
mod runc_test;
#[cfg(test)]
mod tests;
