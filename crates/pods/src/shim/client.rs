//! One connection to one shim: requests and their replies, and its events.
//!
//! A task reads what the shim sends. Replies go to whoever asked; ends of
//! execs go to whoever runs them; everything else goes to the engine, in
//! order, through one channel for all shims.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use corten_base::limits::{FRAME_BYTES_MAX, FRAME_FDS_MAX};
use corten_base::{ContainerId, ExecId, SandboxId};
use corten_kernel::fdpass;
use corten_protocol::frame::{
    DecodeError, Event, Exit, FromShim, Phase, Reply, Request, Target, VERSION,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, Kind, Result};
use crate::watch::watch;

/// How long a shim may take for a request that only touches itself. It never
/// touches a foreign filesystem, so even a busy node answers in milliseconds.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// What a shim reports by itself.
#[derive(Debug)]
pub enum ShimNews {
    /// An event of one of its containers.
    Event(Event),
    /// The connection ended: the shim has died (or another daemon took over).
    Gone,
}

type Answer = (Reply, Vec<OwnedFd>);

/// A connection. Cheap to clone.
#[derive(Clone)]
pub struct Shim {
    inner: Arc<Inner>,
}

struct Inner {
    sandbox: SandboxId,
    socket: AsyncFd<OwnedFd>,
    next_request: AtomicU32,
    next_exec: AtomicU64,
    /// It is older than Run.
    old: AtomicBool,
    waiting: Mutex<Waiting>,
}

/// A request under way.
struct Asked {
    answer: oneshot::Sender<Answer>,
    /// The container that it starts.
    starts: Option<ContainerId>,
}

/// Who waits for what. `closed` is set when nothing will come any more.
#[derive(Default)]
struct Waiting {
    replies: HashMap<u32, Asked>,
    execs: HashMap<ExecId, oneshot::Sender<Exit>>,
    closed: bool,
}

impl Shim {
    /// Connects, and agrees on a version.
    pub async fn connect(
        sandbox: &SandboxId,
        path: &Path,
        news: mpsc::UnboundedSender<(SandboxId, ShimNews)>,
    ) -> Result<Self> {
        let shim = Self::open(sandbox, path, news)?;
        shim.greet().await?;
        Ok(shim)
    }

    /// Connects. The first call must be [`Shim::greet`]; others may follow
    /// before it is answered.
    pub fn open(
        sandbox: &SandboxId,
        path: &Path,
        news: mpsc::UnboundedSender<(SandboxId, ShimNews)>,
    ) -> Result<Self> {
        let socket = fdpass::connect(path)?;
        let socket = watch(socket, "a shim")?;
        let shim = Self {
            inner: Arc::new(Inner {
                sandbox: sandbox.clone(),
                socket,
                next_request: AtomicU32::new(1),
                // Exec numbers must not meet those of an earlier daemon: they
                // begin at the clock, which a restart finds further on.
                next_exec: AtomicU64::new(corten_kernel::process::realtime_ns() as u64),
                old: AtomicBool::new(false),
                waiting: Mutex::default(),
            }),
        };
        tokio::spawn(read_all(shim.inner.clone(), news));
        Ok(shim)
    }

    /// Agrees on a version.
    pub async fn greet(&self) -> Result<()> {
        match self.call(&Request::Hello { version: VERSION }, &[]).await? {
            (Reply::Hello { version }, _) if version >= 1 => Ok(()),
            (reply, _) => Err(Error::internal(format!(
                "the shim of sandbox {} answered {reply:?} to the greeting",
                self.inner.sandbox
            ))),
        }
    }

    /// Sends a request and waits for its reply, for a bounded time.
    pub async fn call(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Answer> {
        self.call_within(request, fds, REPLY_TIMEOUT).await
    }

    /// Likewise, for requests that wait for a launch (its hooks may be slow).
    pub async fn call_within(
        &self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
        timeout: Duration,
    ) -> Result<Answer> {
        let number = self.inner.next_request.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = self.inner.lock();
            if waiting.closed {
                return Err(self.inner.dead());
            }
            let starts = match request {
                Request::Start { container } => Some(container.clone()),
                _ => None,
            };
            waiting.replies.insert(number, Asked { answer: sender, starts });
        }
        let frame = request.encode(number);
        let send = |socket: &OwnedFd| {
            fdpass::send(socket.as_fd(), &frame, fds).map_err(std::io::Error::from)
        };
        // There is mostly room at once, also before a new socket is known to
        // have any.
        let sent = match send(self.inner.socket.get_ref()) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                self.inner.socket.async_io(Interest::WRITABLE, send).await
            }
            sent => sent,
        };
        if let Err(error) = sent {
            self.inner.lock().replies.remove(&number);
            let dead = self.inner.dead();
            return Err(dead.during(format!("unable to send to the shim ({error})")));
        }
        match tokio::time::timeout(timeout, receiver).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(self.inner.dead()),
            Err(_) => {
                self.inner.lock().replies.remove(&number);
                Err(Error::new(
                    Kind::DeadlineExceeded,
                    format!(
                        "the shim of sandbox {} did not answer within {} s",
                        self.inner.sandbox,
                        timeout.as_secs()
                    ),
                ))
            }
        }
    }

    /// An error if its connection has ended.
    pub fn check_alive(&self) -> Result<()> {
        if self.inner.lock().closed { Err(self.inner.dead()) } else { Ok(()) }
    }

    /// Whether it may know [`Request::Run`].
    pub fn may_run(&self) -> bool {
        !self.inner.old.load(Ordering::Relaxed)
    }

    /// It does not know [`Request::Run`].
    pub fn cannot_run(&self) {
        self.inner.old.store(true, Ordering::Relaxed);
    }

    /// A new exec number, and its end when it comes. To be asked for before
    /// the request is sent, since the end may be told before the reply is read.
    pub fn new_exec(&self) -> (ExecId, oneshot::Receiver<Exit>) {
        let exec = ExecId(self.inner.next_exec.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = oneshot::channel();
        self.inner.lock().execs.insert(exec, sender);
        (exec, receiver)
    }

    /// Nobody waits for this exec's end any more.
    pub fn forget_exec(&self, exec: ExecId) {
        self.inner.lock().execs.remove(&exec);
    }
}

impl Inner {
    /// A panic elsewhere cannot leave these maps half changed, so a poisoned
    /// lock is taken as it is.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dead(&self) -> Error {
        Error::new(Kind::Unavailable, format!("the shim of sandbox {} is gone", self.sandbox))
    }

    /// Delivers one message; what nobody waits for is for the engine. So is
    /// that a container runs, though somebody waits for it: a container may end
    /// at once, and its beginning must be known before its end.
    fn deliver(&self, message: FromShim, fds: Vec<OwnedFd>) -> Option<Event> {
        match message {
            FromShim::Reply(number, reply) => {
                let asked = self.lock().replies.remove(&number)?;
                let runs = match (&reply, asked.starts) {
                    (Reply::Running { pid, at_ns }, Some(container)) => Some(Event::Present {
                        target: Target { container, exec: None },
                        phase: Phase::Running,
                        pid: *pid,
                        started_ns: *at_ns,
                        exit: None,
                        failure: None,
                    }),
                    _ => None,
                };
                // The asker may have given up; then the descriptors close.
                let _ = asked.answer.send((reply, fds));
                runs
            }
            FromShim::Event(Event::Exited { target: Target { exec: Some(exec), .. }, exit }) => {
                if let Some(sender) = self.lock().execs.remove(&exec) {
                    let _ = sender.send(exit);
                }
                None
            }
            FromShim::Event(event) => Some(event),
        }
    }
}

/// The next message, or none at the end of the connection. Its bytes are on the
/// stack: there is one reader for each pod, and they mostly wait.
fn receive(
    socket: &OwnedFd,
    fds: &mut Vec<OwnedFd>,
) -> std::io::Result<Option<std::result::Result<FromShim, DecodeError>>> {
    let mut frame = [0u8; FRAME_BYTES_MAX];
    let length = fdpass::recv(socket.as_fd(), &mut frame, fds, FRAME_FDS_MAX)?;
    Ok((length > 0).then(|| FromShim::decode(&frame[..length])))
}

async fn read_all(inner: Arc<Inner>, news: mpsc::UnboundedSender<(SandboxId, ShimNews)>) {
    loop {
        let mut fds = Vec::new();
        let received =
            inner.socket.async_io(Interest::READABLE, |socket| receive(socket, &mut fds)).await;
        let message = match received {
            Ok(None) | Err(_) => break,
            Ok(Some(message)) => message,
        };
        match message {
            Ok(message) => {
                if let Some(event) = inner.deliver(message, fds) {
                    let _ = news.send((inner.sandbox.clone(), ShimNews::Event(event)));
                }
            }
            Err(error) => {
                tracing::error!(sandbox = %inner.sandbox, %error, "the shim sent a frame that makes no sense");
            }
        }
    }
    {
        let mut waiting = inner.lock();
        waiting.closed = true;
        waiting.replies.clear();
        waiting.execs.clear();
    }
    let _ = news.send((inner.sandbox.clone(), ShimNews::Gone));
}
