//! Processes in running containers.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use corten_base::ExecId;
use corten_kernel::cgroup::{Gate, Pass, Surplus};
use corten_protocol::frame::{CgroupFds, Exit, Refusal, Reply, Request, Stdio, Target};
use tokio::sync::oneshot;

use super::launch::Plan;
use super::{Inner, blocking};
use crate::error::{Error, Kind, Result};
use crate::shim::Shim;
use crate::state::{ContainerState, SandboxState};
use crate::table::Container;
use crate::view::{ExecRequest, ExecSession};

/// The exit code of who was killed.
const KILLED: i32 = 128 + 9;
/// How long a request waits for a shim that is being connected to.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

impl Inner {
    /// Launches a process; the caller pumps its streams.
    pub(super) async fn exec(
        self: &Arc<Self>,
        container: &Arc<Container>,
        request: ExecRequest,
        timeout: Option<Duration>,
    ) -> Result<ExecSession> {
        let shim = self.running_shim(container).await?;
        check_command(&request)?;
        let stdio = Stdio {
            terminal: request.terminal,
            stdin: request.stdin,
            stdin_once: false,
            log: false,
            hand_over: true,
        };
        let (exec, exit) = shim.new_exec();
        let prepared = self.prepare_exec(container, request, exec, timeout);
        let (plan, group) = match prepared.await {
            Ok(prepared) => prepared,
            Err(error) => {
                shim.forget_exec(exec);
                self.forget_call(container, exec);
                return Err(error);
            }
        };
        let frame = Request::Exec {
            container: container.id.clone(),
            exec,
            stdio,
            timeout_ms: milliseconds(timeout),
            cgroup: group.flags(),
        };
        let mut fds = vec![plan.memfd.as_fd()];
        fds.extend(group.fds());
        fds.extend(plan.fds.iter().map(AsFd::as_fd));
        match shim.call_within(&frame, &fds, super::LAUNCH_TIMEOUT).await {
            Ok((Reply::Running { pid, .. }, streams)) => {
                let exit = self.clean_after_exec(container, &shim, exec, exit, group);
                Ok(session(exec, pid, stdio, streams, exit))
            }
            Ok((reply, _)) => {
                shim.forget_exec(exec);
                let refused = self.exec_refused(container, exec, &plan.bytes, reply);
                self.clear_exec(container, exec, group).await;
                Err(refused)
            }
            Err(error) => {
                shim.forget_exec(exec);
                self.clear_exec(container, exec, group).await;
                Err(error)
            }
        }
    }

    /// The plan and the cgroup of an exec. Only the files of a container, and
    /// whatever an OCI runtime does, may lie on a disk.
    async fn prepare_exec(
        self: &Arc<Self>,
        container: &Arc<Container>,
        request: ExecRequest,
        exec: ExecId,
        timeout: Option<Duration>,
    ) -> Result<(Plan, ExecGroup)> {
        let slow = request.user.is_some() || self.oci_runtime(container)?.is_some();
        let (inner, of) = (self.clone(), container.clone());
        let prepare = move || {
            let ((bytes, fds), group) = inner.plan_and_group(&of, &request, exec, timeout)?;
            Ok((Plan::seal(bytes, fds)?, group))
        };
        if slow { blocking(prepare).await } else { prepare() }
    }

    /// The same, at once: mostly what is read and made lies in memory (tmpfs,
    /// cgroups), which costs less than the way to another thread and back.
    pub(super) fn plan_and_group(
        &self,
        container: &Container,
        request: &ExecRequest,
        exec: ExecId,
        timeout: Option<Duration>,
    ) -> Result<(Planned, ExecGroup)> {
        let planned = self.plan_exec(container, request, exec)?;
        Ok((planned, self.exec_group(container, timeout)?))
    }

    /// Ends the input of an exec; one that has ended has none.
    pub(super) async fn close_stdin(&self, container: &Container, exec: ExecId) -> Result<()> {
        let shim = self.shim_of(container).await?;
        let target = Target { container: container.id.clone(), exec: Some(exec) };
        match shim.call(&Request::CloseStdin { target }, &[]).await?.0 {
            Reply::Refused(Refusal::Unknown) => Ok(()),
            reply => super::sandbox::expect_done("close the input of a command", reply),
        }
    }

    /// Closes all streams of an exec; one that has ended has none.
    pub(super) async fn hang_up(&self, container: &Container, exec: ExecId) -> Result<()> {
        let shim = self.shim_of(container).await?;
        let target = Target { container: container.id.clone(), exec: Some(exec) };
        match shim.call(&Request::HangUp { target }, &[]).await?.0 {
            Reply::Refused(Refusal::Unknown) => Ok(()),
            reply => super::sandbox::expect_done("hang up", reply),
        }
    }

    /// The shim of a running container.
    pub(super) async fn running_shim(&self, container: &Container) -> Result<Shim> {
        check_running(container)?;
        self.shim_of(container).await
    }

    /// The connection to a container's shim. A daemon that has just started is
    /// still connecting, which is waited for.
    pub(super) async fn shim_of(&self, container: &Container) -> Result<Shim> {
        let sandbox = &container.sandbox;
        let mut shim = sandbox.shim.subscribe();
        let ready = sandbox.record.borrow().state == SandboxState::Ready;
        let connected = shim.wait_for(|shim| shim.is_some() || !ready);
        match tokio::time::timeout(CONNECT_TIMEOUT, connected).await {
            Ok(Ok(shim)) => shim.clone(),
            Ok(Err(_)) | Err(_) => None,
        }
        .ok_or_else(|| {
            Error::new(
                Kind::Unavailable,
                format!("the shim of sandbox {} is not connected", container.sandbox.id.short()),
            )
        })
    }

    /// An exec that may be killed gets a cgroup of its own, so that whatever
    /// it starts goes with it; others run in the container's.
    fn exec_group(&self, container: &Container, timeout: Option<Duration>) -> Result<ExecGroup> {
        if self.oci_runtime(container)?.is_some() {
            // Its runtime puts it where the container is.
            return Ok(ExecGroup::default());
        }
        let open = || Gate::open(&self.cgroups.open(&container.record.borrow().cgroup)?);
        let gate = self.gates.of(&container.id, open)?;
        Ok(ExecGroup { pass: Some(gate.pass(timeout.is_some())?) })
    }

    /// Clears what an exec that was not launched had outside of its shim.
    pub(super) async fn clear_exec(&self, container: &Container, exec: ExecId, group: ExecGroup) {
        self.forget_call(container, exec);
        remove(group.pass.and_then(Pass::discard)).await;
    }

    /// After the end: the shim forgets the exec, its cgroup goes.
    pub(super) fn clean_after_exec(
        self: &Arc<Self>,
        container: &Arc<Container>,
        shim: &Shim,
        exec: ExecId,
        exit: oneshot::Receiver<Exit>,
        group: ExecGroup,
    ) -> oneshot::Receiver<Exit> {
        let (sender, receiver) = oneshot::channel();
        let inner = self.clone();
        let shim = shim.clone();
        let of = container.clone();
        let target = Target { container: container.id.clone(), exec: Some(exec) };
        tokio::spawn(async move {
            let Ok(exit) = exit.await else { return };
            let _ = sender.send(exit);
            // Whoever waits for the answer goes first.
            tokio::task::yield_now().await;
            let _ = shim.call(&Request::Delete { target }, &[]).await;
            inner.forget_call(&of, exec);
            remove(group.ended(exit)).await;
        });
        receiver
    }
}

/// Refuses a container that does not run.
pub(super) fn check_running(container: &Container) -> Result<()> {
    let id = container.id.short();
    match container.record.borrow().state {
        ContainerState::Running => Ok(()),
        ContainerState::Creating | ContainerState::Created | ContainerState::Starting => {
            Err(Error::precondition(format!("container {id} is not running yet: start it first")))
        }
        ContainerState::Exited | ContainerState::Removing => {
            Err(Error::precondition(format!("container {id} is not running: it has ended")))
        }
    }
}

pub(super) fn check_command(request: &ExecRequest) -> Result<()> {
    if request.command.is_empty() {
        return Err(Error::invalid("the command to execute is empty"));
    }
    Ok(())
}

/// As frames have it: 0 is never.
pub(super) fn milliseconds(timeout: Option<Duration>) -> u64 {
    timeout.map_or(0, |timeout| (timeout.as_millis() as u64).max(1))
}

/// A plan's bytes, and what it refers to.
pub(super) type Planned = (Vec<u8>, Vec<OwnedFd>);

/// The cgroup of an exec; none if an OCI runtime makes it.
#[derive(Default)]
pub(super) struct ExecGroup {
    pub pass: Option<Pass>,
}

impl ExecGroup {
    /// Which descriptors there are.
    pub fn flags(&self) -> CgroupFds {
        let Some(pass) = &self.pass else { return CgroupFds::default() };
        CgroupFds {
            into: pass.into_group().is_some(),
            kill: pass.kill().is_some(),
            tasks: pass.tasks().len() as u8,
            oom: false,
        }
    }

    /// The exec has ended; what is to be removed.
    pub fn ended(self, exit: Exit) -> Option<Surplus> {
        let killed = exit.timed_out || exit.code == KILLED;
        self.pass.and_then(if killed { Pass::discard } else { Pass::give_back })
    }

    /// These, in the order of frames.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.pass.iter().flat_map(|pass| {
            let tasks = pass.tasks().iter().map(AsFd::as_fd);
            pass.into_group().into_iter().chain(pass.kill()).chain(tasks)
        })
    }
}

/// Removes a group that is not kept.
pub(super) async fn remove(surplus: Option<Surplus>) {
    let Some(surplus) = surplus else { return };
    if let Err(error) = blocking(move || Ok(surplus.remove()?)).await {
        // Descendants of the exec that outlive it keep its group; it goes
        // with the container's.
        tracing::debug!(%error, "an exec's cgroup is still in use");
    }
}

pub(super) fn session(
    exec: ExecId,
    pid: i32,
    stdio: Stdio,
    streams: Vec<OwnedFd>,
    exit: oneshot::Receiver<Exit>,
) -> ExecSession {
    let mut streams = streams.into_iter();
    if stdio.terminal {
        let terminal = streams.next();
        return ExecSession { exec, pid, stdin: None, stdout: terminal, stderr: None, exit };
    }
    let stdin = if stdio.stdin { streams.next() } else { None };
    ExecSession { exec, pid, stdin, stdout: streams.next(), stderr: streams.next(), exit }
}

impl Inner {
    pub(super) fn exec_refused(
        &self,
        container: &Container,
        exec: ExecId,
        plan: &[u8],
        reply: Reply,
    ) -> Error {
        let id = container.id.short();
        match reply {
            Reply::Refused(Refusal::Launch(failure)) => {
                let text = self.exec_failure(container, exec, failure);
                let text = text.unwrap_or_else(|| super::launch::failure_text(plan, failure));
                Error::internal(format!("unable to execute in container {id}: {text}"))
            }
            Reply::Refused(Refusal::WrongPhase(phase)) => {
                Error::precondition(format!("unable to execute in container {id}: it is {phase:?}"))
            }
            Reply::Refused(Refusal::Full) => Error::new(
                Kind::ResourceExhausted,
                format!("unable to execute in container {id}: too many execs run in its pod"),
            ),
            other => Error::internal(format!("unable to execute in container {id}: {other:?}")),
        }
    }
}
