//! Attached clients: what a container says is copied to them beside its log,
//! and what they say goes to its stdin.
//!
//! Each client has pipes of its own. What does not fit into a client's pipe
//! waits here, and the container's stream is not read meanwhile; a client that
//! takes nothing for too long loses its session, never the log a line.

use std::os::fd::OwnedFd;
use std::time::Duration;

use corten_base::ContainerId;
use corten_base::limits::{ATTACHMENT_BYTES_MAX, ATTACHMENT_INPUT_BYTES_MAX, POD_ATTACHMENTS_MAX};
use corten_kernel::event::{Interest, Poll};
use corten_kernel::stream::{pipe, read_into, set_nonblocking, write_some};
use corten_kernel::{Errno, process};
use corten_protocol::frame::{Attached, Refusal, Reply};

use crate::daemon::Asker;
use crate::log::Stream;
use crate::process::Serial;
use crate::shim::{Shim, Source};
use crate::table::{Event, Next};

/// How long a client may take nothing while something waits for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Likewise when the shim is asked to go.
const LAST_PATIENCE: Duration = Duration::from_millis(500);

/// One client.
pub struct Attachment {
    serial: Serial,
    /// The process that it is attached to.
    of: Serial,
    input: Option<Input>,
    /// To its stdout and stderr.
    copies: [Option<Copy>; 2],
    /// It was too slow.
    lost: bool,
    /// Where it is told so.
    fate: OwnedFd,
}

/// What a client says.
struct Input {
    fd: OwnedFd,
    watched: bool,
    /// What the process has not yet taken; nothing more is read meanwhile.
    said: Vec<u8>,
}

/// The copy of one stream to one client.
struct Copy {
    fd: OwnedFd,
    /// What did not fit into the pipe.
    owed: Vec<u8>,
    /// When something is owed: until when some of it is to be taken (monotonic).
    deadline: Option<Duration>,
    /// Nothing more will come: to be closed when nothing is owed.
    ends: bool,
}

impl Attachment {
    fn copy_mut(&mut self, stream: Stream) -> Option<&mut Copy> {
        self.copies[stream as usize].as_mut()
    }

    fn is_over(&self) -> bool {
        self.lost || (self.input.is_none() && self.copies.iter().all(Option::is_none))
    }

    /// The moment at which it has been too slow.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.copies.iter().flatten().filter_map(|copy| copy.deadline).min()
    }
}

impl Shim {
    pub(crate) fn attach(
        &mut self,
        asker: Asker,
        container: &ContainerId,
        asked: Attached,
    ) -> Result<Option<Reply>, Refusal> {
        let index = self.find_init(container)?;
        let process = &self.processes[index];
        if process.state.on(Event::AttachAsked) == Next::Refuse {
            return Err(Refusal::WrongPhase(process.state.phase()));
        }
        if self.attachments.len() >= POD_ATTACHMENTS_MAX {
            return Err(Refusal::Full);
        }
        let stdio = process.stdio;
        let granted = Attached {
            stdin: asked.stdin && stdio.stdin && !process.streams.stdin_closed,
            stdout: asked.stdout && stdio.log,
            stderr: asked.stderr && stdio.log && !stdio.terminal,
        };
        let (of, ended) = (process.serial, process.streams.ended);
        let serial = self.next_serial();
        let (attachment, fds) = Attachment::make(&self.poll, serial, of, granted)
            .map_err(|error| Refusal::System { errno: error.errno.raw_os_error() })?;
        self.attachments.push(attachment);
        for stream in [Stream::Out, Stream::Error] {
            if ended[stream as usize] {
                self.end_copies(of, stream);
            }
        }
        self.drop_attachments();
        self.reply(asker, Reply::Attached(granted), fds);
        Ok(None)
    }

    /// One of its clients has not yet taken what the stream said before. At the
    /// end of a process nobody is waited for: what it left goes to the log.
    pub(crate) fn is_held(&self, index: usize, stream: Stream) -> bool {
        let process = &self.processes[index];
        let owes = |attachment: &Attachment| {
            let copy = attachment.copies[stream as usize].as_ref();
            attachment.of == process.serial && copy.is_some_and(|copy| !copy.owed.is_empty())
        };
        process.state.is_alive() && self.attachments.iter().any(owes)
    }

    /// Nothing more will come from this stream.
    pub(crate) fn end_copies(&mut self, of: Serial, stream: Stream) {
        for attachment in self.attachments.iter_mut().filter(|attachment| attachment.of == of) {
            if let Some(copy) = attachment.copy_mut(stream) {
                copy.ends = true;
            }
            attachment.copies[stream as usize].take_if(|copy| copy.owed.is_empty());
        }
    }

    /// The process has ended: its clients get the rest, and are done.
    pub(crate) fn end_attachments(&mut self, of: Serial) {
        self.end_copies(of, Stream::Out);
        self.end_copies(of, Stream::Error);
        for attachment in self.attachments.iter_mut().filter(|attachment| attachment.of == of) {
            attachment.input = None;
        }
        self.drop_attachments();
    }

    /// A client has room again, or has left.
    pub(crate) fn flush_copy(&mut self, serial: Serial, stream: Stream) {
        let patience = self.patience();
        let Some(attachment) = self.attachments.iter_mut().find(|one| one.serial == serial) else {
            return;
        };
        let token = Source::Copy(serial, stream).token();
        let Some(copy) = attachment.copy_mut(stream) else { return };
        match copy.flush(&self.poll, token, patience) {
            Ok(()) if copy.ends && copy.owed.is_empty() => {
                attachment.copies[stream as usize] = None;
            }
            Ok(()) => {}
            Err(_) => attachment.copies[stream as usize] = None,
        }
        self.drop_attachments();
        self.resume_outputs();
    }

    /// A client has said something, or will say no more.
    pub(crate) fn hear_client(&mut self, serial: Serial) {
        let Some(attachment) = self.attachments.iter_mut().find(|one| one.serial == serial) else {
            return;
        };
        let of = attachment.of;
        let Some(input) = attachment.input.as_mut().filter(|input| input.said.is_empty()) else {
            return;
        };
        input.said.reserve_exact(ATTACHMENT_INPUT_BYTES_MAX);
        match read_into(&input.fd, &mut input.said) {
            Ok(1..) => self.relay(of),
            Err(Errno::AGAIN) => {}
            Ok(0) | Err(_) => {
                attachment.input = None;
                self.input_ended(of);
                self.drop_attachments();
            }
        }
    }

    /// A client's input has ended: where that is what the container waits for,
    /// its stdin ends too.
    fn input_ended(&mut self, of: Serial) {
        if let Some(index) = self.position(of)
            && self.processes[index].stdio.stdin_once
        {
            self.close_stdin(index);
        }
    }

    /// Closes our side of a process's stdin. Nobody can say anything any more.
    pub(crate) fn close_stdin(&mut self, index: usize) {
        let process = &mut self.processes[index];
        let stdin = process.streams.stdin.take();
        if std::mem::take(&mut process.streams.stdin_watched) {
            // A terminal's has a duplicate, by which it would stay in the set.
            let _ = stdin.map(|stdin| self.poll.remove(&stdin));
        }
        process.streams.stdin_closed = true;
        let of = process.serial;
        for attachment in self.attachments.iter_mut().filter(|attachment| attachment.of == of) {
            attachment.input = None;
        }
        self.drop_attachments();
    }

    /// Gives a process what its clients have said, as far as it takes it.
    pub(crate) fn relay(&mut self, of: Serial) {
        let Some(index) = self.position(of) else { return };
        let streams = &mut self.processes[index].streams;
        let mut full = false;
        for attachment in self.attachments.iter_mut().filter(|attachment| attachment.of == of) {
            let token = Source::Input(attachment.serial).token();
            let Some(input) = &mut attachment.input else { continue };
            // A terminal that is not made yet is waited for.
            if let Some(stdin) = streams.stdin.as_ref().filter(|_| !full) {
                match give(stdin, &mut input.said) {
                    Ok(()) => {}
                    Err(Errno::AGAIN) => full = true,
                    Err(_) => return self.close_stdin(index),
                }
            }
            input.watch(&self.poll, token);
        }
        let Some(stdin) = &streams.stdin else { return };
        if full != streams.stdin_watched {
            let token = Source::Stdin(of).token();
            let changed = if full {
                self.poll.add(stdin, token, Interest { write: true, ..Interest::NONE })
            } else {
                self.poll.remove(stdin)
            };
            streams.stdin_watched = full && changed.is_ok();
        }
    }

    /// Takes the sessions of clients that were too slow.
    pub(crate) fn lose_late_attachments(&mut self, now: Duration) {
        let late = |one: &Attachment| one.deadline().is_some_and(|deadline| deadline <= now);
        let mut any = false;
        for attachment in &mut self.attachments {
            attachment.lost |= late(attachment);
            any |= attachment.lost;
        }
        if any {
            self.drop_attachments();
            self.resume_outputs();
        }
    }

    /// The shim is asked to go: what is owed has to be taken soon.
    pub(crate) fn hurry_attachments(&mut self) {
        let end = process::monotonic() + LAST_PATIENCE;
        for copy in self.attachments.iter_mut().flat_map(|one| &mut one.copies).flatten() {
            copy.deadline = copy.deadline.map(|deadline| deadline.min(end));
        }
    }

    pub(crate) fn patience(&self) -> Duration {
        if self.shutdown.is_some() { LAST_PATIENCE } else { PATIENCE }
    }

    /// Forgets clients of which nothing is left.
    pub(crate) fn drop_attachments(&mut self) {
        while let Some(at) = self.attachments.iter().position(Attachment::is_over) {
            let gone = self.attachments.swap_remove(at);
            if gone.lost {
                // There is room, unless nobody is there to read it.
                let _ = write_some(&gone.fate, b"s");
            }
            if gone.input.is_some() {
                self.input_ended(gone.of);
            }
        }
    }
}

impl Attachment {
    /// A client of a process, and its ends of the pipes.
    fn make(
        poll: &Poll,
        serial: Serial,
        of: Serial,
        granted: Attached,
    ) -> corten_kernel::Result<(Self, Vec<OwnedFd>)> {
        let mut theirs = Vec::with_capacity(4);
        let (told, fate) = pipe()?;
        let mut attachment =
            Self { serial, of, input: None, copies: [None, None], lost: false, fate };
        if granted.stdin {
            let (read, write) = pipe()?;
            set_nonblocking(&read)?;
            poll.add(&read, Source::Input(serial).token(), Interest::READ)?;
            attachment.input = Some(Input { fd: read, watched: true, said: Vec::new() });
            theirs.push(write);
        }
        for (stream, wanted) in [(Stream::Out, granted.stdout), (Stream::Error, granted.stderr)] {
            if wanted {
                let (read, write) = pipe()?;
                set_nonblocking(&write)?;
                poll.add(&write, Source::Copy(serial, stream).token(), Interest::NONE)?;
                let copy = Copy { fd: write, owed: Vec::new(), deadline: None, ends: false };
                attachment.copies[stream as usize] = Some(copy);
                theirs.push(read);
            }
        }
        theirs.push(told);
        Ok((attachment, theirs))
    }
}

/// Copies what a stream has said to everybody attached to it.
pub(crate) fn copy_to_all(
    attachments: &mut [Attachment],
    poll: &Poll,
    patience: Duration,
    (of, stream): (Serial, Stream),
    bytes: &[u8],
) {
    for attachment in attachments.iter_mut().filter(|attachment| attachment.of == of) {
        let token = Source::Copy(attachment.serial, stream).token();
        let Some(copy) = attachment.copy_mut(stream) else { continue };
        match copy.say(poll, token, patience, bytes) {
            Ok(()) => {}
            Err(Errno::PIPE) => attachment.copies[stream as usize] = None,
            Err(_) => attachment.lost = true,
        }
    }
}

impl Copy {
    fn say(
        &mut self,
        poll: &Poll,
        token: u64,
        patience: Duration,
        mut bytes: &[u8],
    ) -> Result<(), Errno> {
        if self.owed.is_empty() {
            let taken = write_all_it_takes(&self.fd, bytes)?;
            bytes = &bytes[taken..];
            if bytes.is_empty() {
                return Ok(());
            }
            self.deadline = Some(process::monotonic() + patience);
            let writable = Interest { write: true, ..Interest::NONE };
            poll.modify(&self.fd, token, writable).map_err(|error| error.errno)?;
        }
        if self.owed.len() + bytes.len() > ATTACHMENT_BYTES_MAX {
            return Err(Errno::NOBUFS);
        }
        self.owed.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes what is owed. An error: nobody is there to read it.
    fn flush(&mut self, poll: &Poll, token: u64, patience: Duration) -> Result<(), Errno> {
        if self.owed.is_empty() {
            // It was not asked for room: the client has left.
            return Err(Errno::PIPE);
        }
        let taken = write_all_it_takes(&self.fd, &self.owed)?;
        self.owed.drain(..taken);
        if taken > 0 {
            self.deadline = Some(process::monotonic() + patience);
        }
        if self.owed.is_empty() {
            self.owed = Vec::new();
            self.deadline = None;
            poll.modify(&self.fd, token, Interest::NONE).map_err(|error| error.errno)?;
        }
        Ok(())
    }
}

impl Input {
    /// Is read only when all that was read before is through: a hang-up is told
    /// however little is asked for, so that it has to leave the set.
    fn watch(&mut self, poll: &Poll, token: u64) {
        let watched = self.said.is_empty();
        if watched == self.watched {
            return;
        }
        let changed =
            if watched { poll.add(&self.fd, token, Interest::READ) } else { poll.remove(&self.fd) };
        self.watched = watched && changed.is_ok();
        if watched {
            self.said = Vec::new();
        }
    }
}

/// Gives all of it, or `EAGAIN` with the rest left.
fn give(stdin: &OwnedFd, said: &mut Vec<u8>) -> Result<(), Errno> {
    let taken = write_all_it_takes(stdin, said)?;
    said.drain(..taken);
    if said.is_empty() { Ok(()) } else { Err(Errno::AGAIN) }
}

/// How many bytes there was room for.
fn write_all_it_takes(fd: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    let mut taken = 0;
    while taken < bytes.len() {
        match write_some(fd, &bytes[taken..]) {
            Ok(0) | Err(Errno::AGAIN) => break,
            Ok(count) => taken += count,
            Err(errno) => return Err(errno),
        }
    }
    Ok(taken)
}
