//! Kubernetes' channels: the first byte of a message says to whom it goes.

use base64::prelude::{BASE64_STANDARD, Engine};

use super::decode::{Decoder, Event};
use super::{Opcode, frame};
use crate::Error;

/// The channel that tells, in v5, that another one has ended.
const CLOSE_CHANNEL: u8 = 255;

/// What messages look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Channel and bytes.
    Binary,
    /// The channel as a digit, and text.
    Base64,
}

/// What a client sends.
#[derive(Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// Bytes for a channel.
    Data {
        /// The channel.
        channel: u8,
        /// A part of a message.
        bytes: &'a [u8],
    },
    /// No more will come on a channel.
    End {
        /// The channel.
        channel: u8,
    },
    /// The client closes the connection.
    Close,
}

/// Reads a client's channels.
pub struct Channels {
    frames: Decoder,
    coding: Coding,
    half_close: bool,
    /// Whose message is under way; none until its first byte was read.
    channel: Option<u8>,
    /// Characters that are no group of four yet.
    carry: Vec<u8>,
    decoded: Vec<u8>,
}

impl Channels {
    /// Channels in this coding; with `half_close` (v5), clients can end one.
    pub fn new(coding: Coding, half_close: bool) -> Self {
        Self {
            frames: Decoder::default(),
            coding,
            half_close,
            channel: None,
            carry: Vec::new(),
            decoded: Vec::new(),
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
        let (used, event) = self.frames.decode(input)?;
        match event {
            None | Some(Event::Pong) => Ok((used, None)),
            Some(Event::Ping(bytes)) => {
                frame(Opcode::Pong, bytes, out);
                Ok((used, None))
            }
            Some(Event::Close) => Ok((used, Some(Input::Close))),
            Some(Event::Data { first, last, mut bytes }) => {
                if first {
                    self.channel = None;
                }
                let channel = match (self.channel, bytes.split_first()) {
                    (Some(channel), _) => channel,
                    (None, Some((channel, rest))) => {
                        bytes = rest;
                        let channel = self.number(*channel);
                        self.channel = Some(channel);
                        channel
                    }
                    // A message without a channel says nothing.
                    (None, None) => return Ok((used, None)),
                };
                self.message(channel, bytes, last).map(|input| (used, input))
            }
        }
    }

    fn number(&self, byte: u8) -> u8 {
        match self.coding {
            Coding::Binary => byte,
            Coding::Base64 => byte.wrapping_sub(b'0'),
        }
    }

    fn message<'a>(
        &'a mut self,
        channel: u8,
        bytes: &'a [u8],
        last: bool,
    ) -> Result<Option<Input<'a>>, Error> {
        if self.half_close && channel == CLOSE_CHANNEL {
            return match (bytes, last) {
                // The number comes with a later part.
                ([], false) => Ok(None),
                ([channel], true) => Ok(Some(Input::End { channel: *channel })),
                _ => Err(Error::Channel("an end is one channel's number")),
            };
        }
        let bytes = match self.coding {
            Coding::Binary => bytes,
            Coding::Base64 => self.decode(bytes, last)?,
        };
        Ok((!bytes.is_empty()).then_some(Input::Data { channel, bytes }))
    }

    fn decode(&mut self, text: &[u8], last: bool) -> Result<&[u8], Error> {
        const WRONG: Error = Error::Channel("it is not base64");
        self.carry.extend_from_slice(text);
        let whole = self.carry.len() / 4 * 4;
        self.decoded.clear();
        BASE64_STANDARD.decode_vec(&self.carry[..whole], &mut self.decoded).map_err(|_| WRONG)?;
        self.carry.drain(..whole);
        // Padding is a message's end.
        if last && !self.carry.is_empty() {
            return Err(WRONG);
        }
        Ok(&self.decoded)
    }
}

#[cfg(test)]
mod tests {
    use super::super::decode::client::frame as masked;
    use super::*;

    fn run(mut channels: Channels, bytes: &[u8], step: usize) -> Result<Vec<(u8, String)>, Error> {
        let (mut bytes, mut out) = (bytes.to_vec(), Vec::new());
        let mut seen: Vec<(u8, String)> = Vec::new();
        let (mut start, mut end, total) = (0, 0, bytes.len());
        loop {
            let (used, input) = channels.receive(&mut bytes[start..end], &mut out)?;
            start += used;
            match input {
                Some(Input::Data { channel, bytes }) => {
                    let text = String::from_utf8_lossy(bytes);
                    match seen.last_mut() {
                        Some((known, all)) if *known == channel => all.push_str(&text),
                        _ => seen.push((channel, text.into_owned())),
                    }
                }
                Some(Input::End { channel }) => seen.push((channel, "end".into())),
                Some(Input::Close) => seen.push((0, "close".into())),
                None if used > 0 => {}
                None if end == total => return Ok(seen),
                None => end = (end + step).min(total),
            }
        }
    }

    #[test]
    fn channels_are_told_apart() {
        let bytes = [
            masked(0x02, b"\x00fo"),
            masked(0x80, b"o"),
            masked(0x82, b""),
            masked(0x82, b"\x04{}"),
            masked(0x82, &[255, 0]),
            masked(0x88, b""),
        ]
        .concat();
        let expected: Vec<(u8, String)> =
            [(0, "foo"), (4, "{}"), (0, "end"), (0, "close")].map(|(n, s)| (n, s.into())).into();
        for step in [1, 2, 3, 5, 7, 1000] {
            let seen = run(Channels::new(Coding::Binary, true), &bytes, step).unwrap();
            assert_eq!(seen, expected);
        }
        let seen = run(Channels::new(Coding::Binary, false), &bytes, 9).unwrap();
        assert_eq!(seen[2].0, 255);
        let wrong = masked(0x82, &[255, 0, 1]);
        assert!(run(Channels::new(Coding::Binary, true), &wrong, 9).is_err());
    }

    #[test]
    fn text_may_be_split_anywhere() {
        let text = BASE64_STANDARD.encode("hello, world!");
        let bytes = [
            masked(0x01, format!("0{text}").as_bytes()),
            masked(0x80, b""),
            masked(0x81, b"4e30="),
        ]
        .concat();
        for step in 1..30 {
            let seen = run(Channels::new(Coding::Base64, false), &bytes, step).unwrap();
            assert_eq!(seen, [(0, "hello, world!".into()), (4, "{}".into())]);
        }
        for wrong in ["0e30", "0e30=e30=", "0!!!!"] {
            let bytes = masked(0x81, wrong.as_bytes());
            assert!(run(Channels::new(Coding::Base64, false), &bytes, 99).is_err(), "{wrong}");
        }
    }
}
