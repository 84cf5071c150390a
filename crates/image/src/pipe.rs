//! Between the async socket and the blocking unpacker: a bounded pipe, and
//! the inflation at its end.

use std::io::{self, BufRead, Read};

use bytes::{Buf, Bytes};
use corten_base::limits::ZSTD_WINDOW_LOG_MAX;
use tokio::sync::mpsc;

use crate::error::{PullError, PullErrorKind};

/// Pieces in flight: with hyper's buffers, a few megabytes per layer.
const PIECES_MAX: usize = 16;
/// What goes through the pipe. An end without [`Piece::End`] is an error, so
/// that a cancelled fetch is never taken for a short layer.
pub(crate) enum Piece {
    Data(Bytes),
    End,
}

pub(crate) fn pipe() -> (mpsc::Sender<Piece>, PipeReader) {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    (sender, PipeReader { receiver, current: Bytes::new(), ended: false })
}

/// The blocking end.
pub(crate) struct PipeReader {
    receiver: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

impl PipeReader {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.ended {
            return Ok(None);
        }
        match self.receiver.blocking_recv() {
            Some(Piece::Data(bytes)) => Ok(Some(bytes)),
            Some(Piece::End) => {
                self.ended = true;
                Ok(None)
            }
            None => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the fetch was given up")),
        }
    }

    /// Waits for the first bytes, enough to tell how the layer is compressed.
    fn peek(&mut self) -> io::Result<&[u8]> {
        while self.current.len() < 4 {
            let Some(more) = self.next()? else { break };
            self.current = [&self.current[..], &more[..]].concat().into();
        }
        Ok(&self.current)
    }

    /// The bytes inflated, by what they are and not by what they are called.
    pub(crate) fn inflate(&mut self) -> io::Result<Box<dyn Read + '_>> {
        match Packed::of(self.peek()?) {
            Some(packed) => packed.decoder(self),
            None => Ok(Box::new(self)),
        }
    }

    /// Reads what is left, so that the sender's last checks are heard.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        while self.next()?.is_some() {}
        Ok(())
    }
}

impl BufRead for PipeReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() {
            match self.next()? {
                Some(bytes) => self.current = bytes,
                None => break,
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, amount: usize) {
        self.current.advance(amount);
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let from = self.fill_buf()?;
        let count = from.len().min(buffer.len());
        buffer[..count].copy_from_slice(&from[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// Bytes inflated, by what they are; those that are not compressed as they are.
pub(crate) fn inflate<'a>(mut reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut head = Vec::new();
    reader.by_ref().take(4).read_to_end(&mut head)?;
    let packed = Packed::of(&head);
    let whole = Read::chain(io::Cursor::new(head), reader);
    match packed {
        Some(packed) => packed.decoder(io::BufReader::with_capacity(128 << 10, whole)),
        None => Ok(Box::new(whole)),
    }
}

/// What is wrong where bytes come from.
pub(crate) fn source_failed(error: io::Error) -> PullError {
    match error.kind() {
        io::ErrorKind::ConnectionAborted => {
            PullError::new(PullErrorKind::Cancelled, "it was given up")
        }
        _ => PullError::invalid(format!("unable to inflate: {error}")),
    }
}

/// How bytes are compressed.
enum Packed {
    Gzip,
    Zstd,
}

impl Packed {
    fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    fn decoder<'a>(self, reader: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
        match self {
            Self::Gzip => Ok(Box::new(flate2::bufread::MultiGzDecoder::new(reader))),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Ok(Box::new(decoder))
            }
        }
    }
}
