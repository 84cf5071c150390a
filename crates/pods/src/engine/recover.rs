//! Taking up what an earlier daemon left.
//!
//! Records say what was intended, shims and the kernel say what is. Both are
//! read first, so that lists are right before the first request is answered;
//! then shims are connected to, all at the same time, and what was half done
//! is finished or undone by the same code that does it otherwise.

use std::collections::{HashMap, HashSet};
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
use crate::stats::CpuRate;
use crate::table::{Claim, Container, Sandbox};

/// What was read of containers.
#[derive(Default)]
struct Found {
    containers: Vec<ContainerRecord>,
    /// Those whose record in the state directory cannot be read.
    damaged: HashSet<ContainerId>,
}

impl Inner {
    /// Reads every record into the table. Nothing else is touched yet.
    pub(super) fn load(self: &Arc<Self>) -> Result<()> {
        let mut found = Found::default();
        for id in entries::<SandboxId>(&self.journal.sandboxes_dir())? {
            let Some(sandbox) = self.read_sandbox(&id)? else { continue };
            self.enter_sandbox(sandbox);
            for container in entries(&self.journal.sandbox_dir(&id).join("containers"))? {
                self.read_container(&id, container, &mut found)?;
            }
        }
        self.load_durable(&mut found)?;
        for container in found.containers {
            self.enter_container(container);
        }
        Ok(())
    }

    /// A record of the state directory. One that cannot be read is reported and
    /// passed over (the durable one takes its place): the others must come back.
    fn read_sandbox(&self, id: &SandboxId) -> Result<Option<SandboxRecord>> {
        let path = self.journal.sandbox_dir(id).join("record");
        if !path.exists() {
            // Nothing was made of it yet, or everything has been taken down.
            self.journal.forget_sandbox(id)?;
            return Ok(None);
        }
        match record::read(&path) {
            Ok(sandbox) => Ok(Some(sandbox)),
            Err(error) => {
                tracing::error!(sandbox = %id, %error, "the record of a sandbox is damaged");
                Ok(None)
            }
        }
    }

    fn read_container(&self, of: &SandboxId, id: ContainerId, found: &mut Found) -> Result<()> {
        let path = self.journal.container_dir(of, &id).join("record");
        if !path.exists() {
            return self.journal.forget_container(of, &id);
        }
        match record::read(&path) {
            Ok(container) => found.containers.push(container),
            Err(error) => {
                tracing::error!(container = %id, %error, "the record of a container is damaged");
                found.damaged.insert(id);
            }
        }
        Ok(())
    }

    /// What the durable store knows and the state directory does not: pods of
    /// an earlier boot, which have all ended; and those whose record there is
    /// damaged.
    fn load_durable(&self, found: &mut Found) -> Result<()> {
        let load = |table| {
            self.store
                .load_all(table)
                .map_err(|error| Error::internal(format!("unable to load {table}: {error}")))
        };
        let mut returned = HashMap::new();
        let known: HashSet<_> = found.containers.iter().map(|there| there.id.clone()).collect();
        for (id, bytes) in load(SANDBOXES)? {
            match record::decode::<SandboxRecord>(&id, &bytes) {
                Ok(sandbox) if self.table.sandbox(&sandbox.id).is_none() => {
                    let gone = self.is_gone(&sandbox);
                    returned.insert(sandbox.id.clone(), gone);
                    self.return_sandbox(sandbox, gone)?;
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "a durable record cannot be read"),
            }
        }
        for (id, bytes) in load(CONTAINERS)? {
            let mut container = match record::decode::<ContainerRecord>(&id, &bytes) {
                Ok(container) => container,
                Err(error) => {
                    tracing::error!(%error, "a durable record cannot be read");
                    continue;
                }
            };
            match returned.get(&container.sandbox) {
                Some(gone) => {
                    self.journal.make_container_dir(&container.sandbox, &container.id)?;
                    if *gone {
                        container.state = ContainerState::Creating;
                        container.finished_at_ns = 0;
                    }
                    found.containers.push(container);
                }
                None if found.damaged.contains(&container.id) => found.containers.push(container),
                None if known.contains(&container.id) => {}
                // The daemon died before the removal was committed.
                None => self.journal.forget_durable(CONTAINERS, &id),
            }
        }
        Ok(())
    }

    /// Whether a sandbox that the state directory does not know was removed: it
    /// is of this boot, and only the removal of its durable record was missing.
    fn is_gone(&self, sandbox: &SandboxRecord) -> bool {
        sandbox.boot_id == self.boot_id && !self.journal.sandbox_dir(&sandbox.id).exists()
    }

    /// Enters a sandbox from the durable store. A gone one is entered as if it
    /// had never been finished, since that is undone: whatever there may still
    /// be of it (somebody may have emptied the state directory) is taken back.
    fn return_sandbox(&self, mut sandbox: SandboxRecord, gone: bool) -> Result<()> {
        self.journal.make_sandbox_dir(&sandbox.id)?;
        if gone {
            sandbox.state = SandboxState::Starting;
        }
        self.enter_sandbox(sandbox);
        Ok(())
    }

    fn enter_sandbox(&self, record: SandboxRecord) {
        self.keep_level(&record.selinux_level);
        let orphaned = record.state == SandboxState::Starting;
        let sandbox = Arc::new(Sandbox {
            id: record.id.clone(),
            namespace: record.namespace.clone(),
            config: record.config.clone(),
            // One that was being made is being undone now; who asks again
            // waits for that, and gets a new one.
            made: watch::Sender::new((!orphaned).then_some(Ok(()))),
            orphaned,
            record: watch::Sender::new(record),
            saving: Mutex::new(()),
            shim: watch::Sender::new(None),
            cpu: CpuRate::default(),
            teardown: tokio::sync::Mutex::new(()),
        });
        if let Claim::Taken(there) = self.table.claim_sandbox(&sandbox) {
            tracing::error!(sandbox = %sandbox.id, other = %there.id, "two sandboxes have the same name");
        }
    }

    fn enter_container(&self, record: ContainerRecord) {
        let Some(sandbox) = self.table.sandbox(&record.sandbox) else { return };
        let orphaned = record.state == ContainerState::Creating;
        let container = Arc::new(Container {
            id: record.id.clone(),
            sandbox,
            config: record.config.clone(),
            made: watch::Sender::new((!orphaned).then_some(Ok(()))),
            orphaned,
            record: watch::Sender::new(record),
            saving: Mutex::new(()),
            cpu: CpuRate::default(),
            operation: tokio::sync::Mutex::new(()),
            runtime: tokio::sync::Mutex::new(()),
            plan: Mutex::new(None),
        });
        if let Claim::Taken(there) = self.table.claim_container(&container) {
            tracing::error!(container = %container.id, other = %there.id, "two containers have the same name");
        }
    }

    /// Connects to every shim, and finishes or undoes what was under way.
    pub(super) async fn take_up(self: &Arc<Self>) {
        let mut work = tokio::task::JoinSet::new();
        for sandbox in self.table.sandboxes() {
            let inner = self.clone();
            work.spawn(async move { inner.take_up_sandbox(&sandbox).await });
        }
        while work.join_next().await.is_some() {}
        self.tell_what_was_missed();
    }

    async fn take_up_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        let (state, same_boot) = {
            let record = sandbox.record.borrow();
            (record.state, record.boot_id == self.boot_id)
        };
        let connected = match state {
            // It may still be there, and knows how containers ended.
            SandboxState::Ready | SandboxState::Stopping if same_boot => {
                self.connect(sandbox).await
            }
            _ => Err(Error::internal("it is not expected to run")),
        };
        // First, since a sandbox is not taken down while one of them is made.
        self.take_up_containers(sandbox).await;
        let outcome = match state {
            SandboxState::Starting => {
                self.undo_start(sandbox).await;
                Ok(())
            }
            SandboxState::Ready if !same_boot => self.machine_restarted(sandbox).await,
            SandboxState::Ready => {
                if let Err(error) = connected {
                    tracing::error!(sandbox = %sandbox.id, %error, "unable to reach a shim");
                    self.bury_shim(sandbox).await;
                }
                Ok(())
            }
            SandboxState::Stopping => {
                if connected.is_err() {
                    self.lose_containers(sandbox).await;
                }
                self.stop_sandbox(sandbox).await
            }
            SandboxState::Stopped => Ok(()),
            SandboxState::Removing => self.remove_sandbox(sandbox).await,
        };
        if let Err(error) = outcome {
            tracing::error!(sandbox = %sandbox.id, %error, "unable to take up a sandbox; it is tried again when it is stopped");
        }
        self.forget_empty_solo(sandbox).await;
    }

    /// The sandbox of a person's container that was not made goes with it.
    async fn forget_empty_solo(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        if !sandbox.config.solo || !self.table.containers_of(&sandbox.id).is_empty() {
            return;
        }
        if let Err(error) = self.remove_sandbox(sandbox).await {
            tracing::error!(sandbox = %sandbox.id, %error, "unable to remove an empty sandbox");
        }
    }

    async fn undo_start(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        self.undo_sandbox(sandbox).await;
        let error =
            Error::internal("the daemon was restarted while the sandbox was made; ask again");
        sandbox.made.send_replace(Some(Err(error)));
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
            let (state, had_ended) = {
                let record = container.record.borrow();
                (record.state, record.finished_at_ns != 0)
            };
            let outcome = match state {
                // An ended one of people's, that was to be started again.
                ContainerState::Creating if had_ended => {
                    let killed = self.kill_launched(&container).await;
                    self.container_lost(
                        &container,
                        "the daemon was restarted while it was started",
                    );
                    container.made.send_replace(Some(Ok(())));
                    killed
                }
                // The client got no id: it is undone, and made anew when asked for.
                ContainerState::Creating => {
                    self.undo_container(&container).await;
                    let error = Error::internal(
                        "the daemon was restarted while the container was made; ask again",
                    );
                    container.made.send_replace(Some(Err(error)));
                    Ok(())
                }
                ContainerState::Removing => self.remove_container(&container).await,
                ContainerState::Exited => self.remove_container_cgroup(&container).await,
                ContainerState::Running => self.go_on(&container).await,
                ContainerState::Created | ContainerState::Starting => Ok(()),
            };
            if let Err(error) = outcome {
                tracing::error!(container = %container.id, %error, "unable to take up a container");
            }
        }
    }

    /// Takes away what no record knows: snapshots, addresses.
    pub(super) async fn sweep(self: &Arc<Self>) {
        let inner = self.clone();
        let swept = blocking(move || {
            let store = &inner.store;
            // Asked for one by one: a container that is made meanwhile is in the
            // table before it has a snapshot.
            let mut held = false;
            for id in store.snapshotter().list() {
                if inner.table.container(&id).is_none() {
                    tracing::info!(snapshot = %id, "removing a snapshot that belongs to no container");
                    store.remove_snapshot(&id).map_err(|error| Error::internal(error.to_string()))?;
                    held = true;
                }
            }
            if held {
                // It may have been the last that held the layers of a removed image.
                inner.images.collect().map_err(|error| Error::internal(error.to_string()))?;
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
