//! The bytes of a session, with an exec or with a container: the client's
//! messages to our ends of its streams, and back.

use std::os::fd::OwnedFd;
use std::time::Duration;

use corten_api::corten as api;
use corten_api::corten::session_input::Event as Said;
use corten_api::corten::session_output::Event as Piece;
use corten_base::{ExecId, Namespace};
use corten_pods::{Engine, Exit, Fate};
use tokio::sync::{mpsc, oneshot};
use tonic::{Status, Streaming};

use crate::pipe::Pipe;
use crate::status::Wire;
use crate::validate::refuse;

/// Pieces of output that wait for a slow client; then its source waits.
pub const PIECES_WAITING_MAX: usize = 4;
/// How long the next piece of what a process has left may take.
const REST_PATIENCE: Duration = Duration::from_secs(2);

/// Whose terminal is resized.
pub struct Target {
    pub engine: Engine,
    pub namespace: Namespace,
    pub container: String,
    /// The exec; none for the container's own.
    pub exec: Option<ExecId>,
}

impl Target {
    /// Changes the size.
    pub async fn resize(&self, size: api::TerminalSize) -> Result<(), Status> {
        let (rows, columns) = cells(size)?;
        self.engine.resize(&self.namespace, &self.container, self.exec, rows, columns).await.wire()
    }
}

impl Target {
    /// Ends the input of an exec; that of a container ends with its pipe.
    async fn close_stdin(&self) {
        let Some(exec) = self.exec else { return };
        let closed = self.engine.close_stdin(&self.namespace, &self.container, exec).await;
        if let Err(error) = closed {
            tracing::debug!(%error, "unable to end the input of an exec");
        }
    }
}

/// Rows and columns.
pub fn cells(size: api::TerminalSize) -> Result<(u16, u16), Status> {
    let cells = |field: &str, value: u32| {
        u16::try_from(value).map_err(|_| refuse(field, "no terminal is that large")).wire()
    };
    Ok((cells("rows", size.rows)?, cells("columns", size.columns)?))
}

/// Carries the client's input until the client closes it or leaves.
pub async fn feed<M>(
    mut input: Streaming<M>,
    stdin: Option<OwnedFd>,
    target: Target,
    input_of: fn(M) -> Option<api::SessionInput>,
) {
    let mut stdin = Pipe::new(stdin);
    while let Ok(Some(message)) = input.message().await {
        match input_of(message).and_then(|input| input.event) {
            Some(Said::Stdin(bytes)) => stdin.write(&bytes).await,
            Some(Said::StdinClosed(_)) => {
                stdin.close();
                target.close_stdin().await;
            }
            Some(Said::Resize(size)) => {
                if let Err(error) = target.resize(size).await {
                    tracing::debug!(%error, "unable to resize a terminal");
                }
            }
            None => {}
        }
    }
    // A client that has left says nothing more either.
    stdin.close();
    target.close_stdin().await;
}

/// When the last output has been said.
pub enum Last {
    /// At the end of the process it is in the pipes. A descendant that keeps
    /// these open is not waited for.
    InThePipes,
    /// At the end of the pipes, which come from who looks after the process,
    /// and ends them too when the client is too slow.
    EndOfPipes(Fate),
}

/// Output, and where it goes to.
pub struct Output<'a, R> {
    pub stdout: Pipe,
    pub stderr: Pipe,
    pub answers: &'a mpsc::Sender<Result<R, Status>>,
    pub answer: fn(api::SessionOutput) -> R,
}

/// How a session ended.
pub enum End {
    /// The process has ended, or nobody will ever know.
    Process(Result<Exit, oneshot::error::RecvError>),
    /// The client has missed output, and gets no more.
    TooSlow,
    /// The client has left.
    Client,
}

impl Last {
    fn too_slow(&self) -> bool {
        match self {
            Self::InThePipes => false,
            Self::EndOfPipes(fate) => fate.too_slow(),
        }
    }
}

impl<R> Output<'_, R> {
    /// Moves output until its process has ended and all of it is through, or
    /// the client hears no more. A process that has closed its output, or had
    /// none, is waited for.
    pub async fn pump(&mut self, exit: &mut oneshot::Receiver<Exit>, last: Last) -> End {
        let exit = loop {
            if !self.is_open() && last.too_slow() {
                return End::TooSlow;
            }
            tokio::select! {
                exit = &mut *exit => break exit,
                piece = self.stdout.read(), if self.stdout.open() => {
                    self.send(piece.map(Piece::Stdout)).await;
                }
                piece = self.stderr.read(), if self.stderr.open() => {
                    self.send(piece.map(Piece::Stderr)).await;
                }
                () = self.answers.closed() => return End::Client,
            }
        };
        match last {
            Last::InThePipes => self.what_is_there().await,
            Last::EndOfPipes(_) => self.rest().await,
        }
        if last.too_slow() { End::TooSlow } else { End::Process(exit) }
    }

    fn is_open(&self) -> bool {
        self.stdout.open() || self.stderr.open()
    }

    async fn what_is_there(&mut self) {
        while let Some(piece) = self.stdout.read_now() {
            self.send(Some(Piece::Stdout(piece))).await;
        }
        while let Some(piece) = self.stderr.read_now() {
            self.send(Some(Piece::Stderr(piece))).await;
        }
    }

    /// Reads to the end of both, which comes unless nobody is there any more.
    async fn rest(&mut self) {
        while self.is_open() && !self.answers.is_closed() {
            let piece = async {
                tokio::select! {
                    piece = self.stdout.read(), if self.stdout.open() => piece.map(Piece::Stdout),
                    piece = self.stderr.read(), if self.stderr.open() => piece.map(Piece::Stderr),
                }
            };
            let Ok(piece) = tokio::time::timeout(REST_PATIENCE, piece).await else { return };
            self.send(piece).await;
        }
    }

    /// A client that has left is noticed by the caller.
    async fn send(&self, piece: Option<Piece>) {
        if piece.is_some() {
            let output = api::SessionOutput { event: piece };
            let _ = self.answers.send(Ok((self.answer)(output))).await;
        }
    }
}
