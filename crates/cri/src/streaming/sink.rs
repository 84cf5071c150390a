//! A process's input: what it does not take at once waits, up to a limit;
//! then the client waits.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use corten_base::limits::STREAM_QUEUE_BYTES_MAX;
use tokio::sync::Notify;

use crate::end::End;

/// What the end of the input means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtEnd {
    /// Our end is closed.
    Close,
    /// A socket is told that no more comes.
    Shutdown,
}

/// A process's input. Bytes may come before there is a process.
#[derive(Default)]
pub struct Sink {
    state: Mutex<State>,
    /// Something came, or the pipe, or the end.
    work: Notify,
    /// Something was taken.
    room: Notify,
}

#[derive(Default)]
struct State {
    pipe: Option<(Arc<End>, AtEnd)>,
    queue: VecDeque<u8>,
    ended: bool,
    /// Nobody takes anything any more.
    closed: bool,
}

impl Sink {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where everything goes.
    pub fn connect(&self, pipe: Arc<End>, at_end: AtEnd) {
        let mut state = self.state();
        if !state.closed {
            state.pipe = Some((pipe, at_end));
        }
        drop(state);
        self.work.notify_one();
    }

    /// Nobody takes anything any more.
    pub fn close(&self) {
        *self.state() = State { closed: true, ..State::default() };
        self.work.notify_one();
        self.room.notify_one();
    }

    /// The client sends no more.
    pub fn end(&self) {
        self.state().ended = true;
        self.work.notify_one();
    }

    /// Whether more can be put.
    fn has_room(&self) -> bool {
        let state = self.state();
        state.closed || state.queue.len() < STREAM_QUEUE_BYTES_MAX
    }

    /// Waits until there is room.
    pub async fn room(&self) {
        while !self.has_room() {
            self.room.notified().await;
        }
    }

    /// Puts something where there is room; true if there is room for more.
    pub fn put(&self, bytes: &[u8]) -> bool {
        let mut state = self.state();
        if state.closed || state.ended || bytes.is_empty() {
            return true;
        }
        let mut rest = bytes;
        // The short way: what the process takes at once is never copied.
        if let Some((pipe, _)) = state.pipe.as_ref().filter(|_| state.queue.is_empty()) {
            while !rest.is_empty() {
                match pipe.write_now(rest) {
                    Ok(written) => rest = &rest[written..],
                    // A broken pipe is found by the one who drains.
                    Err(_) => break,
                }
            }
        }
        if rest.is_empty() {
            return true;
        }
        state.queue.extend(rest);
        let more = state.queue.len() < STREAM_QUEUE_BYTES_MAX;
        drop(state);
        self.work.notify_one();
        more
    }

    /// Gives the process what waits for it, until all of it is given and the
    /// client has ended; an error if it takes no more.
    pub async fn drain(&self) -> io::Result<()> {
        loop {
            let (pipe, at_end, idle) = {
                let state = self.state();
                if state.closed {
                    return Ok(());
                }
                match &state.pipe {
                    None => (None, AtEnd::Close, true),
                    Some((pipe, at_end)) => {
                        (Some(pipe.clone()), *at_end, state.queue.is_empty() && !state.ended)
                    }
                }
            };
            let Some(pipe) = pipe.filter(|_| !idle) else {
                self.work.notified().await;
                continue;
            };
            if self.state().queue.is_empty() {
                self.close();
                return match at_end {
                    AtEnd::Close => Ok(()),
                    AtEnd::Shutdown => pipe.shutdown(),
                };
            }
            let given = tokio::select! {
                given = self.give(&pipe) => given,
                // Perhaps it was closed, and what waits is of no use.
                () = self.work.notified() => continue,
            };
            if let Err(error) = given {
                self.close();
                return Err(error);
            }
            self.room.notify_one();
        }
    }

    /// Writes a part of what waits.
    async fn give(&self, pipe: &End) -> io::Result<()> {
        let mut ready = pipe.writable().await?;
        let mut state = self.state();
        let (front, _) = state.queue.as_slices();
        if let Some(written) = ready.write(pipe, front) {
            let written = written?;
            state.queue.drain(..written);
            if state.queue.is_empty() {
                state.queue = VecDeque::new();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (End, Arc<End>) {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        (End::new(reader).unwrap(), Arc::new(End::new(writer).unwrap()))
    }

    async fn everything(reader: &End) -> Vec<u8> {
        let (mut all, mut buffer) = (Vec::new(), [0; 5000]);
        loop {
            match reader.readable().await.unwrap().read(reader, &mut buffer) {
                Some(Ok(0)) => return all,
                Some(read) => all.extend_from_slice(&buffer[..read.unwrap()]),
                None => {}
            }
        }
    }

    #[tokio::test]
    async fn what_comes_early_and_too_fast_is_kept_in_order() {
        let (reader, writer) = pair();
        let sink = Sink::default();
        let sent: Vec<u8> = (0..2_000_000u32).map(|n| (n / 7) as u8).collect();
        let sending = async {
            for piece in sent.chunks(30_000) {
                if !sink.put(piece) {
                    sink.room().await;
                }
            }
            sink.end();
        };
        sink.put(b"early");
        let connecting = async {
            tokio::task::yield_now().await;
            sink.connect(writer, AtEnd::Close);
        };
        let ((), (), drained, received) =
            tokio::join!(sending, connecting, sink.drain(), everything(&reader));
        drained.unwrap();
        assert!(received.strip_prefix(b"early").is_some_and(|rest| rest == sent));
    }

    #[tokio::test]
    async fn a_full_sink_waits_and_a_closed_one_does_not() {
        let (_reader, writer) = pair();
        let sink = Sink::default();
        sink.connect(writer, AtEnd::Close);
        while sink.put(&[0; 65_536]) {}
        assert!(!sink.has_room());
        let closing = async {
            tokio::task::yield_now().await;
            sink.close();
        };
        // Both the one who waits for room and the one who drains are let go.
        let ((), drained, ()) = tokio::join!(sink.room(), sink.drain(), closing);
        drained.unwrap();
        assert!(sink.put(b"to nobody"));
    }

    #[tokio::test]
    async fn a_process_that_takes_no_more_is_told_of() {
        let (reader, writer) = pair();
        let sink = Sink::default();
        sink.connect(writer, AtEnd::Close);
        drop(reader);
        sink.put(b"hello");
        assert!(sink.drain().await.is_err());
    }
}
