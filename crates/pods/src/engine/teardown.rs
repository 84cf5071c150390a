//! Taking down: stop, remove, undo, and what is left of a dead shim. It is the
//! same code for all of them, and each part of it may have been done before.

use std::sync::Arc;
use std::time::Duration;

use corten_protocol::frame::{Refusal, Reply, Request, Target};
use corten_spec::request::NamespaceMode;

use super::sandbox::wait_made;
use super::{Inner, blocking};
use crate::error::{Error, Kind, Result};
use crate::state::{ContainerEvent, Next, SandboxEvent, SandboxState};
use crate::table::{Container, Sandbox};

/// What ends a process for certain.
const SIGKILL: i32 = 9;
/// How long a killed process may take to end. Longer means that the kernel
/// cannot end it now (it hangs in a device or a dead filesystem).
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a shim may take to leave after it was asked.
const SHIM_TIMEOUT: Duration = Duration::from_secs(5);

impl Inner {
    /// Stops a sandbox: its containers, its network, its shim.
    pub(super) async fn stop_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        // One that is being made is stopped when it is. One that could not be
        // made is gone, unless something of it could not be taken back.
        let _ = wait_made(&sandbox.made).await;
        let _turn = sandbox.teardown.lock().await;
        if self.table.sandbox(&sandbox.id).is_none() {
            return Ok(());
        }
        match self.move_sandbox(sandbox, SandboxEvent::StopAsked)? {
            Next::Stay => Ok(()),
            Next::Refuse(why) => Err(Error::precondition(format!(
                "unable to stop sandbox {}: {why}",
                sandbox.id.short()
            ))),
            Next::Go(_) | Next::Undo => {
                self.take_down(sandbox).await?;
                self.move_sandbox(sandbox, SandboxEvent::StopDone).map(|_| ())
            }
        }
    }

    /// Stops and forgets a sandbox with its containers.
    pub(super) async fn remove_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        self.stop_sandbox(sandbox).await?;
        for container in self.table.containers_of(&sandbox.id) {
            self.remove_container(&container).await?;
        }
        let _turn = sandbox.teardown.lock().await;
        if self.table.sandbox(&sandbox.id).is_none() {
            // It was removed while we waited for our turn.
            return Ok(());
        }
        match self.move_sandbox(sandbox, SandboxEvent::RemoveAsked)? {
            Next::Go(SandboxState::Removing) => {}
            Next::Go(_) | Next::Stay | Next::Undo => return Ok(()),
            Next::Refuse(why) => {
                return Err(Error::precondition(format!(
                    "unable to remove sandbox {}: {why}",
                    sandbox.id.short()
                )));
            }
        }
        self.forget_sandbox(sandbox).await
    }

    /// Takes back whatever was made of a sandbox that did not come about. If
    /// that fails it is shown from then on, so that it can be removed.
    pub(super) async fn undo_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        let undone = match self.take_down(sandbox).await {
            Ok(()) => self.forget_sandbox(sandbox).await,
            Err(error) => Err(error),
        };
        let Err(error) = undone else { return };
        tracing::error!(sandbox = %sandbox.id, %error, "unable to undo a sandbox; it is tried again when it is stopped");
        let moved = self.move_sandbox(sandbox, SandboxEvent::UndoFailed);
        self.log_failure(moved.map(|_| ()));
    }

    /// Takes back whatever was made of a container that did not come about. If
    /// that fails it is shown as ended, so that it can be removed.
    pub(super) async fn undo_container(self: &Arc<Self>, container: &Arc<Container>) {
        let undone = match self.kill_launched(container).await {
            Ok(()) => self.clear_container(container).await,
            Err(error) => Err(error),
        };
        let Err(error) = undone else { return };
        tracing::error!(container = %container.id, %error, "unable to undo a container; it is tried again when it is removed");
        self.container_lost(container, "it could not be made");
    }

    /// Kills what a shim may have launched already of a container that is
    /// still being made.
    pub(super) async fn kill_launched(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let shim = container.sandbox.shim.borrow().clone();
        let Some(shim) = shim else { return self.kill_by_cgroup(container).await };
        let target = Target { container: container.id.clone(), exec: None };
        let request = Request::Kill { target, signal: SIGKILL, all: true };
        match shim.call(&request, &[]).await {
            Ok((Reply::Refused(Refusal::Unknown), _)) => Ok(()),
            Ok(_) => wait_ended(container).await,
            Err(error) if error.kind == Kind::Unavailable => self.kill_by_cgroup(container).await,
            Err(error) => Err(error),
        }
    }

    async fn forget_sandbox(&self, sandbox: &Arc<Sandbox>) -> Result<()> {
        self.remove_solo_logs(sandbox).await;
        let journal = self.journal.clone();
        let id = sandbox.id.clone();
        blocking(move || journal.forget_sandbox(&id)).await?;
        self.tell_sandbox_gone(sandbox);
        self.table.forget_sandbox(sandbox);
        self.release_level(&sandbox.record.borrow().selinux_level);
        Ok(())
    }

    /// Everything that a sandbox has outside of its record, in an order in
    /// which nothing is used after it went: processes, shim and network,
    /// namespaces, cgroups. What fails does not keep the rest from going.
    async fn take_down(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        let killed = self.kill_containers(sandbox).await;
        // Each of these waits for the kernel (for a grace period, mostly), and
        // none needs another; but a group in which the shim or the pod's init
        // lives goes after them.
        let inhabited = sandbox.record.borrow().scope.is_some()
            || sandbox.config.namespaces.pid == NamespaceMode::Pod;
        let shim = async {
            let ended = self.end_shim(sandbox).await;
            let removed = match inhabited {
                true => self.remove_sandbox_cgroup(sandbox).await,
                false => Ok(()),
            };
            ended.and(removed)
        };
        let cgroup = async {
            match inhabited {
                true => Ok(()),
                false => self.remove_sandbox_cgroup(sandbox).await,
            }
        };
        let network = async {
            let detached = self.detach_network(sandbox).await;
            // Plugins are shown the namespace by its path.
            detached.and(self.release_netns(sandbox).await)
        };
        let (network, shim, cgroup) = tokio::join!(network, shim, cgroup);
        killed.and(shim).and(network).and(cgroup).map_err(|first| {
            first.during(format!("unable to take sandbox {} down", sandbox.id.short()))
        })
    }

    async fn release_netns(&self, sandbox: &Sandbox) -> Result<()> {
        let (namespaces, id) = (self.namespaces.clone(), sandbox.id.clone());
        blocking(move || {
            namespaces.release(&id).map_err(|error| Error::internal(error.to_string()))
        })
        .await
    }

    async fn kill_containers(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        let mut kills = tokio::task::JoinSet::new();
        for container in self.table.containers_of(&sandbox.id) {
            let inner = self.clone();
            kills.spawn(async move {
                // One that is being made gets its shim's answer first.
                let _ = wait_made(&container.made).await;
                inner.kill_and_wait(&container).await
            });
        }
        let mut outcome = Ok(());
        while let Some(joined) = kills.join_next().await {
            let killed = joined
                .unwrap_or_else(|error| Err(Error::internal(format!("a kill failed: {error}"))));
            outcome = outcome.and(killed);
        }
        outcome
    }

    /// SIGKILL to everything of a container, and wait for its end.
    pub(super) async fn kill_and_wait(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        if !container.record.borrow().state.may_live() {
            return Ok(());
        }
        self.send_signal(container, SIGKILL, true).await?;
        wait_ended(container).await
    }

    /// Sends a signal by the shim. SIGKILL gets through without one, too.
    pub(super) async fn send_signal(
        &self,
        container: &Container,
        signal: i32,
        all: bool,
    ) -> Result<()> {
        let target = Target { container: container.id.clone(), exec: None };
        let request = Request::Kill { target, signal, all };
        let sent = match self.shim_of(container).await {
            Ok(shim) => shim.call(&request, &[]).await,
            Err(error) => Err(error),
        };
        match sent {
            // Done; or ended in the meantime, or unknown to it: what was wanted.
            Ok(_) => Ok(()),
            Err(error) if error.kind == Kind::Unavailable && signal == SIGKILL => {
                self.kill_by_cgroup(container).await
            }
            Err(error) => Err(error),
        }
    }

    /// SIGKILL to whatever is in a container's cgroup.
    pub(super) async fn kill_by_cgroup(&self, container: &Container) -> Result<()> {
        let group = self.cgroups.open(&container.record.borrow().cgroup)?;
        blocking(move || group.kill(rustix::process::Signal::KILL).map_err(Error::from)).await
    }

    /// Asks the shim to end; one that does not, or cannot be asked, is killed.
    async fn end_shim(&self, sandbox: &Sandbox) -> Result<()> {
        let shim = sandbox.shim.send_replace(None);
        let known = sandbox.record.borrow().shim_pid;
        let patience = match &shim {
            Some(shim) => {
                let _ = shim.call_within(&Request::Shutdown, &[], SHIM_TIMEOUT).await;
                SHIM_TIMEOUT
            }
            None => Duration::ZERO,
        };
        let Some(pid) = known.or_else(|| super::shims::find(&sandbox.id)) else { return Ok(()) };
        super::shims::end(pid, &sandbox.id, patience).await?;
        let (shims, id) = (self.shims.clone(), sandbox.id.clone());
        blocking(move || shims.remove_group(&id)).await?;
        // Written down with what comes next: to end it again does no harm.
        sandbox.record.send_modify(|record| record.shim_pid = None);
        Ok(())
    }

    async fn detach_network(&self, sandbox: &Sandbox) -> Result<()> {
        let (intended, attachment) = {
            let record = sandbox.record.borrow();
            (record.network_intended, record.attachment.clone())
        };
        if !intended {
            return Ok(());
        }
        let request = self.network_request(sandbox)?;
        let detach = async {
            let detached = self.network_of(sandbox).detach(&request, attachment.as_ref()).await;
            detached.map_err(|error| Error::new(Kind::Unavailable, error.to_string()))
        };
        self.meters.detach.of(detach).await?;
        // Written down with what comes next: to detach it again does no harm.
        sandbox.record.send_modify(|record| record.network_intended = false);
        Ok(())
    }

    async fn remove_sandbox_cgroup(&self, sandbox: &Sandbox) -> Result<()> {
        let (owned, path) = {
            let record = sandbox.record.borrow();
            (record.owns_cgroup, record.cgroup.clone())
        };
        // Where the parent is the client's, only the init's group is ours.
        let ours = if owned { path } else { self.init_cgroup(sandbox) };
        let cgroups = self.cgroups.clone();
        // A shim that died has left the pod's init behind.
        blocking(move || Ok(cgroups.clear(&ours)?)).await
    }

    /// Sends the stop signal, and SIGKILL after `grace`.
    pub(super) async fn stop_container(
        self: &Arc<Self>,
        container: &Arc<Container>,
        grace: Duration,
    ) -> Result<()> {
        if wait_made(&container.made).await.is_err() {
            return Ok(());
        }
        if grace.is_zero() {
            return self.kill_and_wait(container).await;
        }
        let signal = {
            let record = container.record.borrow();
            if !record.state.may_live() {
                return Ok(());
            }
            record.stop_signal
        };
        self.send_signal(container, signal, false).await?;
        let mut record = container.record.subscribe();
        let ended = record.wait_for(|record| !record.state.may_live());
        if tokio::time::timeout(grace, ended).await.is_ok() {
            return Ok(());
        }
        self.kill_and_wait(container).await
    }

    /// Kills and forgets a container.
    pub(super) async fn remove_container(
        self: &Arc<Self>,
        container: &Arc<Container>,
    ) -> Result<()> {
        let _ = wait_made(&container.made).await;
        let _turn = container.operation.lock().await;
        if self.table.container(&container.id).is_none() {
            return Ok(());
        }
        self.kill_and_wait(container).await?;
        self.move_container(container, ContainerEvent::RemoveAsked, |_| {})?;
        self.clear_container(container).await
    }

    /// Everything that a container has outside of its record, then that too.
    pub(super) async fn clear_container(&self, container: &Arc<Container>) -> Result<()> {
        let shim = container.sandbox.shim.borrow().clone();
        if let Some(shim) = shim {
            let target = Target { container: container.id.clone(), exec: None };
            // A shim that never had it, or is gone, has nothing to forget.
            let _ = shim.call(&Request::Delete { target }, &[]).await;
        }
        self.forget_in_runtime(container).await?;
        let cgroups = self.cgroups.clone();
        let path = container.record.borrow().cgroup.clone();
        let store = self.store.clone();
        let journal = self.journal.clone();
        let (sandbox, id) = (container.sandbox.id.clone(), container.id.clone());
        let remove_groups_of_execs = self.gates.close(&container.id);
        blocking(move || {
            remove_groups_of_execs();
            cgroups.clear(&path)?;
            store.remove_snapshot(&id).map_err(|error| Error::internal(error.to_string()))?;
            journal.forget_container(&sandbox, &id)
        })
        .await?;
        self.kept.forget(&container.id);
        self.tell_container_gone(container);
        self.table.forget_container(container);
        self.release_image(container);
        Ok(())
    }

    /// Lets go of the layers of an image that was removed while this container
    /// used them. Nobody waits for it: what fails goes with the next removal.
    fn release_image(&self, container: &Container) {
        let used: Vec<String> = {
            let record = container.record.borrow();
            let volumes = record.volumes.iter().map(|volume| volume.image_id);
            volumes.chain([record.image_id]).map(|id| id.to_string()).collect()
        };
        let there = |id: &String| self.images.find(&container.sandbox.namespace, id).is_some();
        if used.iter().all(there) {
            return;
        }
        let images = self.images.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = images.collect() {
                tracing::warn!(%error, "unable to delete the layers of a removed image");
            }
        });
    }

    /// Removes the cgroup of an ended container, and what it left running: in
    /// a PID namespace of its own nothing, in the pod's or the host's all that
    /// its command has started and not ended.
    ///
    /// The OCI runtime that made it, if one did, forgets it first: it has its
    /// own picture of both.
    pub(super) async fn remove_container_cgroup(&self, container: &Container) -> Result<()> {
        self.forget_in_runtime(container).await?;
        let cgroups = self.cgroups.clone();
        let path = container.record.borrow().cgroup.clone();
        let remove_groups_of_execs = self.gates.close(&container.id);
        blocking(move || {
            remove_groups_of_execs();
            Ok(cgroups.clear(&path)?)
        })
        .await
    }
}

/// Waits until a killed container has ended.
async fn wait_ended(container: &Container) -> Result<()> {
    let mut record = container.record.subscribe();
    let ended = record.wait_for(|record| !record.state.may_live());
    match tokio::time::timeout(KILL_TIMEOUT, ended).await {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::new(
            Kind::DeadlineExceeded,
            format!(
                "container {} was killed, but has not ended within {} s: a process of it hangs in the kernel (state D in ps; often a dead network filesystem or device). It is tried again when it is stopped again",
                container.id.short(),
                KILL_TIMEOUT.as_secs()
            ),
        )),
    }
}
