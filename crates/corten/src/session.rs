//! A session with a process: what people type to it, what it says to them.

use bytes::Bytes;
use corten_api::corten as api;
use corten_api::corten::LogStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::client::Daemon;
use crate::error::{Doing, Error, Result};
use crate::keyboard::{Keyboard, Typed};
use crate::limits::INPUTS_WAITING_MAX;
use crate::writer::Writer;

/// A call that is a session.
pub trait Call {
    /// What goes to the daemon.
    type Request: Send + 'static;
    /// What comes from it.
    type Response;
    /// The message that carries what people say.
    fn say(input: api::SessionInput) -> Self::Request;
    /// What a message is.
    fn hear(response: Self::Response) -> Option<Heard>;
}

/// What comes from the process.
pub enum Heard {
    /// Output.
    Output(LogStream, Bytes),
    /// It has ended.
    Exited(api::WaitContainerResponse),
    /// We were too slow for its output, and get no more.
    TooSlow,
}

/// How a session ended.
#[derive(Debug)]
pub enum End {
    /// The process has ended.
    Exited(api::WaitContainerResponse),
    /// People have left; the process goes on.
    Left,
    /// We were too slow for its output, and have missed some.
    TooSlow,
    /// The daemon says no more, and not why.
    Silent,
    /// Nobody reads what we write.
    NoReader,
}

/// `corten exec`.
pub struct Exec;

/// `corten attach`, and `corten run` with a terminal.
pub struct Attach;

impl Call for Exec {
    type Request = api::ExecRequest;
    type Response = api::ExecResponse;

    fn say(input: api::SessionInput) -> Self::Request {
        api::ExecRequest { event: Some(api::exec_request::Event::Input(input)) }
    }

    fn hear(response: Self::Response) -> Option<Heard> {
        use api::exec_response::Event;
        match response.event? {
            Event::Output(output) => heard(output),
            Event::Exited(api::ExecExited { exit_code }) => {
                Some(Heard::Exited(api::WaitContainerResponse { exit_code, ..Default::default() }))
            }
        }
    }
}

impl Call for Attach {
    type Request = api::AttachRequest;
    type Response = api::AttachResponse;

    fn say(input: api::SessionInput) -> Self::Request {
        api::AttachRequest { event: Some(api::attach_request::Event::Input(input)) }
    }

    fn hear(response: Self::Response) -> Option<Heard> {
        use api::attach_response::Event;
        match response.event? {
            Event::Attached(_) => None,
            Event::Output(output) => heard(output),
            Event::Exited(exited) => Some(Heard::Exited(exited)),
            Event::TooSlow(_) => Some(Heard::TooSlow),
        }
    }
}

fn heard(output: api::SessionOutput) -> Option<Heard> {
    use api::session_output::Event;
    Some(match output.event? {
        Event::Stdout(bytes) => Heard::Output(LogStream::Stdout, bytes),
        Event::Stderr(bytes) => Heard::Output(LogStream::Stderr, bytes),
    })
}

/// What people typed, as it is said; none if they have left.
fn said(typed: Typed) -> Option<api::SessionInput> {
    use api::session_input::Event;
    let event = match typed {
        Typed::Bytes(bytes) => Event::Stdin(bytes),
        Typed::End => Event::StdinClosed(api::StdinClosed {}),
        Typed::Size(size) => Event::Resize(size),
        Typed::Left => return None,
    };
    Some(api::SessionInput { event: Some(event) })
}

/// A session that was begun.
pub struct Session<C: Call> {
    requests: mpsc::Sender<C::Request>,
    responses: Streaming<C::Response>,
    /// What was typed, and not yet sent.
    typed: Option<C::Request>,
    /// What was heard, and not yet written.
    heard: Option<(LogStream, Bytes)>,
}

impl Session<Exec> {
    /// Runs a command.
    pub async fn exec(
        daemon: &Daemon,
        start: api::ExecStart,
    ) -> std::result::Result<Self, tonic::Status> {
        let start = api::exec_request::Event::Start(start);
        let (requests, stream) = stream_of(api::ExecRequest { event: Some(start) });
        let responses = daemon.calls().exec(stream).await?.into_inner();
        Ok(Self::new(requests, responses))
    }
}

impl Session<Attach> {
    /// Attaches to a container; what it is attached to.
    pub async fn attach(daemon: &Daemon, start: api::AttachStart) -> Result<(Self, api::Attached)> {
        let doing = format!("attach to {}", crate::output::short_id(&start.container));
        let start = api::attach_request::Event::Start(start);
        let (requests, stream) = stream_of(api::AttachRequest { event: Some(start) });
        let mut responses = daemon.calls().attach(stream).await.doing(&doing)?.into_inner();
        let first = responses.message().await.doing(&doing)?.and_then(|first| first.event);
        match first {
            Some(api::attach_response::Event::Attached(attached)) => {
                Ok((Self::new(requests, responses), attached))
            }
            _ => Err(Error::Input(format!("unable to {doing}: the daemon does not say to what"))),
        }
    }
}

fn stream_of<Q: Send + 'static>(first: Q) -> (mpsc::Sender<Q>, ReceiverStream<Q>) {
    let (requests, stream) = mpsc::channel(INPUTS_WAITING_MAX);
    // There is room: it is the first.
    let _ = requests.try_send(first);
    (requests, ReceiverStream::new(stream))
}

impl<C: Call> Session<C> {
    fn new(requests: mpsc::Sender<C::Request>, responses: Streaming<C::Response>) -> Self {
        Self { requests, responses, typed: None, heard: None }
    }

    /// Goes on until the end. May be given up and called again.
    pub async fn run(
        &mut self,
        keyboard: &mut Keyboard,
        writer: &Writer,
        doing: &str,
    ) -> Result<End> {
        loop {
            tokio::select! {
                message = self.responses.message(), if self.heard.is_none() => {
                    let Some(message) = message.doing(doing)? else { return Ok(End::Silent) };
                    match C::hear(message) {
                        Some(Heard::Output(to, bytes)) => self.heard = Some((to, bytes)),
                        Some(Heard::Exited(exited)) => return Ok(End::Exited(exited)),
                        Some(Heard::TooSlow) => return Ok(End::TooSlow),
                        None => {}
                    }
                }
                room = writer.room(), if self.heard.is_some() => {
                    let Some(room) = room else { return Ok(End::NoReader) };
                    if let Some(piece) = self.heard.take() {
                        room.send(piece);
                    }
                }
                typed = keyboard.next(), if self.typed.is_none() => match said(typed) {
                    Some(input) => self.typed = Some(C::say(input)),
                    None => return Ok(End::Left),
                },
                permit = self.requests.reserve(), if self.typed.is_some() => {
                    match (permit, self.typed.take()) {
                        (Ok(permit), Some(request)) => permit.send(request),
                        // Nobody listens any more; what is said tells why.
                        (Err(_), _) | (_, None) => {}
                    }
                }
            }
        }
    }
}
