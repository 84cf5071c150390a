//! Logs: the files that shims write in CRI's format, read for people.
//!
//! A line is `<RFC 3339 time> <stdout|stderr> <P|F> <content>`; `P` means that
//! the content goes on in the stream's next line.

mod line;
mod reader;

use std::path::PathBuf;
use std::time::Duration;

use corten_api::corten as api;
use corten_base::limits::LOG_TAIL_LINES_MAX;
use corten_pods::{ContainerView, Error};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::containers::exited;
use super::{Answers, People};
use crate::status::Wire;
use crate::validate::refuse;
use reader::Reader;

/// How often a followed log is looked at. Only while somebody follows it.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);
/// Messages that wait for a slow client; then the reader waits.
const MESSAGES_WAITING_MAX: usize = 4;

type Answer = Result<api::LogsResponse, Status>;

/// How a container ends, as the engine tells.
type Ending = tokio::task::JoinHandle<corten_pods::Result<ContainerView>>;

impl People {
    pub(super) async fn logs(
        &self,
        request: api::LogsRequest,
    ) -> Result<Answers<api::LogsResponse>, Status> {
        let (namespace, container) = self.find(&request.namespace, &request.container)?;
        if container.log_path.is_empty() {
            return Err(Error::precondition(format!(
                "unable to read the log of container {:?}: it has none",
                container.config.name
            )))
            .wire();
        }
        if request.tail.is_some_and(|tail| tail > LOG_TAIL_LINES_MAX) {
            return Err(refuse("tail", format!("up to {LOG_TAIL_LINES_MAX} lines are kept")))
                .wire();
        }
        // The file is opened and the end is waited for before the client hears
        // from us: from then on it may start the container, which may be gone
        // a moment later.
        let reader = Reader::open(PathBuf::from(&container.log_path)).await.wire()?;
        let ending = if request.follow {
            let engine = self.engine.clone();
            let id = container.id.to_string();
            let (begun, waiting) = tokio::sync::oneshot::channel();
            let sandbox = engine.sandbox(&namespace, container.sandbox.as_str()).wire()?;
            let ending: Ending = tokio::spawn(async move {
                let mut wait = std::pin::pin!(engine.wait_container(&namespace, &id));
                let first = poll_once(wait.as_mut()).await;
                let _ = begun.send(());
                let ended = match first {
                    Some(view) => view,
                    None => wait.await,
                };
                if sandbox.config.auto_remove {
                    // Joins the removal under way: who hears of the end may
                    // use the name again. If it fails, that is told there.
                    let _ = engine.remove_sandbox(&namespace, sandbox.id.as_str()).await;
                }
                ended
            });
            let _ = waiting.await;
            Some(ending)
        } else {
            None
        };
        let (answers, stream) = mpsc::channel(MESSAGES_WAITING_MAX);
        tokio::spawn(send(reader, request, ending, answers));
        Ok(Box::pin(ReceiverStream::new(stream)))
    }
}

/// The result of a future that is ready at once.
async fn poll_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = &mut future => Some(output),
        () = std::future::ready(()) => None,
    }
}

/// Sends what is there, and with `ending` what comes until the container ends.
async fn send(
    mut reader: Reader,
    request: api::LogsRequest,
    ending: Option<Ending>,
    answers: mpsc::Sender<Answer>,
) {
    let outcome = match request.tail {
        Some(tail) => reader.skip_to_tail(tail).await,
        None => Ok(()),
    };
    let outcome = match outcome {
        Ok(()) => follow(&mut reader, request.since_ns, ending, &answers).await,
        Err(error) => Err(error).wire(),
    };
    if let Err(status) = outcome {
        // Fails only when the client has left.
        let _ = answers.send(Err(status)).await;
    }
}

async fn follow(
    reader: &mut Reader,
    since_ns: i64,
    ending: Option<Ending>,
    answers: &mpsc::Sender<Answer>,
) -> Result<(), Status> {
    let Some(mut ending) = ending else {
        send_rest(reader, since_ns, answers).await?;
        return Ok(());
    };
    let mut ended = None;
    loop {
        // Known before the rest is read: what is read then is all there is.
        let last: Option<Result<ContainerView, Status>> = ended.take();
        if !send_rest(reader, since_ns, answers).await? {
            ending.abort();
            return Ok(());
        }
        if let Some(view) = last {
            let message = api::LogsResponse { entries: Vec::new(), exited: Some(exited(&view?)) };
            // Fails only when the client has left.
            let _ = answers.send(Ok(message)).await;
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(FOLLOW_INTERVAL) => {}
            view = &mut ending => ended = Some(match view {
                Ok(view) => view.wire(),
                Err(error) => {
                    Err(Status::internal(format!("unable to wait for the container: {error}")))
                }
            }),
            () = answers.closed() => {
                ending.abort();
                return Ok(());
            }
        }
    }
}

/// Sends what is written and not sent yet; false where the client has left.
async fn send_rest(
    reader: &mut Reader,
    since_ns: i64,
    answers: &mpsc::Sender<Answer>,
) -> Result<bool, Status> {
    loop {
        let entries = reader.next_entries(since_ns).await.wire()?;
        if entries.is_empty() {
            return Ok(true);
        }
        let message = api::LogsResponse { entries, exited: None };
        if answers.send(Ok(message)).await.is_err() {
            return Ok(false);
        }
    }
}
