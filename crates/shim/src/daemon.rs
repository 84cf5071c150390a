//! The connection to the daemon, while there is one.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use corten_base::limits::{FRAME_BYTES_MAX, FRAME_FDS_MAX, SHIM_MESSAGES_MAX};
use corten_kernel::{Errno, fdpass};
use corten_protocol::frame::FromShim;

/// Which connection: a reply is worth nothing to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// Number of the connection.
    pub connection: u32,
    /// Number of the request on it.
    pub request: u32,
}

/// A connection. Messages that the daemon is too slow for wait here.
pub struct Daemon {
    socket: OwnedFd,
    number: u32,
    waiting: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
}

/// The connection is of no more use.
#[derive(Debug)]
pub struct Gone;

impl Daemon {
    /// A connection just accepted, with a number that no other one had.
    pub fn new(socket: OwnedFd, number: u32) -> Self {
        Self { socket, number, waiting: VecDeque::new() }
    }

    /// The socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Messages wait for the socket to become writable.
    pub fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Sends a message, now or as soon as the daemon reads.
    pub fn send(&mut self, message: &FromShim, fds: Vec<OwnedFd>) -> Result<(), Gone> {
        if self.waiting.len() >= SHIM_MESSAGES_MAX {
            return Err(Gone);
        }
        self.waiting.push_back((message.encode(), fds));
        self.flush()
    }

    /// Sends what waits, as far as the daemon takes it.
    pub fn flush(&mut self) -> Result<(), Gone> {
        while let Some((frame, fds)) = self.waiting.front() {
            let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            match fdpass::send(self.socket.as_fd(), frame, &borrowed) {
                Ok(()) => drop(self.waiting.pop_front()),
                Err(Errno::AGAIN) => return Ok(()),
                Err(_) => return Err(Gone),
            }
        }
        self.waiting.shrink_to(16);
        Ok(())
    }

    /// The next frame, if there is one: its length in `buffer`, and its
    /// descriptors. A frame that is too large is passed over.
    pub fn receive(
        &self,
        buffer: &mut [u8; FRAME_BYTES_MAX],
    ) -> Result<Option<(usize, Vec<OwnedFd>)>, Gone> {
        let mut fds = Vec::new();
        loop {
            match fdpass::recv(self.socket.as_fd(), buffer, &mut fds, FRAME_FDS_MAX) {
                Ok(0) => return Err(Gone),
                Ok(length) => return Ok(Some((length, fds))),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::MSGSIZE) => {}
                Err(_) => return Err(Gone),
            }
        }
    }
}
