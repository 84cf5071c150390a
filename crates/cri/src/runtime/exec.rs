//! ExecSync over CRI.

use std::time::Duration;

use bytes::Bytes;
use corten_api::cri::{ExecSyncRequest, ExecSyncResponse};
use corten_base::limits;
use tonic::Status;

use super::Runtime;
use crate::status::{Wire, to_the_end};
use crate::validate::{id, refuse};

/// Bytes of an answer that are not output: field headers and the exit code.
const ANSWER_HEADERS_BYTES_MAX: usize = 64;

impl Runtime {
    pub(super) async fn exec_sync(
        &self,
        request: ExecSyncRequest,
    ) -> Result<ExecSyncResponse, Status> {
        let container = id("container_id", &request.container_id).wire()?.to_owned();
        if request.cmd.is_empty() {
            return Err(refuse("cmd", "it is required")).wire();
        }
        let timeout = match u64::try_from(request.timeout) {
            Ok(0) => None,
            Ok(seconds) => Some(Duration::from_secs(seconds)),
            Err(_) => return Err(refuse("timeout", "it is negative")).wire(),
        };
        let (engine, namespace) = (self.engine.clone(), self.namespace.clone());
        let output = to_the_end(async move {
            engine.exec_sync(&namespace, &container, request.cmd, timeout).await
        })
        .await?;
        let (mut stdout, mut stderr) = (output.stdout, output.stderr);
        fit(&mut stdout, &mut stderr);
        Ok(ExecSyncResponse {
            stdout: Bytes::from(stdout),
            stderr: Bytes::from(stderr),
            exit_code: output.exit_code,
        })
    }
}

/// Cuts both streams to what one message can hold, the longer one first: a
/// client refuses a longer message as a whole, and then has nothing.
fn fit(stdout: &mut Vec<u8>, stderr: &mut Vec<u8>) {
    let room = limits::GRPC_MESSAGE_BYTES_MAX - ANSWER_HEADERS_BYTES_MAX;
    let shorter = stdout.len().min(stderr.len()).min(room / 2);
    let longer = room - shorter;
    if stdout.len() >= stderr.len() {
        stdout.truncate(longer);
        stderr.truncate(shorter);
    } else {
        stdout.truncate(shorter);
        stderr.truncate(longer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(stdout: usize, stderr: usize) -> (usize, usize) {
        let (mut out, mut err) = (vec![0; stdout], vec![0; stderr]);
        fit(&mut out, &mut err);
        (out.len(), err.len())
    }

    #[test]
    fn output_fits_into_one_message() {
        let max = limits::GRPC_MESSAGE_BYTES_MAX;
        let room = max - ANSWER_HEADERS_BYTES_MAX;
        assert_eq!(fitted(10, 20), (10, 20));
        assert_eq!(fitted(max, 0), (room, 0));
        assert_eq!(fitted(100, max), (100, room - 100));
        assert_eq!(fitted(max, max), (room / 2, room / 2));
        assert_eq!(fitted(0, 0), (0, 0));
    }
}
