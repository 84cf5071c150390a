//! Remote commands (exec and attach): up to five channels of one connection,
//! over SPDY or WebSocket.

use crate::status::Outcome;
use crate::websocket::{self, Channels, Code, Coding};
use crate::{Error, Outlet, spdy};

/// One of the channels; its number is WebSocket's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Input of the process.
    Stdin = 0,
    /// Its output, or its terminal's.
    Stdout = 1,
    /// Its errors.
    Stderr = 2,
    /// How the command ended.
    Error = 3,
    /// Sizes of the terminal.
    Resize = 4,
}

const CHANNELS: [Channel; 5] =
    [Channel::Stdin, Channel::Stdout, Channel::Stderr, Channel::Error, Channel::Resize];

impl Channel {
    /// As the header `streamType` has it.
    fn name(self) -> &'static str {
        match self {
            Self::Stdin => "stdin",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Error => "error",
            Self::Resize => "resize",
        }
    }

    fn of_number(number: u8) -> Option<Self> {
        CHANNELS.get(usize::from(number)).copied()
    }

    fn of_name(name: &str) -> Option<Self> {
        CHANNELS.into_iter().find(|channel| channel.name() == name)
    }
}

/// Which streams of a process a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Its input.
    pub stdin: bool,
    /// Its output.
    pub stdout: bool,
    /// Its errors.
    pub stderr: bool,
    /// It has a terminal.
    pub terminal: bool,
}

impl Wanted {
    fn has(self, channel: Channel) -> bool {
        match channel {
            Channel::Stdin => self.stdin,
            Channel::Stdout => self.stdout,
            Channel::Stderr => self.stderr,
            Channel::Error => true,
            Channel::Resize => self.terminal,
        }
    }
}

/// A protocol over SPDY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpdyProtocol {
    /// As clients offer it.
    pub name: &'static str,
    resize: bool,
    json: bool,
}

/// What is spoken over SPDY.
pub const SPDY_PROTOCOLS: [SpdyProtocol; 4] = [
    SpdyProtocol { name: "v4.channel.k8s.io", resize: true, json: true },
    SpdyProtocol { name: "v3.channel.k8s.io", resize: true, json: false },
    SpdyProtocol { name: "v2.channel.k8s.io", resize: false, json: false },
    SpdyProtocol { name: "channel.k8s.io", resize: false, json: false },
];

/// A sub-protocol of WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebSocketProtocol {
    /// As clients offer it; empty where they offer none.
    pub name: &'static str,
    coding: Coding,
    half_close: bool,
    json: bool,
}

impl WebSocketProtocol {
    /// What reads the client's channels.
    pub fn channels(&self) -> Channels {
        Channels::new(self.coding, self.half_close)
    }

    /// Where bytes for a channel go.
    pub fn outlet(&self, channel: u8) -> Outlet {
        match self.coding {
            Coding::Binary => Outlet::Binary { channel },
            Coding::Base64 => Outlet::Base64 { channel },
        }
    }
}

/// What is spoken over WebSocket.
pub const WEBSOCKET_PROTOCOLS: [WebSocketProtocol; 6] = [
    websocket_protocol("v5.channel.k8s.io", Coding::Binary, true, true),
    websocket_protocol("v4.channel.k8s.io", Coding::Binary, false, true),
    websocket_protocol("v4.base64.channel.k8s.io", Coding::Base64, false, true),
    websocket_protocol("channel.k8s.io", Coding::Binary, false, false),
    websocket_protocol("base64.channel.k8s.io", Coding::Base64, false, false),
    websocket_protocol("", Coding::Binary, false, false),
];

const fn websocket_protocol(
    name: &'static str,
    coding: Coding,
    half_close: bool,
    json: bool,
) -> WebSocketProtocol {
    WebSocketProtocol { name, coding, half_close, json }
}

/// What a client does.
#[derive(Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// It has opened a channel.
    Opened,
    /// It sends.
    Data {
        /// On this channel.
        channel: Channel,
        /// A part of it.
        bytes: &'a [u8],
        /// No more will come on the channel.
        end: bool,
    },
    /// It wants no more of a channel.
    Reset(Channel),
    /// It leaves.
    Close,
}

/// The server's side of a connection for a remote command.
pub struct Remote {
    transport: Transport,
    wanted: Wanted,
    json: bool,
}

enum Transport {
    Spdy {
        server: Box<spdy::Server>,
        /// The streams of the channels, by their numbers.
        ids: [Option<u32>; 5],
        resize: bool,
    },
    WebSocket {
        channels: Channels,
        protocol: WebSocketProtocol,
    },
}

impl Remote {
    /// Over SPDY.
    pub fn spdy(protocol: SpdyProtocol, wanted: Wanted) -> Self {
        let transport =
            Transport::Spdy { server: Box::default(), ids: [None; 5], resize: protocol.resize };
        Self { transport, wanted, json: protocol.json }
    }

    /// Over WebSocket. An empty message tells the client that all is ready.
    pub fn websocket(protocol: WebSocketProtocol, wanted: Wanted, out: &mut Vec<u8>) -> Self {
        let transport = Transport::WebSocket { channels: protocol.channels(), protocol };
        let remote = Self { transport, wanted, json: protocol.json };
        let lowest = [Channel::Stdout, Channel::Stderr, Channel::Error];
        if let Some(outlet) = lowest.into_iter().find_map(|channel| remote.outlet(channel)) {
            outlet.write(&[], out);
        }
        remote
    }

    /// All channels are there that were asked for.
    pub fn ready(&self) -> bool {
        match &self.transport {
            Transport::Spdy { ids, resize, .. } => CHANNELS.into_iter().all(|channel| {
                let expected = self.wanted.has(channel) && (*resize || channel != Channel::Resize);
                !expected || ids[channel as usize].is_some()
            }),
            Transport::WebSocket { .. } => true,
        }
    }

    /// Where bytes for the client go; none for what it did not ask for.
    pub fn outlet(&self, channel: Channel) -> Option<Outlet> {
        if !self.wanted.has(channel) {
            return None;
        }
        match &self.transport {
            Transport::Spdy { ids, .. } => {
                ids[channel as usize].map(|id| Outlet::Spdy { id, tunnelled: false })
            }
            Transport::WebSocket { protocol, .. } => Some(protocol.outlet(channel as u8)),
        }
    }

    /// Reads from the beginning of `input`: how many bytes were used, and what
    /// they mean. When none were, more input is needed. Answers that the
    /// protocol itself asks for are appended to `out`.
    pub fn receive<'a>(
        &'a mut self,
        input: &'a mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<(usize, Option<Input<'a>>), Error> {
        let wanted = self.wanted;
        match &mut self.transport {
            Transport::Spdy { server, ids, resize } => {
                let (used, event) = server.receive(input, out)?;
                let event = match event {
                    None | Some(spdy::Input::GoAway) => None,
                    Some(spdy::Input::Open { id, fin, headers }) => {
                        let channel = headers
                            .get("streamtype")
                            .and_then(Channel::of_name)
                            .filter(|channel| wanted.has(*channel))
                            .filter(|channel| *resize || *channel != Channel::Resize)
                            .filter(|channel| ids[*channel as usize].is_none());
                        match channel {
                            None => {
                                server.reset(id, spdy::Reset::Refused, out);
                                None
                            }
                            Some(channel) => {
                                server.accept(id, out);
                                ids[channel as usize] = Some(id);
                                Some(if fin && channel == Channel::Stdin {
                                    Input::Data { channel, bytes: &[], end: true }
                                } else {
                                    Input::Opened
                                })
                            }
                        }
                    }
                    Some(spdy::Input::Data { id, bytes, fin }) => {
                        let channel = channel_of(ids, id);
                        channel.map(|channel| Input::Data { channel, bytes, end: fin })
                    }
                    Some(spdy::Input::Reset { id }) => channel_of(ids, id).map(Input::Reset),
                };
                Ok((used, event))
            }
            Transport::WebSocket { channels, .. } => {
                let (used, event) = channels.receive(input, out)?;
                let channel = |number| {
                    Channel::of_number(number)
                        .filter(|channel| matches!(channel, Channel::Stdin | Channel::Resize))
                        .filter(|channel| wanted.has(*channel))
                };
                let event = match event {
                    None => None,
                    Some(websocket::Input::Data { channel: number, bytes }) => {
                        channel(number).map(|channel| Input::Data { channel, bytes, end: false })
                    }
                    Some(websocket::Input::End { channel: number }) => channel(number)
                        .map(|channel| Input::Data { channel, bytes: &[], end: true }),
                    Some(websocket::Input::Close) => Some(Input::Close),
                };
                Ok((used, event))
            }
        }
    }

    /// What is needed to end the session, apart from the reading.
    pub fn ending(&self) -> Ending {
        Ending {
            outlets: CHANNELS.map(|channel| self.outlet(channel)),
            json: self.json,
            websocket: matches!(self.transport, Transport::WebSocket { .. }),
        }
    }
}

/// The last words of a session, and others that no channel carries.
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    outlets: [Option<Outlet>; 5],
    json: bool,
    websocket: bool,
}

impl Ending {
    /// Where bytes for the client go; none for what it did not ask for.
    pub fn outlet(&self, channel: Channel) -> Option<Outlet> {
        self.outlets[channel as usize]
    }

    /// Appends how the command ended, and the end of every channel.
    pub fn finish(&self, outcome: &Outcome, out: &mut Vec<u8>) {
        let status = if self.json { outcome.json() } else { outcome.text().into_bytes() };
        let error = self.outlets[Channel::Error as usize];
        if let Some(outlet) = error.filter(|_| !status.is_empty()) {
            outlet.write(&status, out);
        }
        // The outcome comes first: clients of v1 take the end of the output
        // for the end of all.
        let others = CHANNELS.into_iter().filter(|channel| *channel != Channel::Error);
        let others = others.filter_map(|channel| self.outlets[channel as usize]);
        error.into_iter().chain(others).for_each(|outlet| outlet.end(out));
        if self.websocket {
            websocket::close(Code::Normal, out);
        }
    }

    /// Appends what keeps a client from giving up while its input cannot be
    /// taken: it would get no answers to its pings.
    pub fn reassure(&self, out: &mut Vec<u8>) {
        if self.websocket {
            websocket::frame(websocket::Opcode::Pong, &[], out);
        }
    }

    /// Appends the word that the client broke the protocol.
    pub fn complain(&self, out: &mut Vec<u8>) {
        if self.websocket {
            websocket::close(Code::ProtocolError, out);
        }
    }
}

fn channel_of(ids: &[Option<u32>; 5], id: u32) -> Option<Channel> {
    CHANNELS.into_iter().find(|channel| ids[*channel as usize] == Some(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spdy::client::Client;

    const SHELL: Wanted = Wanted { stdin: true, stdout: true, stderr: false, terminal: true };

    fn all(remote: &mut Remote, bytes: &[u8]) -> Vec<String> {
        let (mut bytes, mut out, mut start) = (bytes.to_vec(), Vec::new(), 0);
        let mut seen = Vec::new();
        loop {
            let (used, input) = remote.receive(&mut bytes[start..], &mut out).unwrap();
            start += used;
            match input {
                Some(input) => seen.push(format!("{input:?}")),
                None if used == 0 => return seen,
                None => {}
            }
        }
    }

    #[test]
    fn a_shell_over_spdy() {
        let mut remote = Remote::spdy(SPDY_PROTOCOLS[0], SHELL);
        let mut client = Client::default();
        for (id, name) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr"), (9, "odd")] {
            client.open(id, 0, &[("streamType", name)]);
        }
        assert_eq!(all(&mut remote, &client.out), ["Opened"; 3]);
        assert!(!remote.ready());
        client.out.clear();
        client.open(11, 0, &[("streamType", "resize")]).data(3, b"ls", true).reset(5);
        let seen = all(&mut remote, &client.out);
        assert!(remote.ready());
        assert!(seen[1].contains("Stdin") && seen[1].contains("end: true"), "{seen:?}");
        assert_eq!(seen[2], "Reset(Stdout)");
        assert_eq!(remote.outlet(Channel::Stderr), None);
        let mut out = Vec::new();
        remote.ending().finish(&Outcome::of(3), &mut out);
        assert!(out.starts_with(&[0, 0, 0, 1, 0]));
        assert!(String::from_utf8_lossy(&out).contains("NonZeroExitCode"));
    }

    #[test]
    fn old_clients_have_no_resizes() {
        let mut remote = Remote::spdy(SPDY_PROTOCOLS[3], SHELL);
        let mut client = Client::default();
        for (id, name) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "resize")] {
            client.open(id, 0, &[("streamType", name)]);
        }
        assert_eq!(all(&mut remote, &client.out).len(), 3);
        assert!(remote.ready());
        let mut out = Vec::new();
        remote.ending().finish(&Outcome::of(0), &mut out);
        assert_eq!(out.len(), 3 * spdy::DATA_HEAD_BYTES, "three ends and no text");
    }

    #[test]
    fn websockets_are_ready_at_once() {
        let mut out = Vec::new();
        let remote = Remote::websocket(WEBSOCKET_PROTOCOLS[0], SHELL, &mut out);
        assert!(remote.ready());
        assert_eq!(out, [0x82, 1, 1]);
        out.clear();
        remote.ending().finish(&Outcome::Success, &mut out);
        assert!(out.ends_with(&[0x88, 2, 3, 0xe8]));
        out.clear();
        let text = Remote::websocket(WEBSOCKET_PROTOCOLS[4], SHELL, &mut out);
        text.ending().finish(&Outcome::of(1), &mut out);
        assert_eq!(out[..3], [0x81, 1, b'1']);
    }
}
