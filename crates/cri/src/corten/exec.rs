//! Exec: the client's messages to the process's descriptors, and back.

use std::os::fd::OwnedFd;

use bytes::Bytes;
use corten_api::corten as api;
use corten_api::corten::exec_request::Event as Input;
use corten_api::corten::exec_response::Event as Output;
use corten_base::limits::GRPC_CHUNK_BYTES;
use corten_base::{ExecId, Namespace};
use corten_pods::{Engine, ExecRequest, ExecSession};
use rustix::fs::OFlags;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Answers, People};
use crate::status::{Wire, to_the_end};
use crate::translate::container::check_variable;
use crate::validate::refuse;

/// Pieces of output that wait for a slow client; then the process waits.
const PIECES_WAITING_MAX: usize = 4;

type Answer = Result<api::ExecResponse, Status>;

impl People {
    pub(super) async fn exec(
        &self,
        mut input: Streaming<api::ExecRequest>,
    ) -> Result<Answers<api::ExecResponse>, Status> {
        let first = input.message().await?.and_then(|message| message.event);
        let Some(Input::Start(start)) = first else {
            return Err(refuse("start", "it is the first message of an exec")).wire();
        };
        let (namespace, container) = self.find(&start.namespace, &start.container)?;
        let size = start.size;
        let request = request(start)?;
        let engine = self.engine.clone();
        let (space, id) = (namespace.clone(), container.id.to_string());
        let session = to_the_end(async move { engine.exec(&space, &id, request).await }).await?;
        let target = Target {
            engine: self.engine.clone(),
            namespace,
            container: container.id.to_string(),
            exec: session.exec,
        };
        if let Some(size) = size {
            target.resize(size).await?;
        }
        let (answers, stream) = mpsc::channel(PIECES_WAITING_MAX);
        tokio::spawn(run(session, target, input, answers));
        Ok(Box::pin(ReceiverStream::new(stream)))
    }
}

/// Which exec a session is, for resizes.
struct Target {
    engine: Engine,
    namespace: Namespace,
    container: String,
    exec: ExecId,
}

impl Target {
    async fn resize(&self, size: api::TerminalSize) -> Result<(), Status> {
        let cells = |field: &str, value: u32| {
            u16::try_from(value).map_err(|_| refuse(field, "no terminal is that large")).wire()
        };
        let (rows, columns) = (cells("rows", size.rows)?, cells("columns", size.columns)?);
        let exec = Some(self.exec);
        self.engine.resize(&self.namespace, &self.container, exec, rows, columns).await.wire()
    }
}

fn request(start: api::ExecStart) -> Result<ExecRequest, Status> {
    if start.command.is_empty() {
        return Err(refuse("command", "it is required")).wire();
    }
    let some = |text: String| (!text.is_empty()).then_some(text);
    let env = start
        .environment
        .into_iter()
        .map(|variable| {
            check_variable("environment", &variable.key, &variable.value)?;
            let value = String::from_utf8(variable.value.into())
                .map_err(|_| refuse("environment", "a value of an exec is UTF-8"))?;
            Ok((variable.key, value))
        })
        .collect::<corten_pods::Result<_>>()
        .wire()?;
    Ok(ExecRequest {
        command: start.command,
        terminal: start.tty,
        stdin: start.stdin,
        env,
        working_dir: some(start.working_dir),
        user: some(start.user),
    })
}

/// Moves bytes until the process has ended and what it wrote is through. When
/// the client leaves, the streams close and the process goes on without them.
async fn run(
    session: ExecSession,
    target: Target,
    input: Streaming<api::ExecRequest>,
    answers: mpsc::Sender<Answer>,
) {
    let ExecSession { stdin, stdout, stderr, mut exit, .. } = session;
    let feed = tokio::spawn(feed(input, stdin, target));
    let mut stdout = Pipe::new(stdout);
    let mut stderr = Pipe::new(stderr);
    let exit = loop {
        let piece = tokio::select! {
            exit = &mut exit => break exit,
            piece = stdout.read(), if stdout.open() => piece.map(Output::Stdout),
            piece = stderr.read(), if stderr.open() => piece.map(Output::Stderr),
            () = answers.closed() => {
                feed.abort();
                return;
            }
        };
        send(&answers, piece).await;
    };
    // What it wrote before its end is in the pipes now; a descendant that
    // keeps them open is not waited for.
    while let Some(piece) = stdout.read_now() {
        send(&answers, Some(Output::Stdout(piece))).await;
    }
    while let Some(piece) = stderr.read_now() {
        send(&answers, Some(Output::Stderr(piece))).await;
    }
    feed.abort();
    let last = match exit {
        Ok(exit) => Ok(api::ExecResponse {
            event: Some(Output::Exited(api::ExecExited { exit_code: exit.code })),
        }),
        Err(_) => Err(Status::unavailable(
            "unable to wait for the command: its pod's shim went away before it ended",
        )),
    };
    // Fails only when the client has left.
    let _ = answers.send(last).await;
}

async fn send(answers: &mpsc::Sender<Answer>, piece: Option<Output>) {
    if let Some(piece) = piece {
        // A client that has left is noticed by the caller.
        let _ = answers.send(Ok(api::ExecResponse { event: Some(piece) })).await;
    }
}

/// Carries the client's input until the client closes it or leaves.
async fn feed(mut input: Streaming<api::ExecRequest>, stdin: Option<OwnedFd>, target: Target) {
    let mut stdin = Pipe::new(stdin);
    while let Ok(Some(message)) = input.message().await {
        match message.event {
            Some(Input::Stdin(bytes)) => stdin.write(&bytes).await,
            Some(Input::StdinClosed(_)) => stdin.close(),
            Some(Input::Resize(size)) => {
                if let Err(error) = target.resize(size).await {
                    tracing::debug!(%error, "unable to resize the terminal of an exec");
                }
            }
            Some(Input::Start(_)) | None => {}
        }
    }
}

/// One of our ends of a process's streams: a pipe or a terminal.
struct Pipe {
    fd: Option<AsyncFd<OwnedFd>>,
}

impl Pipe {
    /// A descriptor that cannot be waited for counts as closed.
    fn new(fd: Option<OwnedFd>) -> Self {
        // The constructor is deprecated for types that may close their
        // descriptor early; the one in its place is unsafe, and OwnedFd is not
        // such a type.
        #[allow(deprecated)]
        let prepare = |fd: OwnedFd| {
            let flags = rustix::fs::fcntl_getfl(&fd)?;
            rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
            AsyncFd::new(fd)
        };
        let fd = fd.and_then(|fd| {
            prepare(fd)
                .inspect_err(|error| tracing::warn!(%error, "unable to watch a stream of an exec"))
                .ok()
        });
        Self { fd }
    }

    fn open(&self) -> bool {
        self.fd.is_some()
    }

    fn close(&mut self) {
        self.fd = None;
    }

    /// The next piece; none at the end, which also closes it.
    async fn read(&mut self) -> Option<Bytes> {
        loop {
            let mut ready = self.fd.as_ref()?.readable().await.ok()?;
            match ready.try_io(|fd| Ok(read(fd.get_ref())?)) {
                Ok(Ok(piece)) if !piece.is_empty() => return Some(piece),
                // A terminal says EIO when its last user is gone.
                Ok(Ok(_) | Err(_)) => {
                    drop(ready);
                    self.close();
                    return None;
                }
                Err(_would_block) => {}
            }
        }
    }

    /// A piece that is there already.
    fn read_now(&mut self) -> Option<Bytes> {
        read(self.fd.as_ref()?.get_ref()).ok().filter(|piece| !piece.is_empty())
    }

    /// Writes all; a process that takes no more input ends the stream.
    async fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Some(fd) = &self.fd else { return };
            let Ok(mut ready) = fd.writable().await else { return };
            match ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                Ok(Ok(count)) => bytes = &bytes[count..],
                Ok(Err(_)) => {
                    drop(ready);
                    return self.close();
                }
                Err(_would_block) => {}
            }
        }
    }
}

fn read(fd: &OwnedFd) -> rustix::io::Result<Bytes> {
    let mut buffer = vec![0; GRPC_CHUNK_BYTES];
    let count = rustix::io::read(fd, buffer.as_mut_slice())?;
    buffer.truncate(count);
    Ok(Bytes::from(buffer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pipe_carries_more_than_it_holds() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let sent: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        let expected = sent.clone();
        let writing = tokio::spawn(async move {
            let mut pipe = Pipe::new(Some(writer));
            pipe.write(&sent).await;
        });
        let mut pipe = Pipe::new(Some(reader));
        let mut received = Vec::new();
        while let Some(piece) = pipe.read().await {
            received.extend_from_slice(&piece);
        }
        writing.await.unwrap();
        assert!(received == expected && !pipe.open());
    }

    #[tokio::test]
    async fn input_to_nobody_is_dropped() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        drop(reader);
        let mut pipe = Pipe::new(Some(writer));
        pipe.write(b"hello").await;
        assert!(!pipe.open());
    }
}
