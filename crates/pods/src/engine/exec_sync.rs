//! Commands that are run to their end, and what they have written.
//!
//! Most are probes, which end at once: one request to the shim, and one answer.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use corten_base::ExecId;
use corten_kernel::memfd;
use corten_protocol::frame::{Exit, RUN_PLAN_BYTES_MAX, Refusal, Reply, Request, Stdio};
use tokio::sync::oneshot;

use super::Inner;
use super::collect::collect;
use super::exec::{check_command, milliseconds, remove, session};
use crate::error::{Error, Kind, Result};
use crate::shim::Shim;
use crate::table::Container;
use crate::view::{ExecOutput, ExecRequest, ExecSession};

/// What became of a command of ExecSync.
enum Ran {
    /// It has ended, and this is what it wrote.
    Ended(Exit, [Vec<u8>; 2]),
    /// It takes its time, or has written a lot.
    Running(ExecSession),
    /// Its shim is too old to know.
    Unknown,
}

/// Waits for the end of a command, and takes what it writes.
async fn to_the_end(session: ExecSession) -> Result<(Exit, [Vec<u8>; 2])> {
    let ExecSession { stdout, stderr, mut exit, .. } = session;
    let (exit, output) = collect([stdout, stderr], &mut exit).await?;
    let gone = || Error::new(Kind::Unavailable, "the shim went away before the command ended");
    Ok((exit.map_err(|_| gone())?, output))
}

impl Inner {
    /// Runs a command to its end and collects its output.
    pub(super) async fn exec_sync(
        self: &Arc<Self>,
        container: &Arc<Container>,
        command: Vec<String>,
        timeout: Option<Duration>,
    ) -> Result<ExecOutput> {
        let request = ExecRequest { command, ..ExecRequest::default() };
        let described = request.command.join(" ");
        let shim = self.running_shim(container).await?;
        check_command(&request)?;
        let runs = shim.may_run() && self.oci_runtime(container)?.is_none();
        let ran =
            if runs { self.run(container, &shim, &request, timeout).await? } else { Ran::Unknown };
        let (exit, [stdout, stderr]) = match ran {
            Ran::Ended(exit, output) => (exit, output),
            Ran::Running(session) => to_the_end(session).await?,
            Ran::Unknown => to_the_end(self.exec(container, request, timeout).await?).await?,
        };
        if exit.timed_out {
            let seconds = timeout.unwrap_or_default().as_secs_f64();
            return Err(Error::new(
                Kind::DeadlineExceeded,
                format!(
                    "command {described:?} timed out: it was killed with its descendants after {seconds} s"
                ),
            ));
        }
        Ok(ExecOutput { stdout, stderr, exit_code: exit.code })
    }

    /// Launches a command of ExecSync, and waits for its end if that comes soon.
    async fn run(
        self: &Arc<Self>,
        container: &Arc<Container>,
        shim: &Shim,
        request: &ExecRequest,
        timeout: Option<Duration>,
    ) -> Result<Ran> {
        let (exec, exit) = shim.new_exec();
        let ran = self.try_run(container, shim, request, timeout, (exec, exit)).await;
        if !matches!(ran, Ok(Ran::Running(_))) {
            shim.forget_exec(exec);
        }
        ran
    }

    async fn try_run(
        self: &Arc<Self>,
        container: &Arc<Container>,
        shim: &Shim,
        request: &ExecRequest,
        timeout: Option<Duration>,
        (exec, exit): (ExecId, oneshot::Receiver<Exit>),
    ) -> Result<Ran> {
        let ((bytes, _), group) = self.plan_and_group(container, request, exec, timeout)?;
        let sealed = (bytes.len() > RUN_PLAN_BYTES_MAX)
            .then(|| memfd::sealed("corten-plan", &bytes))
            .transpose()?;
        let frame = Request::Run {
            container: container.id.clone(),
            exec,
            timeout_ms: milliseconds(timeout),
            cgroup: group.flags(),
            plan: if sealed.is_some() { Vec::new() } else { bytes.clone() },
        };
        let fds: Vec<_> = sealed.iter().map(AsFd::as_fd).chain(group.fds()).collect();
        match shim.call_within(&frame, &fds, super::LAUNCH_TIMEOUT).await {
            Ok((Reply::Ended { exit, output }, _)) => {
                if let Some(surplus) = group.ended(exit) {
                    tokio::spawn(remove(Some(surplus)));
                }
                Ok(Ran::Ended(exit, output))
            }
            Ok((Reply::Running { pid, .. }, streams)) => {
                let exit = self.clean_after_exec(container, shim, exec, exit, group);
                let stdio = Stdio { hand_over: true, ..Stdio::default() };
                Ok(Ran::Running(session(exec, pid, stdio, streams, exit)))
            }
            Ok((Reply::Refused(Refusal::Malformed), _)) => {
                self.clear_exec(container, exec, group).await;
                shim.cannot_run();
                Ok(Ran::Unknown)
            }
            Ok((reply, _)) => {
                let refused = self.exec_refused(container, exec, &bytes, reply);
                self.clear_exec(container, exec, group).await;
                Err(refused)
            }
            Err(error) => {
                self.clear_exec(container, exec, group).await;
                Err(error)
            }
        }
    }
}
