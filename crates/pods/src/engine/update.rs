//! Changing the limits of containers and pods: first in the kernel, all or
//! nothing, then in the record. When that cannot be written, the kernel's are
//! set back: what is answered, shown and in force is one and the same.

use std::sync::Arc;

use corten_kernel::{Errno, cgroup};
use corten_spec::request::Resources;
use corten_spec::{Update, cgroup_resources, oci};

use super::sandbox::wait_made;
use super::{Inner, blocking};
use crate::error::{Error, Result};
use crate::state::{ContainerState, SandboxState};
use crate::table::{Container, Sandbox};

impl Inner {
    /// Changes the limits of a container that has not ended. What `asked`
    /// leaves open stays.
    pub(super) async fn update_container(
        self: &Arc<Self>,
        container: &Arc<Container>,
        asked: &Resources,
    ) -> Result<()> {
        wait_made(&container.made).await?;
        let _turn = container.operation.lock().await;
        let doing = || format!("unable to update container {}", container.id.short());
        let (state, before, group) = {
            let record = container.record.borrow();
            (record.state, record.resources.clone(), record.cgroup.clone())
        };
        let Update { after, change } = joined(&before, asked).map_err(|e| e.during(doing()))?;
        let undo = match state {
            ContainerState::Created | ContainerState::Starting | ContainerState::Running => {
                let undo = self.set_limits(group, change).await;
                Some(undo.map_err(|error| error.during(doing()))?)
            }
            // It gets them when it is started again.
            ContainerState::Exited if container.sandbox.config.solo => None,
            ContainerState::Exited => {
                return Err(Error::precondition(format!("{}: it has ended", doing())));
            }
            ContainerState::Creating | ContainerState::Removing => {
                return Err(Error::not_found("container", container.id.as_str()));
            }
        };
        container.record.send_modify(|record| record.resources = after);
        let Err(error) = self.journal.save_container(container) else { return Ok(()) };
        container.record.send_modify(|record| record.resources = before);
        take_back(undo).await;
        Err(error.during(doing()))
    }

    /// Takes note of the limits of a pod as a whole. Where the pod's cgroup is
    /// the client's, these are in force already; our own gets them here.
    pub(super) async fn update_sandbox(
        self: &Arc<Self>,
        sandbox: &Arc<Sandbox>,
        resources: &Resources,
        overhead: &Resources,
    ) -> Result<()> {
        wait_made(&sandbox.made).await?;
        let _turn = sandbox.teardown.lock().await;
        let doing = || format!("unable to update sandbox {}", sandbox.id.short());
        let before = sandbox.record.borrow().clone();
        if before.state != SandboxState::Ready {
            return Err(Error::precondition(format!("{}: it is not ready", doing())));
        }
        let pod = joined(&before.resources, resources).map_err(|e| e.during(doing()))?;
        let overhead = joined(&before.overhead, overhead).map_err(|e| e.during(doing()))?;
        let ours = sandbox.config.cgroup_parent.is_empty();
        let undo = if ours && pod.change != Resources::default() {
            self.make_group(before.cgroup.clone()).await?;
            let undo = self.set_limits(before.cgroup.clone(), pod.change).await;
            Some(undo.map_err(|error| error.during(doing()))?)
        } else {
            None
        };
        let Err(error) = self.change_sandbox(sandbox, |record| {
            record.resources = pod.after;
            record.overhead = overhead.after;
        }) else {
            return Ok(());
        };
        sandbox.record.send_modify(|record| {
            record.resources = before.resources;
            record.overhead = before.overhead;
        });
        take_back(undo).await;
        Err(error.during(doing()))
    }

    /// The cgroup of a pod that has limits as a whole, where nobody else sets
    /// them.
    pub(super) async fn limit_sandbox(&self, sandbox: &Sandbox) -> Result<()> {
        let (group, resources) = {
            let record = sandbox.record.borrow();
            (record.cgroup.clone(), record.resources.clone())
        };
        let limits = Resources { oom_score_adj: None, ..resources };
        if !sandbox.config.cgroup_parent.is_empty() || limits == Resources::default() {
            return Ok(());
        }
        self.make_group(group.clone()).await?;
        self.set_limits(group, limits).await.map(drop)
    }

    async fn make_group(&self, path: String) -> Result<()> {
        let cgroups = self.cgroups.clone();
        blocking(move || Ok(cgroups.create(&path, &cgroup::Resources::default()).map(drop)?)).await
    }

    async fn set_limits(&self, group: String, limits: Resources) -> Result<cgroup::Undo> {
        let group = self.cgroups.open(&group)?;
        let linux = oci::Linux {
            resources: Some(corten_spec::container::resources(&limits)),
            ..oci::Linux::default()
        };
        blocking(move || group.update(&cgroup_resources(&linux)).map_err(refused)).await
    }
}

fn joined(before: &Resources, asked: &Resources) -> Result<Update> {
    corten_spec::update(before, asked).map_err(|error| Error::invalid(error.to_string()))
}

/// Sets back limits whose record could not be written.
async fn take_back(undo: Option<cgroup::Undo>) {
    let Some(undo) = undo else { return };
    if let Err(error) = blocking(move || Ok(undo.restore()?)).await {
        tracing::error!(%error, "unable to take a change of limits back");
    }
}

/// Whose fault a limit is that the kernel does not take.
fn refused(error: corten_kernel::Error) -> Error {
    match error.errno {
        Errno::BUSY => Error::precondition(error.to_string()),
        Errno::INVAL | Errno::RANGE | Errno::OPNOTSUPP | Errno::NOENT => {
            Error::invalid(error.to_string())
        }
        _ => error.into(),
    }
}
