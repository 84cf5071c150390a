//! Attaching to running containers.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use corten_base::ExecId;
use corten_protocol::frame::{Attached, Exit, Refusal, Reply, Request, Target};
use tokio::sync::oneshot;

use super::Inner;
use super::events::OOM_KILLED;
use super::sandbox::expect_done;
use crate::error::{Error, Kind, Result};
use crate::table::Container;
use crate::view::{AttachRequest, AttachSession, Fate};

impl Inner {
    /// Attaches a client. What the container says is copied to it by the shim.
    pub(super) async fn attach(
        &self,
        container: &Arc<Container>,
        request: AttachRequest,
    ) -> Result<AttachSession> {
        let id = container.id.short();
        check_attachable(container)?;
        let shim = self.shim_of(container).await?;
        let AttachRequest { stdin, stdout, stderr } = request;
        let frame = Request::Attach {
            container: container.id.clone(),
            streams: Attached { stdin, stdout, stderr },
        };
        let exit = exit_of(container);
        match shim.call(&frame, &[]).await? {
            (Reply::Attached(streams), fds) => Ok(session(container, streams, fds, exit)),
            (Reply::Refused(Refusal::WrongPhase(_) | Refusal::Unknown), _) => Err(ended(id)),
            (Reply::Refused(Refusal::Full), _) => Err(Error::new(
                Kind::ResourceExhausted,
                format!(
                    "unable to attach to container {id}: too many clients are attached in its pod"
                ),
            )),
            (Reply::Refused(Refusal::Malformed), _) => Err(Error::precondition(format!(
                "unable to attach to container {id}: the shim of its pod is older than this daemon, and does not know how"
            ))),
            (other, _) => {
                Err(Error::internal(format!("unable to attach to container {id}: {other:?}")))
            }
        }
    }
}

impl Inner {
    /// Changes the size of a terminal.
    pub(super) async fn resize(
        &self,
        container: &Container,
        exec: Option<ExecId>,
        rows: u16,
        columns: u16,
    ) -> Result<()> {
        const ENOTTY: i32 = 25;
        check_attachable(container)?;
        let shim = self.shim_of(container).await?;
        let target = Target { container: container.id.clone(), exec };
        let id = container.id.short();
        match shim.call(&Request::Resize { target, rows, columns }, &[]).await?.0 {
            Reply::Refused(Refusal::System { errno: ENOTTY }) => Err(Error::precondition(format!(
                "unable to resize the terminal of container {id}: it has none"
            ))),
            Reply::Refused(Refusal::Unknown) => Err(Error::precondition(format!(
                "unable to resize a terminal of container {id}: its process has ended"
            ))),
            reply => expect_done("resize a terminal", reply),
        }
    }
}

/// A container that has not been started may be attached to: so nothing that
/// it says is missed.
fn check_attachable(container: &Container) -> Result<()> {
    if container.record.borrow().state.may_live() {
        Ok(())
    } else {
        Err(ended(container.id.short()))
    }
}

fn ended(id: &str) -> Error {
    Error::precondition(format!("unable to attach to container {id}: it is not running"))
}

fn session(
    container: &Container,
    streams: Attached,
    fds: Vec<OwnedFd>,
    exit: oneshot::Receiver<Exit>,
) -> AttachSession {
    let mut fds = fds.into_iter();
    let mut next = |there: bool| if there { fds.next() } else { None };
    AttachSession {
        stdin: next(streams.stdin),
        stdout: next(streams.stdout),
        stderr: next(streams.stderr),
        fate: Fate::new(next(true)),
        terminal: container.config.tty,
        exit,
    }
}

/// How a container ends, for as long as somebody wants to know.
fn exit_of(container: &Arc<Container>) -> oneshot::Receiver<Exit> {
    let (mut sender, receiver) = oneshot::channel();
    let mut record = container.record.subscribe();
    tokio::spawn(async move {
        let ended = record.wait_for(|record| !record.state.may_live());
        let exit = tokio::select! {
            () = sender.closed() => return,
            ended = ended => ended.map(|record| Exit {
                code: record.exit_code,
                oom_killed: record.reason == OOM_KILLED,
                timed_out: false,
                at_ns: record.finished_at_ns,
            }),
        };
        if let Ok(exit) = exit {
            let _ = sender.send(exit);
        }
    });
    receiver
}
