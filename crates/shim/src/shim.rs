//! The control thread: one loop over everything that can happen.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use corten_base::limits::FRAME_BYTES_MAX;
use corten_kernel::event::{Happened, Interest, Poll, Signals};
use corten_kernel::process::{self, End};
use corten_kernel::{Result, fdpass};
use corten_protocol::frame::{Event, FromShim, PodNamespaces, Refusal, Reply, Request};

use crate::attach::Attachment;
use crate::daemon::{Asker, Daemon};
use crate::log::{News, Queue, Stream};
use crate::process::{Process, Serial};
use crate::table::State;

/// Requests taken from the daemon before others have their turn.
const REQUESTS_AT_ONCE: usize = 32;

/// What the shim is given when it starts.
pub struct Given {
    /// Where the daemon connects.
    pub listener: OwnedFd,
    /// Where exits are written down.
    pub exits: File,
    /// /dev/null.
    pub null: OwnedFd,
    /// Children that end.
    pub signals: Signals,
    /// To the log thread.
    pub queue: Arc<Queue>,
}

/// All that the control thread knows.
pub struct Shim {
    pub(crate) given: Given,
    pub(crate) poll: Poll,
    pub(crate) processes: Vec<Process>,
    pub(crate) attachments: Vec<Attachment>,
    pub(crate) namespaces: Option<(PodNamespaces, Vec<OwnedFd>)>,
    pub(crate) shutdown: Option<Asker>,
    pub(crate) strays: VecDeque<(i32, End)>,
    daemon: Option<Daemon>,
    connections: u32,
    last_serial: Serial,
    frame: Box<[u8; FRAME_BYTES_MAX]>,
}

/// What a number in the set of descriptors stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Listener,
    Daemon(u32),
    Signals,
    Log,
    /// The socket of a child on its way.
    Child(Serial),
    Output(Serial, Stream),
    OutOfMemory(Serial),
    /// What an attached client says.
    Input(Serial),
    /// What an attached client is told.
    Copy(Serial, Stream),
    /// Our end of a process's stdin.
    Stdin(Serial),
}

impl Source {
    pub(crate) fn token(self) -> u64 {
        let (kind, number) = match self {
            Self::Listener => (0, 0),
            Self::Daemon(connection) => (1, connection),
            Self::Signals => (2, 0),
            Self::Log => (3, 0),
            Self::Child(serial) => (4, serial),
            Self::Output(serial, Stream::Out) => (5, serial),
            Self::Output(serial, Stream::Error) => (6, serial),
            Self::OutOfMemory(serial) => (7, serial),
            Self::Input(serial) => (8, serial),
            Self::Copy(serial, Stream::Out) => (9, serial),
            Self::Copy(serial, Stream::Error) => (10, serial),
            Self::Stdin(serial) => (11, serial),
        };
        u64::from(number) << 8 | kind
    }

    fn from_token(token: u64) -> Option<Self> {
        let number = (token >> 8) as u32;
        Some(match token & 0xff {
            0 => Self::Listener,
            1 => Self::Daemon(number),
            2 => Self::Signals,
            3 => Self::Log,
            4 => Self::Child(number),
            5 => Self::Output(number, Stream::Out),
            6 => Self::Output(number, Stream::Error),
            7 => Self::OutOfMemory(number),
            8 => Self::Input(number),
            9 => Self::Copy(number, Stream::Out),
            10 => Self::Copy(number, Stream::Error),
            11 => Self::Stdin(number),
            _ => return None,
        })
    }
}

impl Shim {
    /// A shim without containers.
    pub fn new(given: Given) -> Result<Self> {
        let poll = Poll::new()?;
        poll.add(&given.listener, Source::Listener.token(), Interest::READ)?;
        poll.add(&given.signals, Source::Signals.token(), Interest::READ)?;
        poll.add(given.queue.news_fd(), Source::Log.token(), Interest::READ)?;
        Ok(Self {
            given,
            poll,
            processes: Vec::new(),
            attachments: Vec::new(),
            namespaces: None,
            shutdown: None,
            strays: VecDeque::new(),
            daemon: None,
            connections: 0,
            last_serial: 0,
            frame: Box::new([0; FRAME_BYTES_MAX]),
        })
    }

    /// Works until the daemon asks for the end.
    pub fn run(mut self) -> Result<()> {
        let mut happened: Vec<Happened> = Vec::new();
        while !self.is_done() {
            self.poll.wait(self.time_left(), |event| happened.push(event))?;
            for event in happened.drain(..) {
                if let Some(source) = Source::from_token(event.token) {
                    self.handle(source, event);
                }
            }
            self.act_on_deadlines(process::monotonic());
        }
        if let Some(asker) = self.shutdown {
            self.reply(asker, Reply::Done, Vec::new());
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.shutdown.is_some()
            && self.processes.iter().all(|process| process.state == State::Ended)
            && self.attachments.is_empty()
    }

    fn handle(&mut self, source: Source, event: Happened) {
        match source {
            Source::Listener => self.accept(),
            Source::Daemon(number) => self.serve(number, event),
            Source::Signals => {
                self.given.signals.drain();
                self.reap();
            }
            Source::Log => self.hear_from_log(),
            Source::Child(serial) => self.hear(serial),
            Source::Output(serial, stream) => self.read_output(serial, stream),
            Source::OutOfMemory(serial) => self.look_for_oom(serial),
            Source::Input(serial) => self.hear_client(serial),
            Source::Copy(serial, stream) => self.flush_copy(serial, stream),
            Source::Stdin(serial) => self.relay(serial),
        }
    }

    /// The newest connection wins: a daemon that comes back finds its old
    /// connection perhaps not yet closed.
    fn accept(&mut self) {
        while let Ok(socket) = fdpass::accept(std::os::fd::AsFd::as_fd(&self.given.listener)) {
            self.connections += 1;
            let token = Source::Daemon(self.connections).token();
            if self.poll.add(&socket, token, Interest::READ).is_ok() {
                self.daemon = Some(Daemon::new(socket, self.connections));
            }
        }
    }

    fn serve(&mut self, connection: u32, event: Happened) {
        let is_it = |daemon: &&mut Daemon| daemon.number() == connection;
        let Some(daemon) = self.daemon.as_mut().filter(is_it) else {
            return;
        };
        let was_behind = daemon.is_behind();
        if event.writable && daemon.flush().is_err() {
            return self.daemon = None;
        }
        if daemon.is_behind() != was_behind {
            self.watch_daemon();
        }
        if event.readable {
            for _ in 0..REQUESTS_AT_ONCE {
                let Some(daemon) = self.daemon.as_ref() else { return };
                match daemon.receive(&mut self.frame) {
                    Ok(Some((length, fds))) => {
                        let frame = &self.frame[..length];
                        let number = Request::number(frame).unwrap_or(0);
                        let request = Request::decode(frame).ok().map(|(_, request)| request);
                        self.take_request(Asker { connection, request: number }, request, fds);
                    }
                    Ok(None) => break,
                    Err(_) => return self.daemon = None,
                }
            }
        }
    }

    /// Waits for room to write only while something is to be written.
    fn watch_daemon(&mut self) {
        if let Some(daemon) = &self.daemon {
            let interest = if daemon.is_behind() { Interest::READ_WRITE } else { Interest::READ };
            let token = Source::Daemon(daemon.number()).token();
            if self.poll.modify(daemon.socket(), token, interest).is_err() {
                self.daemon = None;
            }
        }
    }

    /// Sends a reply to whoever asked, if he is still there.
    pub(crate) fn reply(&mut self, asker: Asker, reply: Reply, fds: Vec<OwnedFd>) {
        if self.daemon.as_ref().is_some_and(|daemon| daemon.number() == asker.connection) {
            self.send(&FromShim::Reply(asker.request, reply), fds);
        }
    }

    pub(crate) fn refuse(&mut self, asker: Asker, refusal: Refusal) {
        self.reply(asker, Reply::Refused(refusal), Vec::new());
    }

    /// Sends an event, if there is a daemon. One that comes later asks for a
    /// list.
    pub(crate) fn tell(&mut self, event: Event) {
        self.send(&FromShim::Event(event), Vec::new());
    }

    fn send(&mut self, message: &FromShim, fds: Vec<OwnedFd>) {
        let Some(daemon) = self.daemon.as_mut() else { return };
        let was_behind = daemon.is_behind();
        match daemon.send(message, fds) {
            Ok(()) if daemon.is_behind() != was_behind => self.watch_daemon(),
            Ok(()) => {}
            Err(_) => self.daemon = None,
        }
    }

    fn hear_from_log(&mut self) {
        for news in self.given.queue.take_news() {
            match news {
                News::Written(serial) => self.output_written(serial),
                News::Broken(serial, errno) => {
                    if let Some(index) = self.position(serial) {
                        let container = self.processes[index].target.container.clone();
                        self.tell(Event::LogBroken { container, errno });
                    }
                }
            }
        }
        self.resume_outputs();
    }

    fn time_left(&self) -> Option<Duration> {
        let processes = self.processes.iter().filter_map(Process::next_deadline);
        let attachments = self.attachments.iter().filter_map(Attachment::deadline);
        let next = processes.chain(attachments).min()?;
        Some(next.saturating_sub(process::monotonic()))
    }

    pub(crate) fn next_serial(&mut self) -> Serial {
        self.last_serial += 1;
        self.last_serial
    }

    pub(crate) fn position(&self, serial: Serial) -> Option<usize> {
        self.processes.iter().position(|process| process.serial == serial)
    }
}
