//! Frames of a client.

use corten_base::limits::SPDY_CONTROL_BYTES_MAX;

use super::headers::{Headers, Inflater};
use super::{CONTROL, FLAG_FIN, FLAG_UNIDIRECTIONAL, HEAD_BYTES, VERSION, kind};
use crate::Error;

/// What a frame, or a part of a data frame, says.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// SYN_STREAM: the client opens a stream.
    Open {
        /// The stream.
        id: u32,
        /// The client sends nothing on it.
        fin: bool,
        /// The server is to send nothing on it.
        unidirectional: bool,
        /// Its headers.
        headers: Headers,
    },
    /// A part of a data frame.
    Data {
        /// The stream.
        id: u32,
        /// The part.
        bytes: &'a [u8],
        /// These are the client's last ones.
        fin: bool,
    },
    /// RST_STREAM: the client gives up a stream.
    Reset {
        /// The stream.
        id: u32,
    },
    /// PING: to be sent back.
    Ping(u32),
    /// GOAWAY: the client opens no more streams.
    GoAway,
    /// HEADERS with the last flag: the client sends nothing more.
    Fin {
        /// The stream.
        id: u32,
    },
}

/// Takes frames apart. A data frame is never held as a whole: its parts are
/// handed on as they come.
pub struct Decoder {
    inflater: Inflater,
    data: Option<Data>,
}

/// The data frame under way.
#[derive(Clone, Copy)]
struct Data {
    id: u32,
    fin: bool,
    left: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { inflater: Inflater::new(), data: None }
    }
}

impl Decoder {
    /// Reads from the beginning of `input`: how many bytes were used, and what
    /// they say. When none were, more input is needed; a buffer of
    /// `SPDY_CONTROL_BYTES_MAX` and a head always suffices.
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> Result<(usize, Option<Event<'a>>), Error> {
        if let Some(data) = self.data {
            return Ok(self.part(data, input));
        }
        let Some(head) = input.first_chunk::<HEAD_BYTES>() else { return Ok((0, None)) };
        let [a, b, c, d, flags, length @ ..] = *head;
        let word = u32::from_be_bytes([a, b, c, d]);
        let length = u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
        if word & CONTROL != 0 {
            return self.control(word, flags, length, input);
        }
        if word == 0 {
            return Err(Error::Spdy("data for stream 0"));
        }
        let data = Data { id: word, fin: flags & FLAG_FIN != 0, left: length };
        if length == 0 {
            let event = Event::Data { id: data.id, bytes: &[], fin: data.fin };
            return Ok((HEAD_BYTES, Some(event)));
        }
        let (used, event) = self.part(data, &input[HEAD_BYTES..]);
        Ok((HEAD_BYTES + used, event))
    }

    fn part<'a>(&mut self, mut data: Data, input: &'a [u8]) -> (usize, Option<Event<'a>>) {
        let bytes = &input[..data.left.min(input.len())];
        data.left -= bytes.len();
        let last = data.left == 0;
        self.data = (!last).then_some(data);
        if bytes.is_empty() {
            return (0, None);
        }
        (bytes.len(), Some(Event::Data { id: data.id, bytes, fin: data.fin && last }))
    }

    fn control<'a>(
        &mut self,
        word: u32,
        flags: u8,
        length: usize,
        input: &'a [u8],
    ) -> Result<(usize, Option<Event<'a>>), Error> {
        if length > SPDY_CONTROL_BYTES_MAX {
            return Err(Error::Spdy("a control frame is too long"));
        }
        if (word & !CONTROL) >> 16 != u32::from(VERSION) {
            return Err(Error::Spdy("its version is not 3"));
        }
        let Some(payload) = input.get(HEAD_BYTES..HEAD_BYTES + length) else {
            return Ok((0, None));
        };
        let fin = flags & FLAG_FIN != 0;
        let event = match word as u16 {
            kind::SYN_STREAM => {
                let (id, rest) = stream(payload)?;
                // Associated stream, priority and slot: nothing of ours.
                let block = rest.get(6..).ok_or(SHORT)?;
                let headers = self.inflater.headers(block)?;
                let unidirectional = flags & FLAG_UNIDIRECTIONAL != 0;
                Some(Event::Open { id, fin, unidirectional, headers })
            }
            kind::SYN_REPLY => return Err(Error::Spdy("a reply to what was not asked")),
            kind::RST_STREAM => Some(Event::Reset { id: stream(payload)?.0 }),
            kind::PING => Some(Event::Ping(number(payload)?.0)),
            kind::GOAWAY => Some(Event::GoAway),
            kind::HEADERS => {
                let (id, block) = stream(payload)?;
                // Read for the history that later blocks refer to.
                self.inflater.headers(block)?;
                fin.then_some(Event::Fin { id })
            }
            kind::SETTINGS | kind::WINDOW_UPDATE => None,
            // «If an endpoint receives an unknown control frame, it ignores it.»
            _ => None,
        };
        Ok((HEAD_BYTES + length, event))
    }
}

const SHORT: Error = Error::Spdy("a control frame is too short");

fn number(payload: &[u8]) -> Result<(u32, &[u8]), Error> {
    let (number, rest) = payload.split_first_chunk().ok_or(SHORT)?;
    Ok((u32::from_be_bytes(*number), rest))
}

fn stream(payload: &[u8]) -> Result<(u32, &[u8]), Error> {
    let (id, rest) = number(payload)?;
    match id & !CONTROL {
        0 => Err(Error::Spdy("stream 0")),
        id => Ok((id, rest)),
    }
}
