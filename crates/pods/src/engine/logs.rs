//! Log files: opened here, and written by the shim through the descriptor.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use corten_protocol::frame::Request;
use corten_spec::request::ContainerConfig;

use super::sandbox::expect_done;
use super::{Inner, blocking};
use crate::error::{Error, Kind, Result};
use crate::table::{Container, Sandbox};

/// How long a log disk may take to open a file.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

impl Inner {
    /// Where a container's log goes; empty for nowhere.
    pub(super) fn log_path(&self, sandbox: &Sandbox, config: &ContainerConfig) -> Result<String> {
        if config.log_path.is_empty() || sandbox.config.log_directory.is_empty() {
            return Ok(String::new());
        }
        let inside = Path::new(&config.log_path);
        let climbs = inside.components().any(|part| part == std::path::Component::ParentDir);
        if climbs || inside.is_absolute() {
            return Err(Error::invalid(format!(
                "the log path {:?} leads out of the pod's log directory",
                config.log_path
            )));
        }
        Ok(Path::new(&sandbox.config.log_directory).join(inside).display().to_string())
    }

    /// Writes a running container's log to a new file at the same path.
    pub(super) async fn reopen_log(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let shim = self.running_shim(container).await?;
        let path = container.record.borrow().log_path.clone();
        if path.is_empty() {
            return Err(Error::precondition(format!(
                "container {} has no log to reopen",
                container.id.short()
            )));
        }
        let file = open(PathBuf::from(path)).await?;
        let request = Request::ReopenLog { container: container.id.clone() };
        let (reply, _) = shim.call(&request, &[file.as_fd()]).await?;
        expect_done("reopen a log", reply)
    }
}

/// Opens a log file for appending, and makes it and its directory if need be.
/// A disk that hangs costs a thread, and this one container.
pub(super) async fn open(path: PathBuf) -> Result<File> {
    let shown = path.display().to_string();
    match tokio::time::timeout(OPEN_TIMEOUT, blocking(move || open_now(&path))).await {
        Ok(opened) => opened,
        Err(_) => Err(Error::new(
            Kind::DeadlineExceeded,
            format!(
                "the disk of the log {shown} did not open it within {} s",
                OPEN_TIMEOUT.as_secs()
            ),
        )),
    }
}

fn open_now(path: &Path) -> Result<File> {
    let problem = |error: std::io::Error| {
        Error::internal(format!("unable to open the log {}: {error}", path.display()))
    };
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(problem)?;
    }
    OpenOptions::new().create(true).append(true).mode(0o640).open(path).map_err(problem)
}
