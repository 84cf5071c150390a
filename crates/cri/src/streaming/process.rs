//! The processes behind sessions, as the engine begins or finds them.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use corten_base::{ExecId, Namespace};
use corten_pods::{AttachRequest, Engine, Error, ExecRequest, Exit, Fate, Result};
use corten_wire::Outlet;
use corten_wire::remote::{Channel, Ending};
use corten_wire::resize::Size;
use tokio::sync::oneshot;

use super::tokens::Order;
use crate::end::End;

/// Where a session's process is to be.
#[derive(Clone)]
pub struct Target {
    /// Who runs it.
    pub engine: Engine,
    /// The namespace of its names.
    pub namespace: Namespace,
    /// Its container.
    pub container: String,
}

/// A process that a client has to do with.
pub struct Process {
    /// Its input.
    pub stdin: Option<Arc<End>>,
    /// Its stdout (or terminal) and stderr.
    pub outputs: [Option<Output>; 2],
    /// How it ends.
    pub exit: oneshot::Receiver<Exit>,
    /// Which exec it is, or none: the container's own.
    pub exec: Option<Held>,
    /// It was there before, and its output has an end of its own: why.
    pub attached: Option<Fate>,
}

/// An exec of a session: when that is dropped before the exec has ended, the
/// client has left, and the exec's other ends are closed.
pub struct Held {
    target: Target,
    exec: ExecId,
    ended: bool,
}

impl Held {
    /// The client says no more.
    pub async fn close_stdin(&self) {
        let Target { engine, namespace, container } = &self.target;
        if let Err(error) = engine.close_stdin(namespace, container, self.exec).await {
            tracing::debug!(%error, "unable to end the input of an exec");
        }
    }

    /// The process has ended: there is nothing to close.
    pub fn ended(&mut self) {
        self.ended = true;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (Target { engine, namespace, container }, exec) = (self.target.clone(), self.exec);
        tokio::spawn(async move {
            if let Err(error) = engine.hang_up(&namespace, &container, exec).await {
                tracing::debug!(%error, "unable to hang up an exec");
            }
        });
    }
}

/// An output of a process.
pub struct Output {
    /// What it writes to.
    pub pipe: Arc<End>,
    /// Where that goes; what the client does not want goes nowhere.
    pub outlet: Option<Outlet>,
}

impl Target {
    /// Begins, or attaches to, what was ordered.
    pub async fn begin(&self, order: Order, ending: &Ending) -> Result<Process> {
        let (engine, namespace) = (self.engine.clone(), self.namespace.clone());
        let container = self.container.clone();
        // To its end, even if the client leaves: half a launch is none.
        match order {
            Order::Exec { command, wanted, .. } => {
                let request = ExecRequest {
                    command,
                    terminal: wanted.terminal,
                    stdin: wanted.stdin,
                    ..ExecRequest::default()
                };
                let begun =
                    spawn(async move { engine.exec(&namespace, &container, request).await })
                        .await?;
                let held = Held { target: self.clone(), exec: begun.exec, ended: false };
                let stdout = output(begun.stdout, ending.outlet(Channel::Stdout))?;
                let stdin = match begun.stdin {
                    Some(stdin) => Some(pipe(stdin)?),
                    // A terminal is one descriptor for both.
                    None if wanted.stdin => stdout.as_ref().map(|output| output.pipe.clone()),
                    None => None,
                };
                Ok(Process {
                    stdin,
                    outputs: [stdout, output(begun.stderr, ending.outlet(Channel::Stderr))?],
                    exit: begun.exit,
                    exec: Some(held),
                    attached: None,
                })
            }
            Order::Attach { wanted, .. } => {
                let request = AttachRequest {
                    stdin: wanted.stdin,
                    stdout: wanted.stdout,
                    stderr: wanted.stderr,
                };
                let begun =
                    spawn(async move { engine.attach(&namespace, &container, request).await })
                        .await?;
                Ok(Process {
                    stdin: begun.stdin.map(pipe).transpose()?,
                    outputs: [
                        output(begun.stdout, ending.outlet(Channel::Stdout))?,
                        output(begun.stderr, ending.outlet(Channel::Stderr))?,
                    ],
                    exit: begun.exit,
                    exec: None,
                    attached: Some(begun.fate),
                })
            }
            Order::PortForward { .. } => Err(Error::internal("ports are no process")),
        }
    }

    /// Changes the size of its terminal.
    pub async fn resize(&self, held: Option<&Held>, size: Size) -> Result<()> {
        let (Size { columns, rows }, exec) = (size, held.map(|held| held.exec));
        self.engine.resize(&self.namespace, &self.container, exec, rows, columns).await
    }
}

async fn spawn<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(work)
        .await
        .unwrap_or_else(|broken| Err(Error::internal(format!("a task ended early: {broken}"))))
}

fn output(fd: Option<OwnedFd>, outlet: Option<Outlet>) -> Result<Option<Output>> {
    fd.map(|fd| Ok(Output { pipe: pipe(fd)?, outlet })).transpose()
}

fn pipe(fd: OwnedFd) -> Result<Arc<End>> {
    End::new(fd)
        .map(Arc::new)
        .map_err(|error| Error::internal(format!("unable to watch a stream: {error}")))
}
