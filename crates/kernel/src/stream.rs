//! Pipes and terminals as a monitor needs them: reading without blocking,
//! into memory that is there, without zeroing it first.

use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::termios::Winsize;

use crate::{Context, Result};

/// A pipe: its reading and its writing end, both close-on-exec.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).context("make", || "a pipe")
}

/// Reads and writes through this descriptor (and all its duplicates) fail with
/// `EAGAIN` from now on, instead of waiting.
pub fn set_nonblocking(fd: impl AsFd) -> Result<()> {
    let set = || {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)
    };
    set().context("change", || "a stream to non-blocking")
}

/// How many bytes are there to be read.
pub fn waiting(fd: impl AsFd) -> std::result::Result<usize, Errno> {
    rustix::io::ioctl_fionread(&fd).map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// Reads once, into what `buffer` has room for without growing: how many
/// bytes, 0 at the end.
pub fn read_into(fd: impl AsFd, buffer: &mut Vec<u8>) -> std::result::Result<usize, Errno> {
    to_the_end(|| rustix::io::read(&fd, spare_capacity(buffer)))
}

/// Reads once, into `buffer`: how many bytes, 0 at the end.
pub fn read_some(fd: impl AsFd, buffer: &mut [u8]) -> std::result::Result<usize, Errno> {
    to_the_end(|| rustix::io::read(&fd, &mut *buffer))
}

/// One read. The end of a terminal is one like any other.
///
/// A terminal says EIO when its last user is gone, and the kernel looks for
/// bytes first and for users second: what was written between the two looks
/// is still there when EIO comes. Only the second EIO in a row is the end.
fn to_the_end(
    mut read: impl FnMut() -> std::result::Result<usize, Errno>,
) -> std::result::Result<usize, Errno> {
    let mut left = false;
    loop {
        match read() {
            Err(Errno::INTR) => {}
            Err(Errno::IO) if !left => left = true,
            Err(Errno::IO) => return Ok(0),
            other => return other,
        }
    }
}

/// Writes once: how many bytes were taken.
pub fn write_some(fd: impl AsFd, bytes: &[u8]) -> std::result::Result<usize, Errno> {
    loop {
        match rustix::io::write(&fd, bytes) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Waits until `fd` takes more bytes (or says why not).
pub fn wait_writable(fd: impl AsFd) {
    let mut fds = [PollFd::new(&fd, PollFlags::OUT)];
    // An interrupted wait is as good as a short one: the caller tries again.
    let _ = rustix::event::poll(&mut fds, None);
}

/// Tells a terminal (by its master) how large its window is.
pub fn resize_terminal(
    master: impl AsFd,
    rows: u16,
    columns: u16,
) -> std::result::Result<(), Errno> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(master, size)
}

/// Where `byte` first is in `bytes`.
pub fn find(byte: u8, bytes: &[u8]) -> Option<usize> {
    // SAFETY: memchr reads at most `bytes.len()` bytes from the slice's start.
    let found = unsafe { libc::memchr(bytes.as_ptr().cast(), byte.into(), bytes.len()) };
    // A found byte lies within the slice, so the difference is its index.
    (!found.is_null()).then(|| found as usize - bytes.as_ptr() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_stops_where_the_room_ends() {
        let (read, write) = pipe().unwrap();
        set_nonblocking(&read).unwrap();
        let mut buffer = Vec::with_capacity(16);
        let room = buffer.capacity();
        assert_eq!(read_into(&read, &mut buffer), Err(Errno::AGAIN));
        rustix::io::write(&write, &vec![7; room + 5]).unwrap();
        assert_eq!(read_into(&read, &mut buffer), Ok(room));
        buffer.clear();
        assert_eq!(read_into(&read, &mut buffer), Ok(5));
        drop(write);
        assert_eq!(read_into(&read, &mut buffer), Ok(0));
    }

    #[test]
    fn the_last_words_of_a_terminal_are_heard() {
        let mut answers =
            [Err(Errno::IO), Err(Errno::INTR), Ok(7), Err(Errno::IO), Err(Errno::IO)].into_iter();
        let mut read = || answers.next().unwrap();
        assert_eq!(to_the_end(&mut read), Ok(7));
        assert_eq!(to_the_end(&mut read), Ok(0));
    }

    #[test]
    fn bytes_are_found() {
        assert_eq!(find(b'c', b"abcabc"), Some(2));
        assert_eq!(find(b'x', b"abcabc"), None);
        assert_eq!(find(b'x', b""), None);
    }
}
