//! People's containers: one container, with a sandbox of its own that carries
//! the same name and goes with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use corten_base::{ContainerId, Namespace};
use corten_protocol::frame::{Request, Target};
use corten_spec::request::{ContainerConfig, SandboxConfig};

use super::{Inner, blocking};
use crate::error::{Error, Result};
use crate::record::ContainerRecord;
use crate::state::ContainerEvent;
use crate::table::{Container, Sandbox};

/// How long a log disk may take to remove a log.
const LOG_REMOVAL_TIMEOUT: Duration = Duration::from_secs(10);

impl Inner {
    /// Makes a container and the sandbox that serves it alone.
    pub(super) async fn create_solo(
        self: &Arc<Self>,
        namespace: &Namespace,
        mut sandbox: SandboxConfig,
        mut container: ContainerConfig,
    ) -> Result<ContainerId> {
        sandbox.solo = true;
        sandbox.name = container.name.clone();
        container.attempt = 0;
        if sandbox.log_directory.is_empty() {
            let dir = self.solo_log_dir(namespace, &container.name);
            sandbox.log_directory = dir.display().to_string();
        }
        if container.log_path.is_empty() {
            container.log_path = "container.log".to_owned();
        }
        let sandbox = self.run_sandbox(namespace, sandbox).await?;
        match self.create_container(&sandbox, container).await {
            Ok(container) => Ok(container.id.clone()),
            Err(error) => {
                if let Err(undo) = self.remove_sandbox(&sandbox).await {
                    tracing::error!(sandbox = %sandbox.id, error = %undo, "unable to remove the sandbox of a container that could not be made");
                }
                Err(error)
            }
        }
    }

    fn solo_log_dir(&self, namespace: &Namespace, name: &str) -> PathBuf {
        self.config.log_dir.join(namespace.as_str()).join(name)
    }

    /// The log goes with its container, or the next one of this name would go
    /// on in it. A directory that the client named is the client's.
    pub(super) async fn remove_solo_logs(&self, sandbox: &Sandbox) {
        let dir = self.solo_log_dir(&sandbox.namespace, &sandbox.config.name);
        if !sandbox.config.solo || Path::new(&sandbox.config.log_directory) != dir {
            return;
        }
        let shown = dir.display().to_string();
        let removal = blocking(move || match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::internal(error.to_string()))
            }
            Ok(()) | Err(_) => Ok(()),
        });
        match tokio::time::timeout(LOG_REMOVAL_TIMEOUT, removal).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(dir = shown, %error, "unable to remove the log of a container");
            }
            Err(_) => {
                tracing::warn!(dir = shown, "unable to remove the log of a container in time");
            }
        }
    }

    /// A solo container has ended: one that was to be removed then, is.
    pub(super) async fn solo_ended(self: &Arc<Self>, container: &Arc<Container>) {
        if !container.sandbox.config.auto_remove {
            return;
        }
        if let Err(error) = self.remove_sandbox(&container.sandbox).await {
            tracing::error!(container = %container.id, %error, "unable to remove an ended container");
        }
    }

    /// Makes an ended container ready to be started again, with the files that
    /// it wrote before.
    pub(super) async fn revive_solo(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let id = container.id.short();
        let record = container.record.borrow().clone();
        let image = self
            .images
            .find(&record.namespace, &record.image_id.to_string())
            .ok_or_else(|| Error::not_found("image", &record.image_ref))
            .map_err(|error| error.during(format!("unable to start container {id} again")))?;
        let shim = self.shim_of(container).await.map_err(|error| {
            error.during(format!("unable to start container {id} again, since its pod is down: remove it, and run it anew"))
        })?;
        let target = Target { container: container.id.clone(), exec: None };
        // Its answer does not matter: what it does not know it need not forget.
        shim.call(&Request::Delete { target }, &[]).await?;
        self.remove_container_cgroup(container).await?;
        // When it ended stays until it is handed over: so a daemon that comes back
        // half way knows that it is not a new one, to be undone.
        self.move_container(container, ContainerEvent::ReviveAsked, |record| {
            record.reason.clear();
            record.message.clear();
            record.started_at_ns = 0;
            record.exit_code = 0;
        })?;
        match self.hand_over(container, &image).await {
            Ok(()) => {
                let handed = ContainerEvent::HandedOver;
                let forget_end = |record: &mut ContainerRecord| record.finished_at_ns = 0;
                self.move_container(container, handed, forget_end).map(|_| ())
            }
            Err(error) => {
                self.container_lost(container, error.message());
                Err(error)
            }
        }
    }
}
