//! The streams of a connection, as the server keeps them.

use std::collections::BTreeSet;

use corten_base::limits::SPDY_STREAMS_MAX;

use super::decode::{Decoder, Event};
use super::headers::{Deflater, Headers};
use super::{Reset, encode};
use crate::Error;

/// What a client does with its streams.
#[derive(Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// It opens one, which waits for [`Server::accept`] or [`Server::reset`].
    Open {
        /// The stream.
        id: u32,
        /// Nothing will come on it.
        fin: bool,
        /// Its headers.
        headers: Headers,
    },
    /// It sends.
    Data {
        /// The stream.
        id: u32,
        /// What.
        bytes: &'a [u8],
        /// These are the last ones.
        fin: bool,
    },
    /// It gives one up, both ways.
    Reset {
        /// The stream.
        id: u32,
    },
    /// It opens no more.
    GoAway,
}

/// The server's side of a connection.
#[derive(Default)]
pub struct Server {
    decoder: Decoder,
    deflater: Option<Deflater>,
    open: BTreeSet<u32>,
    last: u32,
}

impl Server {
    /// Reads from the beginning of `input`: how many bytes were used, and what
    /// they mean. When none were, more input is needed. Answers that the
    /// protocol itself asks for are appended to `out`.
    pub fn receive<'a>(
        &mut self,
        input: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<(usize, Option<Input<'a>>), Error> {
        let (used, event) = self.decoder.decode(input)?;
        let input = match event {
            None => None,
            Some(Event::Open { id, fin, unidirectional, headers }) => {
                self.open(id, unidirectional, out).then_some(Input::Open { id, fin, headers })
            }
            Some(Event::Data { id, bytes, fin }) if self.open.contains(&id) => {
                Some(Input::Data { id, bytes, fin })
            }
            Some(Event::Fin { id }) if self.open.contains(&id) => {
                Some(Input::Data { id, bytes: &[], fin: true })
            }
            // What was under way to a stream that is over.
            Some(Event::Data { .. } | Event::Fin { .. }) => None,
            Some(Event::Reset { id }) => self.open.remove(&id).then_some(Input::Reset { id }),
            Some(Event::Ping(number)) => {
                // Even numbers are a server's own, and we send none.
                if !number.is_multiple_of(2) {
                    encode::ping(number, out);
                }
                None
            }
            Some(Event::GoAway) => Some(Input::GoAway),
        };
        Ok((used, input))
    }

    /// Whether a new stream may be.
    fn open(&mut self, id: u32, unidirectional: bool, out: &mut Vec<u8>) -> bool {
        let refusal = if id.is_multiple_of(2) || id <= self.last || unidirectional {
            Reset::ProtocolError
        } else if self.open.len() >= SPDY_STREAMS_MAX {
            self.last = id;
            Reset::Refused
        } else {
            self.last = id;
            return self.open.insert(id);
        };
        encode::reset(id, refusal, out);
        false
    }

    /// Takes a stream that was opened.
    pub fn accept(&mut self, id: u32, out: &mut Vec<u8>) {
        encode::reply(self.deflater.get_or_insert_with(Deflater::new), id, out);
    }

    /// Ends a stream, both ways.
    pub fn reset(&mut self, id: u32, why: Reset, out: &mut Vec<u8>) {
        if self.open.remove(&id) {
            encode::reset(id, why, out);
        }
    }

    /// A stream has ended both ways.
    pub fn ended(&mut self, id: u32) {
        self.open.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::super::encode::client::Client;
    use super::super::{FLAG_FIN, FLAG_UNIDIRECTIONAL};
    use super::*;

    /// What a server makes of all this, in pieces of `step` bytes.
    fn run(server: &mut Server, bytes: &[u8], step: usize) -> (Vec<String>, Vec<u8>) {
        let (mut seen, mut out) = (Vec::new(), Vec::new());
        let (mut start, mut end) = (0, 0);
        loop {
            let (used, input) = server.receive(&bytes[start..end], &mut out).unwrap();
            start += used;
            if let Some(input) = input {
                if let Input::Open { id, .. } = input {
                    server.accept(id, &mut out);
                }
                seen.push(format!("{input:?}"));
            } else if used == 0 {
                if end == bytes.len() {
                    assert_eq!(start, end);
                    return (seen, out);
                }
                end = (end + step).min(bytes.len());
            }
        }
    }

    #[test]
    fn a_life_of_streams() {
        let mut client = Client::default();
        client.open(1, 0, &[("streamType", "stdin")]).open(3, FLAG_FIN, &[("streamType", "error")]);
        client.data(1, b"hello", false).ping(7).data(1, b"", true).reset(1).data(1, b"late", false);
        let (seen, out) = run(&mut Server::default(), &client.out, usize::MAX / 2);
        assert_eq!(seen.len(), 5, "{seen:?}");
        assert!(seen[0].contains("stdin") && seen[1].contains("fin: true"));
        assert!(seen[2].contains("fin: false") && seen[3].contains("fin: true"));
        assert!(seen[4].contains("Reset"));
        // Two replies and the ping.
        assert!(out.ends_with(&[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 7]));
    }

    #[test]
    fn every_split_reads_alike() {
        let mut client = Client::default();
        client.open(1, 0, &[("streamType", "stdin")]).data(1, &[9; 300], true).ping(1);
        for step in 1..40 {
            let (seen, out) = run(&mut Server::default(), &client.out, step);
            assert!(seen.last().unwrap().contains("fin: true"), "{step}");
            let (_, whole) = run(&mut Server::default(), &client.out, 10_000);
            assert_eq!(out, whole);
        }
    }

    #[test]
    fn wrong_streams_are_reset() {
        let mut client = Client::default();
        client.open(2, 0, &[]).open(5, 0, &[]).open(3, 0, &[]).open(5, 0, &[]);
        client.open(7, FLAG_UNIDIRECTIONAL, &[]);
        let (seen, out) = run(&mut Server::default(), &client.out, 9);
        assert_eq!(seen.len(), 1, "{seen:?}");
        let resets = out.windows(4).filter(|window| *window == [0x80, 3, 0, 3]).count();
        assert_eq!(resets, 4);
    }

    #[test]
    fn streams_are_counted() {
        let mut client = Client::default();
        for id in 0..=SPDY_STREAMS_MAX as u32 {
            client.open(2 * id + 1, 0, &[]);
        }
        let mut server = Server::default();
        let (seen, _) = run(&mut server, &client.out, 1000);
        assert_eq!(seen.len(), SPDY_STREAMS_MAX);
        server.ended(1);
        let mut next = Client::default();
        std::mem::swap(&mut next, &mut client);
        next.out.clear();
        next.open(2 * SPDY_STREAMS_MAX as u32 + 3, 0, &[]);
        assert_eq!(run(&mut server, &next.out, 1000).0.len(), 1);
    }

    #[test]
    fn unknown_frames_are_passed_over_and_wrong_ones_are_not() {
        let mut client = Client::default();
        client.control(4, &[0; 4]).control(9, &[0; 8]).control(77, &[1; 30]).ping(3);
        let (seen, out) = run(&mut Server::default(), &client.out, 3);
        assert!(seen.is_empty() && out.len() == 12);
        let refused = |bytes: &[u8]| Server::default().receive(bytes, &mut Vec::new()).is_err();
        assert!(refused(&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 7]), "version 2");
        assert!(refused(&[0x80, 3, 0, 6, 0, 0, 0, 0]), "an empty ping");
        assert!(refused(&[0x80, 3, 0, 1, 0, 0xff, 0, 0]), "a huge control frame");
        assert!(refused(&[0, 0, 0, 0, 0, 0, 0, 1, 1]), "data for stream 0");
        assert!(refused(&[0x80, 3, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0]), "reset of stream 0");
    }
}
