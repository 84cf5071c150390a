//! Exec, Attach and PortForward: a URL for what will be streamed.

use corten_api::cri::*;
use corten_base::limits::STREAM_PORTS_MAX;
use corten_pods::{ContainerPhase, Error, SandboxPhase};
use corten_wire::remote::Wanted;
use tonic::{Code, Status};

use super::Runtime;
use crate::status::{Wire, status};
use crate::streaming::{Order, Refusal};
use crate::validate::{at_most, id, port, refuse};

impl Runtime {
    pub(super) async fn exec(&self, request: ExecRequest) -> Result<ExecResponse, Status> {
        let ExecRequest { container_id, cmd, tty, stdin, stdout, stderr } = request;
        if cmd.is_empty() {
            return Err(refuse("cmd", "it is required")).wire();
        }
        let wanted = wanted(stdin, stdout, stderr, tty).wire()?;
        let container = self.streamable(&container_id).wire()?;
        let url = self.url(Order::Exec { container, command: cmd, wanted })?;
        Ok(ExecResponse { url })
    }

    pub(super) async fn attach(&self, request: AttachRequest) -> Result<AttachResponse, Status> {
        let AttachRequest { container_id, stdin, tty, stdout, stderr } = request;
        let wanted = wanted(stdin, stdout, stderr, tty).wire()?;
        let container = self.streamable(&container_id).wire()?;
        let url = self.url(Order::Attach { container, wanted })?;
        Ok(AttachResponse { url })
    }

    pub(super) async fn port_forward(
        &self,
        request: PortForwardRequest,
    ) -> Result<PortForwardResponse, Status> {
        let sandbox = id("pod_sandbox_id", &request.pod_sandbox_id).wire()?;
        at_most("port", request.port.len(), STREAM_PORTS_MAX).wire()?;
        let ports = request.port.iter().map(|number| port("port", (*number).into()));
        let ports = ports.collect::<corten_pods::Result<_>>().wire()?;
        let found = self.engine.sandbox(&self.namespace, sandbox).wire()?;
        if found.phase != SandboxPhase::Ready {
            return Err(Error::precondition(format!(
                "unable to forward ports of sandbox {}: it is not running",
                found.id.short()
            )))
            .wire();
        }
        let url = self.url(Order::PortForward { sandbox: found.id.to_string(), ports })?;
        Ok(PortForwardResponse { url })
    }

    /// The whole id of a container that runs.
    fn streamable(&self, container: &str) -> corten_pods::Result<String> {
        let container = id("container_id", container)?;
        let found = self.engine.container(&self.namespace, container)?;
        match found.phase {
            ContainerPhase::Running => Ok(found.id.to_string()),
            _ => Err(Error::precondition(format!(
                "unable to stream with container {}: it is not running",
                found.id.short()
            ))),
        }
    }

    fn url(&self, order: Order) -> Result<String, Status> {
        self.desk.url(order).map_err(|refusal| {
            let code = match refusal {
                Refusal::Full => Code::ResourceExhausted,
                Refusal::Random(_) => Code::Internal,
            };
            status(code, &format!("unable to make a URL for a stream: {refusal}"))
        })
    }
}

fn wanted(stdin: bool, stdout: bool, stderr: bool, terminal: bool) -> corten_pods::Result<Wanted> {
    if terminal && stderr {
        return Err(refuse("stderr", "a terminal has one output, which is stdout"));
    }
    if !stdin && !stdout && !stderr {
        return Err(refuse("stdin, stdout, stderr", "at least one of them is required"));
    }
    Ok(Wanted { stdin, stdout, stderr, terminal })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_fit_together() {
        assert!(wanted(false, false, false, true).is_err());
        assert!(wanted(true, true, true, true).is_err());
        assert!(wanted(true, true, false, true).is_ok());
        assert!(wanted(false, false, true, false).is_ok());
    }
}
