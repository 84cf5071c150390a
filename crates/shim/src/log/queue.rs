//! What the control thread has for the log thread.
//!
//! Two buffers of a fixed size: the control thread reads streams into one
//! while the log thread writes the other out, and then they change places. The
//! lock is held for a non-blocking read or for the change, never for a write,
//! so that a hung log disk cannot hold up the control thread: it finds no room
//! and leaves the streams alone until it is told that there is some.
//!
//! The thread is there while there is something to write. Most containers are
//! silent most of the time, and a thread costs more memory than all the rest
//! of a shim, most of it in the kernel.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use corten_base::limits::LOG_QUEUE_BYTES_MAX;
use corten_kernel::event::Waker;
use corten_kernel::{Errno, Result, process, stream};

use super::writer::{self, Log};

/// Pieces of output in one buffer at most, however short they are.
const PIECES_MAX: usize = 1024;
/// Less room than this is not worth a read.
const ROOM_MIN: usize = 4096;
/// A buffer that was filled further than this is given back when there is
/// nothing to do, so that an idle shim stays as small as a new one.
const KEPT_BYTES: usize = 4096;
/// How long the log thread waits for more before it leaves: longer than most
/// pauses of a program that talks, since it costs some 0.1 ms to come back.
const LINGER: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 2000 });
/// Enough for the log thread, which keeps nothing large on its stack.
const STACK_BYTES: usize = 32 << 10;
/// Files to which nothing was written may stay open until the log thread comes
/// for something else, but not more of them than this.
const UNUSED_FILES_MAX: usize = 16;

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
    /// Close a file to which nothing was written. Not by the control thread:
    /// even that may wait for a disk.
    CloseUnused {
        /// Which.
        file: File,
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
    /// There is a log thread, or will be as soon as it runs.
    attended: bool,
    /// All logs; with its file one that has got nothing so far, of which the
    /// log thread does not know.
    logs: Vec<(LogId, Option<File>)>,
}

impl Pending {
    /// The file of a log that has got nothing so far.
    fn silent(&mut self, log: LogId) -> Option<&mut Option<File>> {
        self.logs.iter_mut().find(|(id, file)| *id == log && file.is_some()).map(|(_, file)| file)
    }

    /// The log thread has something of this log.
    fn is_told(&self, log: LogId) -> bool {
        self.logs.iter().any(|(id, file)| *id == log && file.is_none())
    }
}

/// Shared by both threads.
pub struct Queue {
    pending: Mutex<Pending>,
    filled: Condvar,
    waker: Waker,
    /// What one log thread leaves to the next. Each holds it all its life.
    logs: Mutex<Vec<Log>>,
}

impl Queue {
    /// An empty one.
    pub fn new() -> Result<Self> {
        let waker = Waker::new()?;
        let (pending, logs) = (Mutex::default(), Mutex::default());
        Ok(Self { pending, filled: Condvar::new(), waker, logs })
    }

    /// Readable when there is news, or room again.
    pub fn news_fd(&self) -> BorrowedFd<'_> {
        self.waker.as_fd()
    }

    /// Reads what a stream has, once, and shows it to `copy`, which must not wait.
    pub fn fill(
        self: &Arc<Self>,
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
                if let Some(file) = pending.silent(log).and_then(Option::take) {
                    pending.batch.tasks.push(Task::Open { log, file });
                }
                pending.batch.tasks.push(Task::Data { log, stream, at_ns, length });
                self.attend(pending);
                Filled::Taken(length)
            }
            Err(Errno::AGAIN) => Filled::Nothing,
            Err(_) => Filled::End,
        }
    }

    /// Adds a task that has no bytes. These are few: a handful for each
    /// container in all its life, and one for each rotation. What concerns a
    /// log that has got nothing is done here.
    pub fn push(self: &Arc<Self>, task: Task) {
        let mut pending = self.lock();
        match task {
            Task::Open { log, file } if !pending.is_told(log) => {
                let old = pending.silent(log).and_then(Option::take);
                pending.logs.retain(|(id, _)| *id != log);
                pending.logs.push((log, Some(file)));
                if let Some(old) = old {
                    self.close_unused(pending, old);
                }
            }
            Task::End { log, .. } if !pending.is_told(log) => {}
            Task::Mark { log } if !pending.is_told(log) => {
                pending.news.push(News::Written(log));
                self.waker.wake();
            }
            Task::Close { log } if !pending.is_told(log) => {
                if let Some(index) = pending.logs.iter().position(|(id, _)| *id == log)
                    && let (_, Some(file)) = pending.logs.swap_remove(index)
                {
                    self.close_unused(pending, file);
                }
            }
            Task::Close { log } => {
                pending.logs.retain(|(id, _)| *id != log);
                pending.batch.tasks.push(Task::Close { log });
                self.attend(pending);
            }
            Task::Data { .. }
            | Task::Open { .. }
            | Task::End { .. }
            | Task::Mark { .. }
            | Task::CloseUnused { .. } => {
                pending.batch.tasks.push(task);
                self.attend(pending);
            }
        }
    }

    /// Leaves the closing of a file to the log thread, which needs not come
    /// for that alone.
    fn close_unused(self: &Arc<Self>, mut pending: MutexGuard<'_, Pending>, file: File) {
        pending.batch.tasks.push(Task::CloseUnused { file });
        if pending.attended || pending.batch.tasks.len() > UNUSED_FILES_MAX {
            self.attend(pending);
        }
    }

    /// Has the log thread do what is to be done. Where no thread can be made,
    /// it is done at once: better to wait for a disk than to lose a line.
    fn attend(self: &Arc<Self>, mut pending: MutexGuard<'_, Pending>) {
        if pending.attended {
            return self.filled.notify_one();
        }
        pending.attended = true;
        drop(pending);
        let builder = std::thread::Builder::new().name("log".into()).stack_size(STACK_BYTES);
        let queue = self.clone();
        if builder.spawn(move || writer::run(&queue, LINGER)).is_err() {
            writer::run(self, Duration::ZERO);
        }
    }

    /// Takes what the log thread has told; the descriptor is quiet afterwards.
    pub fn take_news(&self) -> Vec<News> {
        self.waker.reset();
        std::mem::take(&mut self.lock().news)
    }

    /// Nothing more will come: the log thread leaves when it is done.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    /// The log thread is there: it writes, or waits for more.
    pub fn is_attended(&self) -> bool {
        self.lock().attended
    }

    /// Log thread: tells something.
    pub fn tell(&self, news: News) {
        self.lock().news.push(news);
        self.waker.wake();
    }

    /// Log thread: where the logs stand.
    pub fn logs(&self) -> MutexGuard<'_, Vec<Log>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Log thread: waits for something to do, and takes all of it in exchange
    /// for what `done` holds. False when nothing has come for so long: the
    /// thread is to leave.
    pub fn next(&self, done: &mut Batch, linger: Duration) -> bool {
        done.give_back();
        let is_quiet = |pending: &mut Pending| pending.batch.tasks.is_empty() && !pending.closed;
        let waited = self.filled.wait_timeout_while(self.lock(), linger, is_quiet);
        let mut pending = waited.unwrap_or_else(PoisonError::into_inner).0;
        if pending.batch.tasks.is_empty() {
            pending.attended = false;
            pending.batch = Batch::default();
            return false;
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
