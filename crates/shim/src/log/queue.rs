//! What the control thread has for the log thread.
//!
//! Two buffers of a fixed size: the control thread reads streams into one
//! while the log thread writes the other out, and then they change places. The
//! lock is held for a non-blocking read or for the change, never for a write,
//! so that a hung log disk cannot hold up the control thread: it finds no room
//! and leaves the streams alone until it is told that there is some.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use corten_base::limits::LOG_QUEUE_BYTES_MAX;
use corten_kernel::event::Waker;
use corten_kernel::{Errno, Result, process, stream};

/// Pieces of output in one buffer at most, however short they are.
const PIECES_MAX: usize = 1024;
/// Less room than this is not worth a read.
const ROOM_MIN: usize = 4096;
/// A buffer that was filled further than this is given back when there is
/// nothing to do, so that an idle shim stays as small as a new one.
const KEPT_BYTES: usize = 4096;

/// Which log: the number of the container in this shim.
pub type LogId = u32;

/// Which of a container's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// stdout, and all output of a terminal.
    Out,
    /// stderr
    Error,
}

/// One thing for the log thread to do. Done in order.
#[derive(Debug)]
pub enum Task {
    /// Write the next `length` bytes of the batch.
    Data {
        /// Whose.
        log: LogId,
        /// From which stream.
        stream: Stream,
        /// When they were read, nanoseconds since 1970.
        at_ns: i64,
        /// How many.
        length: usize,
    },
    /// Write to this file from now on.
    Open {
        /// Whose.
        log: LogId,
        /// The file, open for appending.
        file: File,
    },
    /// Nothing more will come from this stream: an unfinished line is finished.
    End {
        /// Whose.
        log: LogId,
        /// Which.
        stream: Stream,
    },
    /// Say [`News::Written`] when everything before this is written.
    Mark {
        /// Whose.
        log: LogId,
    },
    /// Close the file.
    Close {
        /// Whose.
        log: LogId,
    },
}

/// What the log thread has to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// A mark was reached.
    Written(LogId),
    /// The log cannot be written; told once until it can be again.
    Broken(LogId, i32),
}

/// What came of reading a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// This many bytes were taken.
    Taken(usize),
    /// There is nothing at the moment.
    Nothing,
    /// The stream has ended.
    End,
    /// There is no room; the waker will say when there is.
    NoRoom,
}

/// Tasks and the bytes that belong to them.
#[derive(Debug, Default)]
pub struct Batch {
    /// In order.
    pub tasks: Vec<Task>,
    /// The bytes of the `Data` tasks, one after the other.
    pub data: Vec<u8>,
}

impl Batch {
    fn give_back(&mut self) {
        if self.data.len() > KEPT_BYTES {
            self.data = Vec::new();
        }
        self.data.clear();
        self.tasks.clear();
    }
}

#[derive(Default)]
struct Pending {
    batch: Batch,
    news: Vec<News>,
    /// The control thread found no room.
    room_wanted: bool,
    /// No more will come.
    closed: bool,
}

/// Shared by both threads.
pub struct Queue {
    pending: Mutex<Pending>,
    filled: Condvar,
    waker: Waker,
}

impl Queue {
    /// An empty one.
    pub fn new() -> Result<Self> {
        let waker = Waker::new()?;
        Ok(Self { pending: Mutex::default(), filled: Condvar::new(), waker })
    }

    /// Readable when there is news, or room again.
    pub fn news_fd(&self) -> BorrowedFd<'_> {
        self.waker.as_fd()
    }

    /// Reads what a stream has, once, and shows it to `copy`, which must not wait.
    pub fn fill(
        &self,
        log: LogId,
        stream: Stream,
        fd: BorrowedFd<'_>,
        copy: impl FnOnce(&[u8]),
    ) -> Filled {
        let mut pending = self.lock();
        let Pending { batch, room_wanted, .. } = &mut *pending;
        let room = LOG_QUEUE_BYTES_MAX.saturating_sub(batch.data.len());
        if batch.tasks.len() >= PIECES_MAX || room < ROOM_MIN {
            *room_wanted = true;
            return Filled::NoRoom;
        }
        if batch.data.capacity() == 0 {
            batch.data.reserve_exact(LOG_QUEUE_BYTES_MAX);
        }
        match stream::read_into(fd, &mut batch.data) {
            Ok(0) => Filled::End,
            Ok(length) => {
                let at_ns = process::realtime_ns();
                copy(&batch.data[batch.data.len() - length..]);
                batch.tasks.push(Task::Data { log, stream, at_ns, length });
                self.filled.notify_one();
                Filled::Taken(length)
            }
            Err(Errno::AGAIN) => Filled::Nothing,
            Err(_) => Filled::End,
        }
    }

    /// Adds a task that has no bytes. These are few: a handful for each
    /// container in all its life, and one for each rotation.
    pub fn push(&self, task: Task) {
        self.lock().batch.tasks.push(task);
        self.filled.notify_one();
    }

    /// Takes what the log thread has told; the descriptor is quiet afterwards.
    pub fn take_news(&self) -> Vec<News> {
        self.waker.reset();
        std::mem::take(&mut self.lock().news)
    }

    /// Nothing more will come: the log thread ends when it is done.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    /// Log thread: tells something.
    pub fn tell(&self, news: News) {
        self.lock().news.push(news);
        self.waker.wake();
    }

    /// Log thread: waits for something to do, and takes all of it in exchange
    /// for what `done` holds. False when nothing will come any more.
    pub fn next(&self, done: &mut Batch) -> bool {
        done.give_back();
        let mut pending = self.lock();
        while pending.batch.tasks.is_empty() {
            if pending.closed {
                return false;
            }
            pending = self.filled.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut pending.batch, done);
        if std::mem::take(&mut pending.room_wanted) {
            self.waker.wake();
        }
        true
    }

    /// Neither thread leaves the tasks half changed, so that a poisoned lock
    /// is taken as it is.
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
