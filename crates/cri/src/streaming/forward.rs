//! Ports of a pod: each connection of a client's is a task of its own.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use corten_base::Namespace;
use corten_base::limits::STREAM_LINGER_SECONDS_MAX;
use corten_pods::Engine;
use corten_wire::forward::{Forward, Input, Pair};
use corten_wire::remote::WebSocketProtocol;
use corten_wire::{Outlet, websocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::connection::{Connection, Hangup, Inbox, Moved, Writer};
use super::sink::{AtEnd, Sink};
use crate::end::End;

/// How long a client may take for the last of it all.
const LINGER: Duration = Duration::from_secs(STREAM_LINGER_SECONDS_MAX);

/// Whose ports.
#[derive(Clone)]
pub struct Pod {
    /// Who runs it.
    pub engine: Engine,
    /// The namespace of its names.
    pub namespace: Namespace,
    /// Its sandbox.
    pub sandbox: String,
}

/// Forwards ports over SPDY; `tunnelled`, if what we say is to be in messages
/// of WebSocket.
pub async fn run(connection: Connection, pod: Pod, tunnelled: bool) {
    let Connection { mut inbox, writer, hangup, idle } = connection;
    let mut session = Session {
        lines: Lines::new(writer.clone(), hangup, pod),
        codec: Forward::default(),
        tunnelled,
    };
    let ended = tokio::select! {
        left = session.listen(&mut inbox) => left,
        error = writer.write_queued() => Err(error),
        () = writer.idle(idle) => Err(io::Error::other("nothing was said for too long")),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a port-forward was cut");
    }
}

/// Forwards these ports over channels of a WebSocket, two for each.
pub async fn run_channels(
    connection: Connection,
    pod: Pod,
    protocol: WebSocketProtocol,
    ports: &[u16],
) {
    let Connection { mut inbox, writer, hangup, idle } = connection;
    let mut lines = Lines::new(writer.clone(), hangup, pod);
    let ended = tokio::select! {
        left = listen_channels(&mut lines, &mut inbox, protocol, ports) => left,
        error = writer.write_queued() => Err(error),
        () = writer.idle(idle) => Err(io::Error::other("nothing was said for too long")),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a port-forward was cut");
    }
}

/// A connection to a port.
#[derive(Default)]
struct Line {
    sink: Sink,
    /// The client has given it up.
    given_up: watch::Sender<bool>,
}

/// Where a line's bytes go.
#[derive(Clone, Copy)]
struct Outlets {
    data: Outlet,
    error: Outlet,
}

/// The connections of a session, by numbers of its own.
struct Lines {
    writer: Arc<Writer>,
    hangup: Hangup,
    pod: Pod,
    lines: HashMap<u32, Arc<Line>>,
    tasks: JoinSet<u32>,
}

impl Lines {
    fn new(writer: Arc<Writer>, hangup: Hangup, pod: Pod) -> Self {
        Self { writer, hangup, pod, lines: HashMap::new(), tasks: JoinSet::new() }
    }

    fn begin(&mut self, number: u32, port: u16, ended: bool, outlets: Outlets) {
        let line = Arc::new(Line::default());
        if ended {
            line.sink.end();
        }
        self.lines.insert(number, line.clone());
        let (pod, writer) = (self.pod.clone(), self.writer.clone());
        self.tasks.spawn(async move {
            line.run(&pod, port, &writer, outlets).await;
            number
        });
    }

    /// Gives a line what the client says; waits while it takes no more.
    async fn say(&self, number: u32, bytes: &[u8], end: bool) -> io::Result<()> {
        let Some(line) = self.lines.get(&number) else { return Ok(()) };
        let full = !line.sink.put(bytes);
        if end {
            line.sink.end();
        }
        if full {
            tokio::select! {
                () = line.sink.room() => {}
                gone = self.hangup.gone() => {
                    gone?;
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
            }
        }
        Ok(())
    }

    fn give_up(&self, number: u32) {
        if let Some(line) = self.lines.get(&number) {
            line.sink.close();
            line.given_up.send_replace(true);
        }
    }

    /// Waits until a line is over; for ever if there is none.
    async fn over(&mut self) -> u32 {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(number)) => {
                    self.lines.remove(&number);
                    return number;
                }
                // Its number is lost, and nothing else: it is never reused.
                Some(Err(error)) => tracing::warn!(%error, "a port-forward broke"),
                None => std::future::pending().await,
            }
        }
    }
}

struct Session {
    lines: Lines,
    codec: Forward,
    tunnelled: bool,
}

impl Session {
    async fn listen(&mut self, inbox: &mut Inbox) -> io::Result<()> {
        let mut answers = Vec::new();
        loop {
            let (used, input) =
                self.codec.receive(inbox.unread(), &mut answers).map_err(io::Error::other)?;
            let more = used > 0 || input.is_some();
            let tunnelled = self.tunnelled;
            if !answers.is_empty() {
                self.lines.writer.queue(|out| {
                    if tunnelled {
                        websocket::frame(websocket::Opcode::Binary, &answers, out);
                    } else {
                        out.extend_from_slice(&answers);
                    }
                })?;
                answers.clear();
            }
            match input {
                None => {}
                Some(Input::Begin(Pair { data, error, port, ended })) => {
                    let outlets = Outlets {
                        data: Outlet::Spdy { id: data, tunnelled },
                        error: Outlet::Spdy { id: error, tunnelled },
                    };
                    self.lines.begin(data, port, ended, outlets);
                }
                Some(Input::Data { data, bytes, end }) => self.lines.say(data, bytes, end).await?,
                Some(Input::Reset { data }) => self.lines.give_up(data),
            }
            inbox.consume(used);
            if !more {
                tokio::select! {
                    biased;
                    over = self.lines.over() => self.codec.ended(over),
                    filled = inbox.fill() => if !filled? {
                        return Ok(());
                    },
                }
            }
        }
    }
}

async fn listen_channels(
    lines: &mut Lines,
    inbox: &mut Inbox,
    protocol: WebSocketProtocol,
    ports: &[u16],
) -> io::Result<()> {
    for (number, port) in (0u8..).zip(ports) {
        let outlets =
            Outlets { data: protocol.outlet(2 * number), error: protocol.outlet(2 * number + 1) };
        lines.writer.queue(|out| {
            // So that a client knows which channels are of which port.
            outlets.data.write(&port.to_le_bytes(), out);
            outlets.error.write(&port.to_le_bytes(), out);
        })?;
        lines.begin(number.into(), *port, false, outlets);
    }
    let mut channels = protocol.channels();
    let mut answers = Vec::new();
    loop {
        let (used, input) =
            channels.receive(inbox.unread(), &mut answers).map_err(io::Error::other)?;
        let more = used > 0 || input.is_some();
        if !answers.is_empty() {
            lines.writer.queue(|out| out.append(&mut answers))?;
        }
        match input {
            // Odd channels are for what goes wrong, and ours alone.
            Some(websocket::Input::Data { channel, bytes }) if channel % 2 == 0 => {
                lines.say(u32::from(channel / 2), bytes, false).await?;
            }
            Some(websocket::Input::End { channel }) if channel % 2 == 0 => {
                lines.say(u32::from(channel / 2), &[], true).await?;
            }
            Some(websocket::Input::Data { .. } | websocket::Input::End { .. }) | None => {}
            Some(websocket::Input::Close) => return Ok(()),
        }
        inbox.consume(used);
        if more {
            continue;
        }
        tokio::select! {
            biased;
            _ = lines.over() => if lines.lines.is_empty() {
                let close = |out: &mut Vec<u8>| websocket::close(websocket::Code::Normal, out);
                tokio::time::timeout(LINGER, lines.writer.send(close)).await??;
            },
            filled = inbox.fill() => if !filled? {
                return Ok(());
            },
        }
    }
}

/// How a line ended.
enum Over {
    /// As lines do.
    Well,
    /// The other end has broken it.
    Broken,
    /// It was not begun.
    Refused(String),
}

impl Line {
    async fn run(&self, pod: &Pod, port: u16, writer: &Writer, outlets: Outlets) {
        let over = match self.dial(pod, port).await {
            Ok(Some(end)) => self.talk(Arc::new(end), writer, outlets.data).await,
            Ok(None) => Ok(Over::Well),
            Err(refused) => Ok(Over::Refused(refused)),
        };
        self.sink.close();
        // An error means that the client has gone, which others notice.
        let Ok(over) = over else { return };
        let _ = writer
            .send(|out| {
                match over {
                    Over::Well => {}
                    // Not a word on the error stream: clients take that for the
                    // end of all their connections.
                    Over::Broken => outlets.data.reset(out),
                    Over::Refused(reason) => {
                        outlets.error.write(reason.as_bytes(), out);
                        outlets.data.end(out);
                    }
                }
                outlets.error.end(out);
            })
            .await;
    }

    /// Connects; none if the client does not want it any more.
    async fn dial(&self, pod: &Pod, port: u16) -> Result<Option<End>, String> {
        let Pod { engine, namespace, sandbox } = pod.clone();
        let dialled =
            tokio::spawn(async move { engine.port_forward(&namespace, &sandbox, port).await });
        let socket = tokio::select! {
            dialled = dialled => match dialled {
                Ok(dialled) => dialled.map_err(|error| error.to_string())?,
                Err(broken) => return Err(broken.to_string()),
            },
            () = self.given_up() => return Ok(None),
        };
        let end = End::new(socket)
            .map_err(|error| format!("unable to watch a connection to port {port}: {error}"))?;
        Ok(Some(end))
    }

    async fn talk(&self, end: Arc<End>, writer: &Writer, data: Outlet) -> io::Result<Over> {
        self.sink.connect(end.clone(), AtEnd::Shutdown);
        let speaking = async {
            loop {
                let mut readable = tokio::select! {
                    readable = end.readable() => readable?,
                    () = self.given_up() => return Ok(Over::Well),
                };
                match writer.carry(&mut readable, &end, Some(data)).await? {
                    Moved::Some | Moved::Nothing => {}
                    Moved::Broken => {
                        self.sink.close();
                        return Ok(Over::Broken);
                    }
                    Moved::End => {
                        writer.send(|out| data.end(out)).await?;
                        if !data.has_end() {
                            // The client cannot know, and would never end its half.
                            self.sink.close();
                        }
                        return Ok(Over::Well);
                    }
                }
            }
        };
        // What is not taken is no end of what is said: a server may answer
        // before it has read everything.
        let (_, spoken) = tokio::join!(self.sink.drain(), speaking);
        spoken
    }

    async fn given_up(&self) {
        // The sender lives as long as we do.
        let _ = self.given_up.subscribe().wait_for(|given_up| *given_up).await;
    }
}
