//! From an OCI spec to what another OCI runtime is given: a `config.json`, and
//! a plan that runs the runtime.
//!
//! The runtime wants paths where our launcher takes descriptors. So its plan
//! gives it a mount namespace of its own, a copy of the host's with one tmpfs
//! more (the stage), on which the descriptors lie: root filesystem, bind
//! sources, namespaces. The container's mount namespace is a copy of that one,
//! and the stage goes with the runtime: nothing is ever mounted on the host,
//! and nothing has to be taken back.

use std::ffi::CString;

use corten_kernel::launch::{
    FdIndex, MountAttributes, NamespaceKind, Propagation, Step, TargetKind,
};
use corten_protocol::plan::{CStrings, Delegate, Header, Hook, HookPoint, PlanBuilder};

use super::options::{Options, not_recursive};
use super::{BindSource, Plan, c_text, mounts, plan_error};
use crate::error::{Error, Result};
use crate::oci::{Linux, NamespaceType, Process, Root, Spec};

/// Where the root filesystem lies on the stage.
pub const STAGED_ROOT: &str = "root";

/// What runtimes and the hooks that they run find their helpers by.
pub(super) const ENVIRONMENT: [&str; 1] =
    ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"];

/// The version that old runtimes take, too: what later ones brought for mounts
/// is done on the stage.
const COMMON_VERSION: &str = "1.0.2";

/// `MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC`
const STAGE_ATTRIBUTES: u64 = 2 | 4 | 8;

/// An OCI runtime, and how it is called.
#[derive(Debug, Clone, Copy)]
pub struct RuntimeCall<'a> {
    /// Its program.
    pub program: &'a str,
    /// What stands before the command: `--root …`, the node's own options.
    pub options: &'a [String],
    /// Directory of the container's `config.json`; what the runtime reads and
    /// writes of one call lies there, named after the call.
    pub bundle: &'a str,
    /// Id of the container.
    pub id: &'a str,
    /// How long the call may take, in milliseconds.
    pub timeout_ms: u32,
    /// The host's mount namespace.
    pub host_mounts: FdIndex,
    /// The bundle.
    pub directory: FdIndex,
    /// Where the runtime sends the terminal's master, listening.
    pub console: Option<FdIndex>,
}

/// Names of what one call reads and writes in the bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallFiles {
    /// The number of the process that was made.
    pub pid: String,
    /// What the runtime says of itself, its error above all.
    pub log: String,
    /// Where it sends the terminal's master.
    pub console: String,
    /// What an exec shall be.
    pub process: String,
}

impl CallFiles {
    /// Of a call with this name: `create`, `exec-<n>`.
    pub fn new(call: &str) -> Self {
        let name = |part: &str| format!("{call}.{part}");
        Self { pid: name("pid"), log: name("log"), console: name("sock"), process: name("json") }
    }

    /// All of them.
    pub fn all(&self) -> [&str; 4] {
        [&self.pid, &self.log, &self.console, &self.process]
    }
}

/// The call that makes a container.
pub const CREATE: &str = "create";

/// The stage, and what the descriptors of a [`delegate`] plan are.
#[derive(Debug, Clone, Copy)]
pub struct Staged<'a> {
    /// An empty directory of the host, whose path the root of a user namespace
    /// can walk. [`STAGED_ROOT`] is in it, for runtimes that begin an exec there.
    pub stage: &'a str,
    /// How many there are.
    pub fd_count: u16,
    /// The root filesystem, a detached mount.
    pub root: FdIndex,
    /// One detached mount for each of [`staged_sources`], in that order.
    pub binds: &'a [FdIndex],
    /// Namespaces that are joined, by kind: detached mounts of their files.
    pub namespaces: &'a [(NamespaceType, FdIndex)],
}

/// What the caller opens before [`delegate`]: the sources of bind mounts.
/// (Device nodes are the runtime's affair.)
pub fn staged_sources(spec: &Spec) -> Vec<BindSource> {
    mounts::mount_sources(spec, &[])
}

/// The `config.json` of a container, and the plan that has a runtime make it.
pub fn delegate(
    spec: &Spec,
    call: &RuntimeCall<'_>,
    staged: &Staged<'_>,
) -> Result<(Spec, Vec<u8>)> {
    let mut config = Spec { oci_version: COMMON_VERSION.to_owned(), ..spec.clone() };
    let files = CallFiles::new(CREATE);
    let pid_file = c_text("pid file", &files.pid)?;
    let terminal = spec.process.as_ref().is_some_and(|process| process.terminal);
    let mut plan = begin(call, &pid_file, terminal, staged.fd_count);
    start_hook(&mut plan.builder, call)?;
    plan.step(Step::JoinNamespace { fd: call.host_mounts, kind: NamespaceKind::Mount });
    plan.step(Step::NewNamespace { kind: NamespaceKind::Mount });
    plan.step(Step::NewSession);
    // What is mounted here is nobody else's; what the host mounts comes along.
    plan.step(Step::RootPropagation { propagation: Propagation::Slave });
    let stage = staged.stage;
    make_stage(&mut plan, stage)?;
    let root = format!("{stage}/{STAGED_ROOT}");
    put(&mut plan, staged.root, &root, MountAttributes::default())?;
    let readonly = config.root.as_ref().is_some_and(|root| root.readonly);
    config.root = Some(Root { path: root, readonly });
    stage_binds(&mut plan, &mut config, stage, staged.binds)?;
    if let Some(linux) = &mut config.linux {
        stage_namespaces(&mut plan, linux, stage, staged.namespaces)?;
    }
    let mut words = vec![CREATE.to_owned(), "--bundle".into(), call.bundle.into()];
    words.extend(pid_and_console(&files, terminal));
    words.push(call.id.to_owned());
    run(&mut plan, call, &files, words)?;
    Ok((config, plan.builder.finish().map_err(plan_error)?))
}

/// The plan that has a runtime start one more process in a container of its:
/// `name` is of [`CallFiles`], whose `process` holds what it shall be.
pub fn delegate_exec(call: &RuntimeCall<'_>, process: &Process, name: &str) -> Result<Vec<u8>> {
    let files = CallFiles::new(name);
    let pid_file = c_text("pid file", &files.pid)?;
    let descriptors = [Some(call.host_mounts), Some(call.directory), call.console];
    let fd_count = descriptors.into_iter().flatten().count() as u16;
    let mut plan = begin(call, &pid_file, process.terminal, fd_count);
    plan.step(Step::JoinNamespace { fd: call.host_mounts, kind: NamespaceKind::Mount });
    plan.step(Step::NewSession);
    let mut words = vec!["exec".to_owned(), "--detach".into(), "--process".into()];
    words.push(files.process.clone());
    words.extend(pid_and_console(&files, process.terminal));
    words.push(call.id.to_owned());
    run(&mut plan, call, &files, words)?;
    plan.builder.finish().map_err(plan_error)
}

/// The words of a call that needs no plan: `delete`, `kill`, `state`.
pub fn runtime_words(call: &RuntimeCall<'_>, command: &[&str]) -> Vec<String> {
    let log = format!("{}/{}", call.bundle, CallFiles::new(CREATE).log);
    let command = command.iter().map(|word| (*word).to_owned());
    words(call, &log, command.chain([call.id.to_owned()]))
}

fn begin(call: &RuntimeCall<'_>, pid_file: &CString, terminal: bool, fd_count: u16) -> Plan {
    let delegate = Delegate {
        directory: call.directory,
        pid_file,
        console: call.console.filter(|_| terminal),
        inherit: None,
        timeout_ms: call.timeout_ms,
    };
    Plan {
        builder: PlanBuilder::new(&Header {
            console: terminal,
            fd_count,
            hook_mounts: Some(call.host_mounts),
            delegate: Some(delegate),
            ..Header::default()
        }),
    }
}

/// How the shim asks the runtime to start what it made.
fn start_hook(builder: &mut PlanBuilder, call: &RuntimeCall<'_>) -> Result<()> {
    let args = std::iter::once(call.program.to_owned()).chain(runtime_words(call, &["start"]));
    let args = CStrings::new(args).map_err(plan_error)?;
    let env = CStrings::new(ENVIRONMENT).map_err(plan_error)?;
    builder.hook(&Hook {
        point: HookPoint::Start,
        args: args.as_list(),
        env: env.as_list(),
        state_before_pid: b"",
        state_after_pid: b"",
        timeout_ms: call.timeout_ms,
    });
    Ok(())
}

pub(super) fn make_stage(plan: &mut Plan, stage: &str) -> Result<()> {
    let target = c_text("stage", stage)?;
    // Root of a user namespace has to get through.
    let options = CStrings::new(["mode=755", "size=1m"]).map_err(plan_error)?;
    plan.step(Step::MountNew {
        fstype: c"tmpfs",
        source: c"tmpfs",
        options: options.as_list(),
        target: &target,
        attributes: MountAttributes { set: STAGE_ATTRIBUTES, ..Default::default() },
        copy_up: false,
    });
    Ok(())
}

pub(super) fn put(
    plan: &mut Plan,
    fd: FdIndex,
    path: &str,
    attributes: MountAttributes,
) -> Result<()> {
    let target = c_text("stage", path)?;
    plan.step(Step::MountFd {
        fd,
        target: &target,
        kind: TargetKind::LikeSource,
        attributes,
        propagation: None,
    });
    Ok(())
}

/// Bind sources are taken from the stage. What holds for all below them has
/// been done there, idmaps too, so that no runtime needs to know how.
fn stage_binds(plan: &mut Plan, config: &mut Spec, stage: &str, binds: &[FdIndex]) -> Result<()> {
    let mut binds = binds.iter();
    for (number, mount) in config.mounts.iter_mut().filter(|mount| mount.is_bind()).enumerate() {
        let fd = binds.next().ok_or_else(|| {
            Error::invalid("bind source", mount.source.as_str(), "it was not opened")
        })?;
        let options = Options::parse(&mount.options);
        let path = format!("{stage}/mount-{number}");
        put(plan, *fd, &path, options.recursive)?;
        mount.source = path;
        mount.options = mount.options.iter().map(|option| not_recursive(option).into()).collect();
        mount.options.retain(|option| option != "idmap" && option != "ridmap");
        mount.uid_mappings.clear();
        mount.gid_mappings.clear();
    }
    Ok(())
}

fn stage_namespaces(
    plan: &mut Plan,
    linux: &mut Linux,
    stage: &str,
    opened: &[(NamespaceType, FdIndex)],
) -> Result<()> {
    for namespace in linux.namespaces.iter_mut().filter(|each| !each.path.is_empty()) {
        let fd = opened.iter().find(|(kind, _)| *kind == namespace.kind).ok_or_else(|| {
            Error::invalid("namespace", namespace.path.as_str(), "it was not opened")
        })?;
        let kind = format!("{:?}", namespace.kind).to_lowercase();
        let path = format!("{stage}/{kind}");
        put(plan, fd.1, &path, MountAttributes::default())?;
        namespace.path = path;
    }
    Ok(())
}

fn pid_and_console(files: &CallFiles, terminal: bool) -> Vec<String> {
    let mut words = vec!["--pid-file".to_owned(), files.pid.clone()];
    if terminal {
        words.extend(["--console-socket".to_owned(), files.console.clone()]);
    }
    words
}

/// The last steps: files are named from within the bundle, since the path of a
/// socket has no more than 107 bytes.
fn run(
    plan: &mut Plan,
    call: &RuntimeCall<'_>,
    files: &CallFiles,
    command: Vec<String>,
) -> Result<()> {
    let bundle = c_text("bundle", call.bundle)?;
    plan.step(Step::WorkingDirectory { path: &bundle });
    let log = format!("{}/{}", call.bundle, files.log);
    let args = std::iter::once(call.program.to_owned()).chain(words(call, &log, command));
    let args = CStrings::new(args).map_err(plan_error)?;
    let candidates = CStrings::new([call.program]).map_err(plan_error)?;
    let env = CStrings::new(ENVIRONMENT).map_err(plan_error)?;
    plan.step(Step::Exec {
        candidates: candidates.as_list(),
        args: args.as_list(),
        env: env.as_list(),
    });
    Ok(())
}

fn words(
    call: &RuntimeCall<'_>,
    log: &str,
    command: impl IntoIterator<Item = String>,
) -> Vec<String> {
    let mut words = call.options.to_vec();
    words.extend(["--log", log, "--log-format", "json"].map(str::to_owned));
    words.extend(command);
    words
}

#[cfg(test)]
mod tests;
