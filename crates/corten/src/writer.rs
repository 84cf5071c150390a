//! Our output.

use std::io::Write;

use bytes::Bytes;
use corten_api::corten::LogStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};

/// Pieces of output that wait for a slow reader of ours; then the daemon waits.
const PIECES_WAITING_MAX: usize = 16;

type Piece = (LogStream, Bytes);

/// Writes to stdout and stderr on a thread of its own, so that a reader who
/// does not read holds up the output, and nothing else.
pub struct Writer {
    pieces: mpsc::Sender<Piece>,
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

    /// Room for a piece; none where nobody reads any more.
    pub async fn room(&self) -> Option<mpsc::Permit<'_, Piece>> {
        self.pieces.reserve().await.ok()
    }

    /// Waits until all is written.
    pub async fn finish(self) -> Result<()> {
        drop(self.pieces);
        let written = self.thread.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        written.map_err(Error::io("write the output"))
    }
}

fn write_pieces(mut waiting: mpsc::Receiver<Piece>) -> std::io::Result<()> {
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
