//! The init of a pod whose containers share a PID namespace: a few lines of
//! ours that reap. To its shim it is a container like others, whose plan ends
//! with `Init` instead of `Exec`, and whose id is the sandbox's.
//!
//! Since `/proc/1/root` leads to it from every container of the pod, it is
//! confined itself: an empty read-only root, no capabilities, the default
//! seccomp filter, the sandbox's user, the pod's cgroup.

use std::os::fd::AsFd;

use corten_base::ContainerId;
use corten_kernel::launch::{
    Capabilities, FdIndex, MountAttributes, NamespaceKind, Propagation, Step,
};
use corten_kernel::mount;
use corten_protocol::frame::{CgroupFds, Refusal, Reply, Request, Stdio};
use corten_protocol::plan::{Header, PlanBuilder, namespace_bit};
use corten_spec::seccomp;

use super::launch::{Plan, failure_text};
use super::{Inner, LAUNCH_TIMEOUT, blocking};
use crate::error::{Error, Result};
use crate::shim::Shim;
use crate::table::Sandbox;

/// `MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC`
const SEALED: u64 = 1 | 2 | 4 | 8;

/// The user of an init whose sandbox names none.
const NOBODY: u32 = 65535;

impl Inner {
    /// Starts the init of a sandbox's PID namespace.
    pub(super) async fn start_pod_init(&self, sandbox: &Sandbox, shim: &Shim) -> Result<()> {
        let id = init_id(sandbox)?;
        let config = sandbox.config.clone();
        let machine = seccomp::Machine { capabilities: 0, kernel: self.node.policy.kernel };
        let plan = blocking(move || {
            let sealed = MountAttributes { set: SEALED, clear: 0, recursive: false };
            let root = mount::new_filesystem("tmpfs", &[("size", "4k"), ("mode", "555")], sealed)?;
            let uid = config.run_as.uid.unwrap_or(NOBODY);
            let gid = config.run_as.gid.unwrap_or(NOBODY);
            let bytes = init_plan(config.namespaces.user.is_some(), uid, gid, &machine)?;
            Plan::seal(bytes, vec![root])
        })
        .await?;
        let cgroups = self.cgroups.clone();
        let path = self.init_cgroup(sandbox);
        let entry = blocking(move || {
            let group = cgroups.create(&path, &Default::default())?;
            Ok(group.entry()?)
        })
        .await?;
        let flags = CgroupFds {
            into: entry.into.is_some(),
            kill: entry.kill.is_some(),
            tasks: entry.tasks.len() as u8,
            oom: false,
        };
        let create =
            Request::Create { container: id.clone(), stdio: Stdio::default(), cgroup: flags };
        let mut fds = vec![plan.memfd.as_fd()];
        fds.extend(entry.into.iter().chain(&entry.kill).chain(&entry.tasks).map(AsFd::as_fd));
        fds.extend(plan.fds.iter().map(AsFd::as_fd));
        super::sandbox::expect_done("hand over the pod's init", shim.call(&create, &fds).await?.0)?;
        let start = Request::Start { container: id };
        match shim.call_within(&start, &[], LAUNCH_TIMEOUT).await?.0 {
            Reply::Running { .. } => Ok(()),
            Reply::Refused(Refusal::Launch(failure)) => Err(Error::internal(format!(
                "unable to start the pod's init: {}",
                failure_text(&plan.bytes, failure)
            ))),
            other => Err(Error::internal(format!("unable to start the pod's init: {other:?}"))),
        }
    }

    /// The cgroup of a sandbox's init.
    pub(super) fn init_cgroup(&self, sandbox: &Sandbox) -> String {
        format!("{}/{}", sandbox.record.borrow().cgroup, sandbox.id)
    }
}

/// The id under which a shim knows the init of its pod.
pub(super) fn init_id(sandbox: &Sandbox) -> Result<ContainerId> {
    sandbox.id.as_str().parse().map_err(|error| Error::internal(format!("{error}")))
}

fn init_plan(
    user_namespace: bool,
    uid: u32,
    gid: u32,
    machine: &seccomp::Machine,
) -> Result<Vec<u8>> {
    let profile = seccomp::default_profile(machine);
    let filter = seccomp::compile(&profile, seccomp::Arch::NATIVE)
        .map_err(|error| Error::internal(format!("unable to plan the pod's init: {error}")))?;
    let new_namespaces = namespace_bit(NamespaceKind::Mount) | namespace_bit(NamespaceKind::Pid);
    let header = Header { new_namespaces, user_namespace, fd_count: 1, ..Header::default() };
    let mut plan = PlanBuilder::new(&header);
    plan.step(&Step::EnterCgroups);
    plan.step(&Step::NewSession);
    plan.step(&Step::RootPropagation { propagation: Propagation::Private });
    plan.step(&Step::Root { fd: FdIndex(0) });
    plan.step(&Step::SwitchRoot);
    plan.step(&Step::Groups { list: &[] });
    plan.step(&Step::BoundingSet { bounding: 0 });
    plan.step(&Step::User { uid, gid });
    plan.step(&Step::Capabilities { sets: Capabilities::default() });
    plan.step(&Step::NoNewPrivileges);
    plan.step(&Step::Seccomp { program: &filter.program, flags: filter.flags });
    plan.step(&Step::AwaitStart);
    plan.step(&Step::Init);
    plan.finish()
        .map_err(|error| Error::internal(format!("unable to plan the pod's init: {error}")))
}
