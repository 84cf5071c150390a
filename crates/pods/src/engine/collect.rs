//! What a command writes until it ends.

use std::os::fd::{AsFd, OwnedFd};

use corten_base::limits::EXEC_OUTPUT_BYTES_MAX;
use corten_kernel::stream::read_some;
use corten_protocol::frame::Exit;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use crate::error::{Error, Result};
use crate::watch::watch;

/// Bytes read from a stream at once.
const READ_BYTES: usize = 64 << 10;
/// Bytes read at once after the end of a command: mostly there are few.
const DRAIN_BYTES: usize = 4 << 10;
/// Bytes that a pipe holds at most, by default of the kernel (`pipe-max-size`).
const PIPE_BYTES_MAX: usize = 1 << 20;

/// The end of a command, told by its shim, or that it is gone.
type End = std::result::Result<Exit, oneshot::error::RecvError>;

/// Waits for the end of a command, and takes what it has written to stdout and
/// stderr, of each as much as is kept.
pub(super) async fn collect(
    pipes: [Option<OwnedFd>; 2],
    exit: &mut oneshot::Receiver<Exit>,
) -> Result<(End, [Vec<u8>; 2])> {
    let [stdout, stderr] = pipes;
    let (mut stdout, mut stderr) = (Collector::new(stdout)?, Collector::new(stderr)?);
    let end = loop {
        tokio::select! {
            end = &mut *exit => break end,
            more = stdout.read(), if stdout.open() => more?,
            more = stderr.read(), if stderr.open() => more?,
        }
    };
    // What it wrote before its end is in the pipes now; what a descendant
    // that holds them may still write is not waited for.
    stdout.drain();
    stderr.drain();
    Ok((end, [stdout.kept, stderr.kept]))
}

/// Collects one output stream up to the cap; the rest is read and dropped, so
/// that the writer is not stopped by it.
struct Collector {
    pipe: Pipe,
    kept: Vec<u8>,
}

/// Our end of an output stream, as it is being read.
enum Pipe {
    Open(AsyncFd<OwnedFd>, Box<[u8]>),
    Ended,
}

impl Collector {
    fn new(pipe: Option<OwnedFd>) -> Result<Self> {
        let pipe = match pipe {
            Some(pipe) => {
                rustix::io::ioctl_fionbio(&pipe, true).map_err(|errno| {
                    Error::internal(format!("unable to read an exec's output: {errno}"))
                })?;
                Pipe::Open(watch(pipe, "an exec's output")?, vec![0; READ_BYTES].into())
            }
            None => Pipe::Ended,
        };
        Ok(Self { pipe, kept: Vec::new() })
    }

    fn open(&self) -> bool {
        !matches!(self.pipe, Pipe::Ended)
    }

    async fn read(&mut self) -> Result<()> {
        let Pipe::Open(pipe, buffer) = &mut self.pipe else { return Ok(()) };
        let mut ready = pipe.readable().await.map_err(|error| {
            Error::internal(format!("unable to read an exec's output: {error}"))
        })?;
        match ready.try_io(|pipe| Ok(read_some(pipe.get_ref(), buffer)?)) {
            Ok(Ok(length)) if length > 0 => keep(&mut self.kept, &buffer[..length]),
            Ok(Ok(_) | Err(_)) => self.pipe = Pipe::Ended,
            Err(_would_block) => {}
        }
        Ok(())
    }

    /// Takes what is there now. A descendant that goes on writing could fill
    /// the pipe as fast as it is read: no more is taken than a pipe holds.
    fn drain(&mut self) {
        let pipe = match &self.pipe {
            Pipe::Open(pipe, _) => pipe.get_ref().as_fd(),
            Pipe::Ended => return,
        };
        let mut buffer = [0; DRAIN_BYTES];
        let mut left = PIPE_BYTES_MAX;
        while left > 0 {
            match read_some(pipe, &mut buffer) {
                Ok(length) if length > 0 => {
                    left = left.saturating_sub(length);
                    keep(&mut self.kept, &buffer[..length]);
                }
                Ok(_) | Err(_) => return,
            }
        }
    }
}

fn keep(kept: &mut Vec<u8>, bytes: &[u8]) {
    let room = EXEC_OUTPUT_BYTES_MAX - kept.len();
    kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
}
