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
