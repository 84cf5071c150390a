//! A connection after its upgrade: a buffer that is read into, and a place
//! where everybody writes whole frames.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use corten_base::limits::{STREAM_CHUNK_BYTES, STREAM_CONTROL_BYTES_MAX};
use corten_wire::{Chunk, Outlet};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, Interest, ReadBuf, Ready};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::tunnel::Tunnel;
use crate::end::{End, Readable};

/// Bytes that are read from a client at once. Larger than any control frame.
const INBOX_BYTES: usize = 2 * STREAM_CHUNK_BYTES;

/// What a client's bytes come from.
pub type Source = Box<dyn AsyncRead + Send + Unpin>;
/// Where bytes for a client go.
pub type Drain = Box<dyn AsyncWrite + Send + Unpin>;

/// A connection, its protocol agreed upon.
pub struct Connection {
    /// What the client sends.
    pub inbox: Inbox,
    /// What it is sent.
    pub writer: Arc<Writer>,
    /// Whether it is still there, while nothing is read.
    pub hangup: Hangup,
    /// How long it may say nothing, and take nothing.
    pub idle: Duration,
}

impl Connection {
    /// A connection; `early` was read already.
    pub fn new(source: Source, drain: Drain, early: &[u8], hangup: Hangup, idle: Duration) -> Self {
        let activity = Arc::new(Activity::default());
        let inbox = Inbox::new(source, early, activity.clone());
        let writer = Arc::new(Writer::new(drain, activity));
        Self { inbox, writer, hangup, idle }
    }

    /// The same, where what is sent comes in messages of WebSocket.
    pub fn tunnel(self) -> Self {
        let Self { inbox, writer, hangup, idle } = self;
        let activity = inbox.activity.clone();
        let tunnel = Tunnel::new(inbox, writer.clone());
        Self { inbox: Inbox::new(Box::new(tunnel), &[], activity), writer, hangup, idle }
    }
}

/// When something was last moved either way.
pub struct Activity {
    begun: Instant,
    last_ms: AtomicU64,
}

impl Default for Activity {
    fn default() -> Self {
        Self { begun: Instant::now(), last_ms: AtomicU64::new(0) }
    }
}

impl Activity {
    fn now(&self) {
        self.last_ms.store(self.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Waits until nothing was moved for this long.
    async fn idle(&self, limit: Duration) {
        loop {
            let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
            let until = self.begun + last + limit;
            if Instant::now() >= until {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

/// What a client sent and nobody has looked at.
pub struct Inbox {
    source: Source,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    activity: Arc<Activity>,
}

impl Inbox {
    /// An inbox with what was read already.
    pub fn new(source: Source, early: &[u8], activity: Arc<Activity>) -> Self {
        let mut buffer = early.to_vec();
        buffer.resize(INBOX_BYTES.max(early.len()), 0);
        Self { source, buffer, start: 0, end: early.len(), activity }
    }

    /// What there is.
    pub fn unread(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.end]
    }

    /// The first bytes were looked at.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
    }

    /// Reads more: false at the end. Nothing is lost if it is given up.
    pub async fn fill(&mut self) -> io::Result<bool> {
        std::future::poll_fn(|context| self.poll_fill(context)).await
    }

    /// The same, for those who are polled themselves.
    pub fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let mut room = ReadBuf::new(&mut self.buffer[self.end..]);
        if room.remaining() == 0 {
            return Poll::Ready(Err(io::Error::other("a frame does not fit into the buffer")));
        }
        ready!(Pin::new(&mut self.source).poll_read(context, &mut room))?;
        let count = room.filled().len();
        self.end += count;
        self.activity.now();
        Poll::Ready(Ok(count > 0))
    }
}

/// What became of a piece of output.
#[derive(Debug, PartialEq, Eq)]
pub enum Moved {
    /// It is on its way.
    Some,
    /// There was nothing to read.
    Nothing,
    /// The output has ended.
    End,
    /// The output has broken.
    Broken,
}

/// Where everybody writes whole frames. One buffer serves all streams of a
/// connection, since one is written at a time.
pub struct Writer {
    output: tokio::sync::Mutex<Output>,
    /// Answers of the protocol itself, which nobody waits for.
    waiting: Mutex<Vec<u8>>,
    wake: Notify,
    activity: Arc<Activity>,
}

struct Output {
    drain: Drain,
    chunk: Chunk,
    control: Vec<u8>,
}

impl Writer {
    fn new(drain: Drain, activity: Arc<Activity>) -> Self {
        let output = Output { drain, chunk: Chunk::default(), control: Vec::new() };
        Self {
            output: tokio::sync::Mutex::new(output),
            waiting: Mutex::default(),
            wake: Notify::new(),
            activity,
        }
    }

    /// Leaves something to be written soon, before any data; the caller does
    /// not wait. An error if the client takes none of it.
    pub fn queue(&self, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let before = waiting.len();
        fill(&mut waiting);
        if waiting.len() > STREAM_CONTROL_BYTES_MAX {
            return Err(io::Error::other("the client does not read the answers to its frames"));
        }
        if waiting.len() > before {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Writes what is left by [`Writer::queue`], until that fails.
    pub async fn write_queued(&self) -> io::Error {
        loop {
            self.wake.notified().await;
            if let Err(error) = self.send(|_| {}).await {
                return error;
            }
        }
    }

    /// Writes something, and what is waiting before it. Not to be given up half
    /// way: the frame would be cut.
    pub async fn send(&self, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut output = self.output.lock().await;
        self.control(&mut output, fill).await
    }

    /// Reads a piece of a process's output and writes it, or drops it where
    /// nobody wants it. Not to be given up half way: the frame would be cut.
    pub async fn carry(
        &self,
        readable: &mut Readable<'_>,
        pipe: &End,
        outlet: Option<Outlet>,
    ) -> io::Result<Moved> {
        let mut output = self.output.lock().await;
        match readable.read(pipe, output.chunk.room()) {
            None => Ok(Moved::Nothing),
            Some(Ok(0)) => Ok(Moved::End),
            Some(Err(_)) => Ok(Moved::Broken),
            Some(Ok(length)) => self.piece(&mut output, outlet, length).await,
        }
    }

    /// The same, without waiting for the process: what it has written already.
    pub async fn carry_rest(
        &self,
        pipe: &End,
        outlet: Option<Outlet>,
    ) -> io::Result<(Moved, usize)> {
        let mut output = self.output.lock().await;
        match pipe.read_now(output.chunk.room()) {
            Ok(0) => Ok((Moved::End, 0)),
            Ok(length) => Ok((self.piece(&mut output, outlet, length).await?, length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok((Moved::Nothing, 0)),
            Err(_) => Ok((Moved::Broken, 0)),
        }
    }

    async fn piece(
        &self,
        output: &mut Output,
        outlet: Option<Outlet>,
        length: usize,
    ) -> io::Result<Moved> {
        let Some(outlet) = outlet else { return Ok(Moved::Some) };
        self.control(output, |_| {}).await?;
        let Output { drain, chunk, .. } = output;
        drain.write_all(chunk.frame(outlet, length)).await?;
        drain.flush().await?;
        self.activity.now();
        Ok(Moved::Some)
    }

    async fn control(
        &self,
        output: &mut Output,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> io::Result<()> {
        let Output { drain, control, .. } = output;
        control.clear();
        std::mem::swap(control, &mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        fill(control);
        if control.is_empty() {
            return Ok(());
        }
        drain.write_all(control).await?;
        drain.flush().await?;
        self.activity.now();
        Ok(())
    }

    /// Waits until nothing was moved either way for this long.
    pub async fn idle(&self, limit: Duration) {
        self.activity.idle(limit).await;
    }
}

/// Whether the client of a connection is still there. Only needed while
/// nothing is read: a reader sees the end by itself.
pub struct Hangup(OwnedFd);

impl Hangup {
    /// Of this socket, of which it is a duplicate.
    pub fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Waits until the client has gone.
    pub async fn gone(&self) -> io::Result<()> {
        #[allow(deprecated, reason = "a borrow of what we own is no type that lies")]
        let watched = AsyncFd::with_interest(self.0.as_fd(), Interest::READABLE)?;
        loop {
            let mut ready = watched.readable().await?;
            if ready.ready().is_read_closed() {
                return Ok(());
            }
            // More has come that nobody reads now: the next event is waited for.
            ready.clear_ready_matching(Ready::READABLE);
        }
    }
}
