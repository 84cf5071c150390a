//! Our ends of pipes, terminals and sockets, as asynchronous streams.

use std::os::fd::OwnedFd;

use bytes::Bytes;
use corten_base::limits::GRPC_CHUNK_BYTES;
use rustix::fs::OFlags;
use tokio::io::unix::AsyncFd;

/// One of our ends of a process's streams: a pipe or a terminal.
pub struct Pipe {
    fd: Option<AsyncFd<OwnedFd>>,
}

impl Pipe {
    /// A descriptor that cannot be waited for counts as closed.
    pub fn new(fd: Option<OwnedFd>) -> Self {
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
            prepare(fd).inspect_err(|error| tracing::warn!(%error, "unable to watch a stream")).ok()
        });
        Self { fd }
    }

    /// It has not been closed, and not ended.
    pub fn open(&self) -> bool {
        self.fd.is_some()
    }

    /// Closes it.
    pub fn close(&mut self) {
        self.fd = None;
    }

    /// The next piece; none at the end, which also closes it.
    pub async fn read(&mut self) -> Option<Bytes> {
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
    pub fn read_now(&mut self) -> Option<Bytes> {
        read(self.fd.as_ref()?.get_ref()).ok().filter(|piece| !piece.is_empty())
    }

    /// Writes all; a process that takes no more input ends the stream.
    pub async fn write(&mut self, mut bytes: &[u8]) {
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
