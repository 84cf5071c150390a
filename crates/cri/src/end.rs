//! One of our ends of a process's streams, watched by the async runtime; the
//! caller brings the buffer.

use std::io;
use std::os::fd::OwnedFd;

use corten_kernel::stream;
use rustix::fs::OFlags;
use rustix::net::Shutdown;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

/// Bytes that a pipe holds at most, by default of the kernel (`pipe-max-size`).
pub const PIPE_BYTES_MAX: usize = 1 << 20;

/// One of our ends of a process's streams: a pipe, a terminal, a socket.
pub struct End(AsyncFd<OwnedFd>);

impl End {
    /// Watches a descriptor, which becomes non-blocking.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        if !flags.contains(OFlags::NONBLOCK) {
            rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        }
        // The constructor is deprecated for types that may close their
        // descriptor early; the one in its place is unsafe, and OwnedFd is not
        // such a type.
        #[allow(deprecated)]
        AsyncFd::new(fd).map(Self)
    }

    /// Waits until there is something to read, or an end. Nothing is read yet:
    /// whoever waits needs no buffer.
    pub async fn readable(&self) -> io::Result<Readable<'_>> {
        Ok(Readable(self.0.readable().await?))
    }

    /// Reads what is there: 0 bytes at the end, `WouldBlock` without any.
    pub fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(stream::read_some(self.0.get_ref(), buffer)?)
    }

    /// Writes what is taken at once; `WouldBlock` if that is nothing.
    pub fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(self.0.get_ref(), bytes)?)
    }

    /// Waits until something would be taken.
    pub async fn writable(&self) -> io::Result<Writable<'_>> {
        Ok(Writable(self.0.writable().await?))
    }

    /// Writes everything.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if let Some(written) = self.writable().await?.write(self, bytes) {
                bytes = &bytes[written?..];
            }
        }
        Ok(())
    }

    /// Tells the other end of a socket that no more will come.
    pub fn shutdown(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(self.0.get_ref(), Shutdown::Write)?)
    }
}

/// There may be something to read.
pub struct Readable<'a>(AsyncFdReadyGuard<'a, OwnedFd>);

impl Readable<'_> {
    /// Reads from the pipe that this was got from: 0 bytes at the end. None if
    /// there is nothing after all; then it is to be waited for anew.
    pub fn read(&mut self, end: &End, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        self.0.try_io(|_| end.read_now(buffer)).ok()
    }
}

/// Something would be taken.
pub struct Writable<'a>(AsyncFdReadyGuard<'a, OwnedFd>);

impl Writable<'_> {
    /// Writes to the pipe that this was got from. None if nothing is taken
    /// after all; then it is to be waited for anew.
    pub fn write(&mut self, end: &End, bytes: &[u8]) -> Option<io::Result<usize>> {
        self.0.try_io(|_| end.write_now(bytes)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (End, End) {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        (End::new(reader).unwrap(), End::new(writer).unwrap())
    }

    #[tokio::test]
    async fn a_pipe_carries_more_than_it_holds() {
        let (reader, writer) = pair();
        let sent: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        let expected = sent.clone();
        let writing = tokio::spawn(async move { writer.write_all(&sent).await });
        let (mut received, mut buffer) = (Vec::new(), [0; 1000]);
        loop {
            match reader.readable().await.unwrap().read(&reader, &mut buffer) {
                Some(Ok(0)) => break,
                Some(length) => received.extend_from_slice(&buffer[..length.unwrap()]),
                None => {}
            }
        }
        writing.await.unwrap().unwrap();
        assert!(received == expected);
    }

    #[tokio::test]
    async fn input_to_nobody_is_an_error() {
        let (reader, writer) = pair();
        drop(reader);
        assert!(writer.write_all(b"hello").await.is_err());
    }
}
