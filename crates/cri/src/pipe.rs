//! Our ends of pipes, terminals and sockets, as streams of messages.

use std::os::fd::OwnedFd;

use bytes::Bytes;
use corten_base::limits::GRPC_CHUNK_BYTES;

use crate::end::End;

/// One of our ends of a process's streams, until it ends or is closed.
pub struct Pipe {
    end: Option<End>,
}

impl Pipe {
    /// A descriptor that cannot be waited for counts as closed.
    pub fn new(fd: Option<OwnedFd>) -> Self {
        let watch = |fd| {
            End::new(fd)
                .inspect_err(|error| tracing::warn!(%error, "unable to watch a stream"))
                .ok()
        };
        Self { end: fd.and_then(watch) }
    }

    /// It has not been closed, and not ended.
    pub fn open(&self) -> bool {
        self.end.is_some()
    }

    /// Closes it.
    pub fn close(&mut self) {
        self.end = None;
    }

    /// The next piece; none at the end, which also closes it.
    pub async fn read(&mut self) -> Option<Bytes> {
        let mut buffer = Vec::new();
        let end = self.end.as_ref()?;
        loop {
            let mut readable = end.readable().await.ok()?;
            // Not before there is something: who waits needs no buffer.
            buffer.resize(GRPC_CHUNK_BYTES, 0);
            match readable.read(end, &mut buffer) {
                Some(Ok(count)) if count > 0 => {
                    buffer.truncate(count);
                    return Some(Bytes::from(buffer));
                }
                Some(_) => {
                    self.close();
                    return None;
                }
                None => {}
            }
        }
    }

    /// A piece that is there already.
    pub fn read_now(&mut self) -> Option<Bytes> {
        let mut buffer = vec![0; GRPC_CHUNK_BYTES];
        let count = self.end.as_ref()?.read_now(&mut buffer).ok().filter(|count| *count > 0)?;
        buffer.truncate(count);
        Some(Bytes::from(buffer))
    }

    /// Writes all; a process that takes no more input ends the stream.
    pub async fn write(&mut self, bytes: &[u8]) {
        if let Some(end) = &self.end
            && end.write_all(bytes).await.is_err()
        {
            self.close();
        }
    }
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
