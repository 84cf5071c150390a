//! Taking up what an earlier daemon left.
//!
//! Records say what was intended, shims and the kernel say what is. Both are
//! read first, so that lists are right before the first request is answered;
//! then shims are connected to, all at the same time, and what was half done
//! is finished or undone by the same code that does it otherwise.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use corten_base::{ContainerId, Namespace, SandboxId};
use corten_net::Kept;
use corten_protocol::exit_record::{self, ExitRecord};
use corten_protocol::frame::Request;
use tokio::sync::watch;

use super::{Inner, blocking};
use crate::error::{Error, Result};
use crate::journal::{CONTAINERS, SANDBOXES};
use crate::record::{self, ContainerRecord, SandboxRecord};
use crate::shim::Shim;
use crate::state::{ContainerState, SandboxState};
use crate::table::{Claim, Container, Sandbox};

impl Inner {
    /// Reads every record into the table. Nothing else is touched yet.
    pub(super) fn load(self: &Arc<Self>) -> Result<()> {
        let mut containers = Vec::new();
        for (sandbox, of) in self.read_state_dir()? {
            self.enter_sandbox(sandbox);
            containers.extend(of);
        }
        self.load_durable(&mut containers)?;
        for container in containers {
            self.enter_container(container);
        }
        Ok(())
    }

    /// The records of the state directory. One that cannot be read is
    /// reported and passed over: the others must come back.
    fn read_state_dir(&self) -> Result<Vec<(SandboxRecord, Vec<ContainerRecord>)>> {
        let dir = self.journal.sandboxes_dir();
        let mut found = Vec::new();
        for id in entries::<SandboxId>(&dir)? {
            let sandbox = match record::read(&self.journal.sandbox_dir(&id).join("record")) {
                Ok(sandbox) => sandbox,
                Err(error) => {
                    tracing::error!(sandbox = %id, %error, "a sandbox is left alone, its record cannot be read");
                    continue;
                }
            };
            let dir = self.journal.sandbox_dir(&id).join("containers");
            let mut containers = Vec::new();
            for container in entries::<ContainerId>(&dir)? {
                match record::read(&self.journal.container_dir(&id, &container).join("record")) {
                    Ok(container) => containers.push(container),
                    Err(error) => {
                        // Its intent was never written whole: nothing of it exists
                        // but the directory.
                        tracing::warn!(%container, %error, "a container's record cannot be read");
                        let _ = self.journal.forget_container(&id, &container);
                    }
                }
            }
            found.push((sandbox, containers));
        }
        Ok(found)
    }

    /// What the durable store knows and the state directory does not: pods of
    /// an earlier boot, which have all ended.
    fn load_durable(&self, containers: &mut Vec<ContainerRecord>) -> Result<()> {
        let load = |table| {
            self.store
                .load_all(table)
                .map_err(|error| Error::internal(format!("unable to load {table}: {error}")))
        };
        let mut returned = HashSet::new();
        for (id, bytes) in load(SANDBOXES)? {
            match record::decode::<SandboxRecord>(&id, &bytes) {
                Ok(sandbox) if self.table.sandbox(&sandbox.id).is_none() => {
                    self.journal.make_sandbox_dir(&sandbox.id)?;
                    returned.insert(sandbox.id.clone());
                    self.enter_sandbox(sandbox);
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "a durable record cannot be read"),
            }
        }
        for (id, bytes) in load(CONTAINERS)? {
            match record::decode::<ContainerRecord>(&id, &bytes) {
                Ok(container) if returned.contains(&container.sandbox) => {
                    self.journal.make_container_dir(&container.sandbox, &container.id)?;
                    containers.push(container);
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "a durable record cannot be read"),
            }
        }
        Ok(())
    }

    fn enter_sandbox(&self, record: SandboxRecord) {
        let sandbox = Arc::new(Sandbox {
            id: record.id.clone(),
            namespace: record.namespace.clone(),
            config: record.config.clone(),
            // One that was being made is being undone now; who asks again
            // waits for that, and gets a new one.
            made: watch::Sender::new((record.state != SandboxState::Starting).then_some(Ok(()))),
            record: watch::Sender::new(record),
            shim: watch::Sender::new(None),
            teardown: tokio::sync::Mutex::new(()),
        });
        if let Claim::Taken(there) = self.table.claim_sandbox(&sandbox) {
            tracing::error!(sandbox = %sandbox.id, other = %there.id, "two sandboxes have the same name");
        }
    }

    fn enter_container(&self, record: ContainerRecord) {
        let Some(sandbox) = self.table.sandbox(&record.sandbox) else { return };
        let container = Arc::new(Container {
            id: record.id.clone(),
            sandbox,
            config: record.config.clone(),
            made: watch::Sender::new((record.state != ContainerState::Creating).then_some(Ok(()))),
            record: watch::Sender::new(record),
            operation: tokio::sync::Mutex::new(()),
            plan: Mutex::new(None),
        });
        if let Claim::Taken(there) = self.table.claim_container(&container) {
            tracing::error!(container = %container.id, other = %there.id, "two containers have the same name");
        }
    }

    /// Connects to every shim, finishes or undoes what was under way, and
    /// takes away what belongs to nobody.
    pub(super) async fn take_up(self: &Arc<Self>) {
        let mut work = tokio::task::JoinSet::new();
        for sandbox in self.table.sandboxes() {
            let inner = self.clone();
            work.spawn(async move { inner.take_up_sandbox(&sandbox).await });
        }
        while work.join_next().await.is_some() {}
        self.sweep().await;
    }

    async fn take_up_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        let (state, same_boot) = {
            let record = sandbox.record.borrow();
            (record.state, record.boot_id == self.boot_id)
        };
        let outcome = match state {
            SandboxState::Starting => self.undo_start(sandbox).await,
            SandboxState::Ready if same_boot => self.reconnect(sandbox).await,
            SandboxState::Ready => self.machine_restarted(sandbox).await,
            SandboxState::Stopping => self.finish_stop(sandbox).await,
            SandboxState::Stopped => Ok(()),
            SandboxState::Removing => self.remove_sandbox(sandbox).await,
        };
        if let Err(error) = outcome {
            tracing::error!(sandbox = %sandbox.id, %error, "unable to take up a sandbox; it is tried again when it is stopped");
        }
        self.take_up_containers(sandbox).await;
    }

    async fn undo_start(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        let undone = self.undo_sandbox(sandbox).await;
        self.table.forget_sandbox(sandbox);
        let error =
            Error::internal("the daemon was restarted while the sandbox was made; ask again");
        sandbox.made.send_replace(Some(Err(error)));
        undone
    }

    async fn finish_stop(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        // The shim may still be there, and knows how containers ended.
        let _ = self.connect(sandbox).await;
        self.read_exits(sandbox);
        self.stop_sandbox(sandbox).await
    }

    /// Nothing of a pod of an earlier boot runs.
    async fn machine_restarted(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        for container in self.table.containers_of(&sandbox.id) {
            if container.record.borrow().state.may_live() {
                self.container_lost(&container, "the machine was restarted");
            }
        }
        self.change_sandbox(sandbox, |record| record.shim_pid = None)?;
        self.stop_sandbox(sandbox).await
    }

    async fn reconnect(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        match self.connect(sandbox).await {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::error!(sandbox = %sandbox.id, %error, "unable to reach a shim");
                self.bury_shim(sandbox).await;
                Ok(())
            }
        }
    }

    async fn connect(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        let path = super::sandbox::shim_socket(&self.journal.sandbox_dir(&sandbox.id));
        let shim = Shim::connect(&sandbox.id, &path, self.news.clone()).await?;
        sandbox.shim.send_replace(Some(shim.clone()));
        // What is told here arrives before the reply, and is applied in order.
        shim.call(&Request::List, &[]).await?;
        Ok(())
    }

    /// The ends that a shim wrote down, for when it can no longer be asked.
    pub(super) fn read_exits(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        let path = self.journal.sandbox_dir(&sandbox.id).join("exits");
        let Ok(bytes) = std::fs::read(&path) else { return };
        for ExitRecord { target, exit, failure, .. } in exit_record::parse(&bytes) {
            if target.exec.is_some() {
                continue;
            }
            let Some(container) = self.table.container(&target.container) else { continue };
            match failure {
                Some(failure) => self.launch_failed(&container, failure),
                None => self.container_ended(&container, exit),
            }
        }
    }

    async fn take_up_containers(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        for container in self.table.containers_of(&sandbox.id) {
            let state = container.record.borrow().state;
            let outcome = match state {
                // The client got no id: it is undone, and made anew when asked for.
                ContainerState::Creating => {
                    let cleared = self.clear_container(&container).await;
                    self.table.forget_container(&container);
                    let error = Error::internal(
                        "the daemon was restarted while the container was made; ask again",
                    );
                    container.made.send_replace(Some(Err(error)));
                    cleared
                }
                ContainerState::Removing => self.remove_container(&container).await,
                ContainerState::Exited => self.remove_container_cgroup(&container).await,
                ContainerState::Created | ContainerState::Starting | ContainerState::Running => {
                    Ok(())
                }
            };
            if let Err(error) = outcome {
                tracing::error!(container = %container.id, %error, "unable to take up a container");
            }
        }
    }

    /// Takes away what no record knows: snapshots, addresses.
    async fn sweep(self: &Arc<Self>) {
        let known: HashSet<ContainerId> =
            self.table.containers().iter().map(|container| container.id.clone()).collect();
        let store = self.store.clone();
        let swept = blocking(move || {
            for id in store.snapshotter().list() {
                if !known.contains(&id) {
                    tracing::info!(snapshot = %id, "removing a snapshot that belongs to no container");
                    store.remove_snapshot(&id).map_err(|error| Error::internal(error.to_string()))?;
                }
            }
            Ok(())
        })
        .await;
        if let Err(error) = swept {
            tracing::error!(%error, "unable to remove what belongs to nobody");
        }
        self.sweep_networks().await;
    }

    async fn sweep_networks(&self) {
        let kept = |cri: bool| -> Vec<Kept> {
            let sandboxes = self.table.sandboxes();
            let ours = sandboxes.iter().filter(|sandbox| {
                let record = sandbox.record.borrow();
                record.network_intended && self.uses_cni(sandbox) == cri
            });
            ours.map(|sandbox| Kept {
                sandbox: sandbox.id.clone(),
                attachment: sandbox.record.borrow().attachment.clone(),
            })
            .collect()
        };
        for (network, kept) in [(&self.cni, kept(true)), (&self.bridge, kept(false))] {
            if let Err(error) = network.reconcile(&kept).await {
                tracing::warn!(%error, "unable to free addresses that belong to nobody");
            }
        }
    }

    /// Whether a sandbox's network is made by CNI plugins.
    pub(super) fn uses_cni(&self, sandbox: &Sandbox) -> bool {
        sandbox.namespace.as_str() == Namespace::KUBERNETES
            && self.config.cri_network == super::NetworkProvider::Cni
    }
}

/// The entries of a directory whose names are ids.
fn entries<T: std::str::FromStr>(dir: &std::path::Path) -> Result<Vec<T>> {
    let problem = |error: std::io::Error| {
        Error::internal(format!("unable to read {}: {error}", dir.display()))
    };
    let read = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(problem)?,
    };
    let mut found = Vec::new();
    for entry in read {
        if let Some(name) = entry.map_err(problem)?.file_name().to_str()
            && let Ok(id) = name.parse()
        {
            found.push(id);
        }
    }
    Ok(found)
}
