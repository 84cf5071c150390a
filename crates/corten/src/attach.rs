//! A container in the foreground: its output to ours, our Ctrl-C to it, its
//! exit code for us.

use std::io::Write;

use bytes::Bytes;
use corten_api::corten::{
    KillContainerRequest, LogEntry, LogStream, LogsRequest, LogsResponse, StopContainerRequest,
    WaitContainerResponse,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::Streaming;

use crate::client::Daemon;
use crate::error::{Doing, Error, Result};

/// Pieces of output that wait for a slow reader of ours; then the daemon waits.
const PIECES_WAITING_MAX: usize = 16;

/// Writes to stdout and stderr on a thread of its own, so that a reader who
/// does not read holds up the output, and nothing else.
pub struct Writer {
    pieces: mpsc::Sender<(LogStream, Bytes)>,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Writer {
    /// Starts the thread.
    pub fn start() -> Self {
        let (pieces, waiting) = mpsc::channel(PIECES_WAITING_MAX);
        Self { pieces, thread: tokio::task::spawn_blocking(move || write_pieces(waiting)) }
    }

    /// Writes a piece when its turn comes; false where nobody reads any more.
    pub async fn write(&self, to: LogStream, piece: Bytes) -> bool {
        self.pieces.send((to, piece)).await.is_ok()
    }

    /// Waits until all is written.
    pub async fn finish(self) -> Result<()> {
        drop(self.pieces);
        let written = self.thread.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        written.map_err(Error::io("write the output"))
    }
}

fn write_pieces(mut waiting: mpsc::Receiver<(LogStream, Bytes)>) -> std::io::Result<()> {
    let (mut stdout, mut stderr) = (std::io::stdout(), std::io::stderr());
    while let Some((to, piece)) = waiting.blocking_recv() {
        let out: &mut dyn Write = match to {
            LogStream::Stderr => &mut stderr,
            LogStream::Stdout | LogStream::Unspecified => &mut stdout,
        };
        out.write_all(&piece)?;
        out.flush()?;
    }
    Ok(())
}

/// Ctrl-C and what systemd sends, from now on ours to act upon.
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// Takes the signals.
    pub fn take() -> Result<Self> {
        let take = |kind| signal(kind).map_err(Error::io("take care of signals"));
        Ok(Self {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Asks for a container's output from its beginning until its end. When this
/// returns, nothing is missed any more.
pub async fn output_of(daemon: &Daemon, container: &str) -> Result<Streaming<LogsResponse>> {
    let request = LogsRequest {
        namespace: daemon.space(),
        container: container.to_owned(),
        follow: true,
        tail: None,
        since_ns: 0,
    };
    let answer = daemon.calls().logs(request).await;
    Ok(answer.doing(format_args!("follow {container}"))?.into_inner())
}

/// Copies the output until the container has ended. The first Ctrl-C stops it,
/// the second kills it.
pub async fn until_ended(
    daemon: &Daemon,
    container: &str,
    output: Streaming<LogsResponse>,
    interrupts: &mut Interrupts,
) -> Result<WaitContainerResponse> {
    let writer = Writer::start();
    let mut reader_left = false;
    let mut ending: Option<JoinHandle<()>> = None;
    let ended = {
        let (left, mut leaving) = tokio::sync::oneshot::channel();
        let mut copy = std::pin::pin!(copy(container, output, &writer, left));
        loop {
            tokio::select! {
                ended = &mut copy => break ended,
                () = interrupts.next() => match &ending {
                    None => {
                        eprintln!("corten: stopping {container}; Ctrl-C again kills it");
                        ending = Some(tokio::spawn(stop(daemon.clone(), container.to_owned())));
                    }
                    Some(_) => {
                        ending = Some(tokio::spawn(kill(daemon.clone(), container.to_owned())));
                    }
                },
                // As a program of a pipeline would end: nobody reads it.
                _ = &mut leaving, if !reader_left => {
                    reader_left = true;
                    if ending.is_none() {
                        ending = Some(tokio::spawn(stop(daemon.clone(), container.to_owned())));
                    }
                }
            }
        }
    };
    let written = writer.finish().await;
    let ended = ended?;
    match written {
        Err(error) if !error.broken_pipe() => Err(error),
        _ => Ok(ended),
    }
}

async fn copy(
    container: &str,
    mut output: Streaming<LogsResponse>,
    writer: &Writer,
    left: tokio::sync::oneshot::Sender<()>,
) -> Result<WaitContainerResponse> {
    let mut left = Some(left);
    loop {
        let message = output.message().await.doing(format_args!("follow {container}"))?;
        let Some(message) = message else {
            return Err(Error::Input(format!(
                "unable to follow {container}: the daemon went away; the container goes on \
                 without it, and 'corten logs -f {container}' follows it again"
            )));
        };
        for LogEntry { stream, content, .. } in message.entries {
            let to = LogStream::try_from(stream).unwrap_or(LogStream::Stdout);
            if left.is_some() && !writer.write(to, content).await {
                left.take().map(|left| left.send(()));
            }
        }
        if let Some(ended) = message.exited {
            return Ok(ended);
        }
    }
}

// What fails here is seen by the container going on: another Ctrl-C tries again.

async fn stop(daemon: Daemon, container: String) {
    let request =
        StopContainerRequest { namespace: daemon.space(), container, grace_seconds: None };
    if let Err(error) = daemon.calls().stop_container(request).await.doing("stop it") {
        tell(&error);
    }
}

async fn kill(daemon: Daemon, container: String) {
    let request =
        KillContainerRequest { namespace: daemon.space(), container, signal: String::new() };
    if let Err(error) = daemon.calls().kill_container(request).await.doing("kill it") {
        tell(&error);
    }
}

/// A container that is gone was to go.
fn tell(error: &Error) {
    if error.code() != Some(tonic::Code::NotFound) {
        error.tell();
    }
}

/// An exit code as ours.
pub fn exit_code(code: i32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}
