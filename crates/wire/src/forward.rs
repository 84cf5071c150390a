//! Port-forward: pairs of streams, one for data and one for what went wrong.

use std::collections::BTreeMap;

use crate::{Error, spdy};

/// What is spoken over SPDY.
pub const SPDY_PROTOCOL: &str = "portforward.k8s.io";
/// SPDY in messages of WebSocket.
pub const TUNNEL_PROTOCOLS: [&str; 2] = ["SPDY/3.1+portforward.k8s.io", "v2.portforward.k8s.io"];

/// What a client does.
#[derive(Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// It connects to a port.
    Begin(Pair),
    /// It sends.
    Data {
        /// The data stream of a pair.
        data: u32,
        /// What.
        bytes: &'a [u8],
        /// No more will come.
        end: bool,
    },
    /// It gives a connection up.
    Reset {
        /// The data stream of the pair.
        data: u32,
    },
}

/// The streams of a connection to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// The stream for data.
    pub data: u32,
    /// The stream for what went wrong.
    pub error: u32,
    /// The port.
    pub port: u16,
    /// The client will send nothing.
    pub ended: bool,
}

/// The server's side of a connection that forwards ports over SPDY.
#[derive(Default)]
pub struct Forward {
    server: spdy::Server,
    /// Streams whose partner is not there yet, by what names the pair.
    single: BTreeMap<String, Single>,
    /// The pairs, by their data streams; with their error streams.
    pairs: BTreeMap<u32, u32>,
}

#[derive(Clone, Copy)]
enum Single {
    Data { id: u32, port: u16, ended: bool },
    Error { id: u32 },
}

impl Single {
    fn id(self) -> u32 {
        match self {
            Self::Data { id, .. } | Self::Error { id } => id,
        }
    }
}

impl Forward {
    /// Reads from the beginning of `input`: how many bytes were used, and what
    /// they mean. When none were, more input is needed. Answers that the
    /// protocol itself asks for are appended to `out`.
    pub fn receive<'a>(
        &mut self,
        input: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<(usize, Option<Input<'a>>), Error> {
        let (used, event) = self.server.receive(input, out)?;
        let event = match event {
            None | Some(spdy::Input::GoAway) => None,
            Some(spdy::Input::Open { id, fin, headers }) => {
                self.open(id, fin, &headers, out).map(Input::Begin)
            }
            Some(spdy::Input::Data { id, bytes, fin }) => {
                if self.pairs.contains_key(&id) {
                    Some(Input::Data { data: id, bytes, end: fin })
                } else {
                    self.unpaired_data(id, !bytes.is_empty(), fin, out);
                    None
                }
            }
            Some(spdy::Input::Reset { id }) => {
                self.single.retain(|_, single| single.id() != id);
                self.pairs.contains_key(&id).then_some(Input::Reset { data: id })
            }
        };
        Ok((used, event))
    }

    fn open(
        &mut self,
        id: u32,
        ended: bool,
        headers: &spdy::Headers,
        out: &mut Vec<u8>,
    ) -> Option<Pair> {
        let port = headers.get("port").and_then(|port| port.parse().ok()).filter(|port| *port > 0);
        let (Some(port), Some(role)) = (port, headers.get("streamtype")) else {
            self.server.reset(id, spdy::Reset::ProtocolError, out);
            return None;
        };
        let (single, first) = match role {
            "data" => (Single::Data { id, port, ended }, id.wrapping_sub(2)),
            "error" => (Single::Error { id }, id),
            _ => {
                self.server.reset(id, spdy::Reset::ProtocolError, out);
                return None;
            }
        };
        // Old clients name no pair: their data stream follows its error stream.
        let name = match headers.get("requestid") {
            Some(request) => format!("r{request}"),
            None => format!("s{first}"),
        };
        self.server.accept(id, out);
        match (self.single.remove(&name), single) {
            (Some(Single::Error { id: error }), Single::Data { id: data, port, ended })
            | (Some(Single::Data { id: data, port, ended }), Single::Error { id: error }) => {
                self.pairs.insert(data, error);
                Some(Pair { data, error, port, ended })
            }
            (Some(twin), _) => {
                self.server.reset(twin.id(), spdy::Reset::ProtocolError, out);
                self.single.insert(name, single);
                None
            }
            (None, _) => {
                self.single.insert(name, single);
                None
            }
        }
    }

    /// Data for what is no pair: an error stream's, or too early.
    fn unpaired_data(&mut self, id: u32, some: bool, fin: bool, out: &mut Vec<u8>) {
        let mut waiting = self.single.values_mut().filter_map(|single| match single {
            Single::Data { id, ended, .. } => Some((*id, ended)),
            Single::Error { .. } => None,
        });
        let Some((_, ended)) = waiting.find(|(data, _)| *data == id) else { return };
        if some {
            // There is nowhere to put it, and it must not be lost unnoticed.
            self.single.retain(|_, single| single.id() != id);
            self.server.reset(id, spdy::Reset::ProtocolError, out);
        } else {
            *ended |= fin;
        }
    }

    /// A connection has ended both ways, and the client was told.
    pub fn ended(&mut self, data: u32) {
        if let Some(error) = self.pairs.remove(&data) {
            self.server.ended(data);
            self.server.ended(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spdy::client::Client;

    fn all(forward: &mut Forward, client: &mut Client) -> (Vec<String>, Vec<u8>) {
        let (mut seen, mut out, mut start) = (Vec::new(), Vec::new(), 0);
        loop {
            let (used, input) = forward.receive(&client.out[start..], &mut out).unwrap();
            start += used;
            match input {
                Some(input) => seen.push(format!("{input:?}")),
                None if used == 0 => break,
                None => {}
            }
        }
        client.out.clear();
        (seen, out)
    }

    fn open(client: &mut Client, id: u32, role: &str, request: Option<&str>) {
        let mut headers = vec![("streamType", role), ("port", "80")];
        headers.extend(request.map(|request| ("requestID", request)));
        client.open(id, 0, &headers);
    }

    #[test]
    fn pairs_find_each_other() {
        let (mut forward, mut client) = (Forward::default(), Client::default());
        open(&mut client, 1, "error", Some("7"));
        open(&mut client, 3, "data", Some("8"));
        client.data(1, b"", true);
        open(&mut client, 5, "data", Some("7"));
        open(&mut client, 7, "error", Some("8"));
        client.data(5, b"GET", false).data(3, b"", true).reset(3);
        let (seen, _) = all(&mut forward, &mut client);
        assert_eq!(seen[0], "Begin(Pair { data: 5, error: 1, port: 80, ended: false })");
        assert_eq!(seen[1], "Begin(Pair { data: 3, error: 7, port: 80, ended: false })");
        assert!(seen[2].contains("data: 5") && seen[3].contains("end: true"));
        assert_eq!(seen[4], "Reset { data: 3 }");
        forward.ended(5);
        client.data(5, b"late", false);
        assert!(all(&mut forward, &mut client).0.is_empty());
    }

    #[test]
    fn old_clients_name_no_pair() {
        let (mut forward, mut client) = (Forward::default(), Client::default());
        open(&mut client, 1, "error", None);
        open(&mut client, 3, "data", None);
        assert_eq!(all(&mut forward, &mut client).0.len(), 1);
    }

    #[test]
    fn nonsense_is_reset() {
        let (mut forward, mut client) = (Forward::default(), Client::default());
        client.open(1, 0, &[("streamType", "data"), ("port", "0")]);
        client.open(3, 0, &[("streamType", "data"), ("port", "70000")]);
        client.open(5, 0, &[("streamType", "other"), ("port", "80")]);
        open(&mut client, 7, "data", Some("1"));
        client.data(7, b"early", false);
        open(&mut client, 9, "error", Some("2"));
        open(&mut client, 11, "error", Some("2"));
        let (seen, out) = all(&mut forward, &mut client);
        assert!(seen.is_empty(), "{seen:?}");
        assert_eq!(out.windows(4).filter(|window| *window == [0x80, 3, 0, 3]).count(), 5);
    }
}
