//! Archives on their way to a client, in pieces.

use std::io::{self, BufWriter, Write};

use bytes::Bytes;
use corten_base::limits::GRPC_CHUNK_BYTES;
use tokio::sync::mpsc;
use tonic::Status;

/// Pieces of an archive on their way to a client.
pub const CHUNKS_MAX: usize = 4;

/// Sends an archive in pieces, at the pace of the client. To be written to
/// from a thread that may wait.
pub struct Chunks<R> {
    answers: mpsc::Sender<Result<R, Status>>,
    message: fn(Bytes) -> R,
}

/// A writer of pieces, each in a message.
pub fn chunks<R>(
    answers: mpsc::Sender<Result<R, Status>>,
    message: fn(Bytes) -> R,
) -> BufWriter<Chunks<R>> {
    BufWriter::with_capacity(GRPC_CHUNK_BYTES, Chunks { answers, message })
}

impl<R> Write for Chunks<R> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for chunk in bytes.chunks(GRPC_CHUNK_BYTES) {
            let message = (self.message)(Bytes::copy_from_slice(chunk));
            self.answers.blocking_send(Ok(message)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
