//! Frames of a client: masked, and of any length.

use super::{CONTROL_BYTES_MAX, Opcode};
use crate::Error;

/// What a frame, or a part of one, says.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A part of a message.
    Data {
        /// The message begins with it.
        first: bool,
        /// The message ends with it.
        last: bool,
        /// The part, unmasked; may be empty.
        bytes: &'a [u8],
    },
    /// To be answered by a pong with the same bytes.
    Ping(&'a [u8]),
    /// An answer to nothing: we send no pings.
    Pong,
    /// The client closes the connection.
    Close,
}

/// Takes frames apart. Messages are never held as a whole: their parts are
/// handed on as they come.
#[derive(Default)]
pub struct Decoder {
    /// A message has begun and has not ended.
    within: bool,
    /// Nothing of the message was handed on yet.
    fresh: bool,
    part: Option<Part>,
}

/// The data frame under way.
#[derive(Clone, Copy)]
struct Part {
    fin: bool,
    left: u64,
    /// The mask, turned to where the payload goes on.
    mask: [u8; 4],
}

/// A frame's head.
struct Head {
    fin: bool,
    opcode: Opcode,
    length: u64,
    mask: [u8; 4],
    bytes: usize,
}

impl Decoder {
    /// Reads from the beginning of `input`, which is unmasked in place: how
    /// many bytes were used, and what they say. When none were, more input is
    /// needed; 139 bytes always suffice.
    pub fn decode<'a>(&mut self, input: &'a mut [u8]) -> Result<(usize, Option<Event<'a>>), Error> {
        if let Some(part) = self.part {
            return Ok(self.part(part, input));
        }
        let Some(head) = Head::read(input)? else { return Ok((0, None)) };
        if head.opcode as u8 >= Opcode::Close as u8 {
            return control(&head, input);
        }
        let continues = head.opcode == Opcode::Continuation;
        if continues != self.within {
            return Err(Error::WebSocket("messages are mixed up"));
        }
        self.fresh |= !continues;
        self.within = !head.fin;
        let part = Part { fin: head.fin, left: head.length, mask: head.mask };
        if head.length == 0 {
            // A message may be empty, but a part of one that says nothing is
            // passed over.
            let (first, last) = (self.fresh, head.fin);
            self.fresh &= !last;
            let event = last.then_some(Event::Data { first, last, bytes: &[] });
            return Ok((head.bytes, event));
        }
        let (used, event) = self.part(part, &mut input[head.bytes..]);
        Ok((head.bytes + used, event))
    }

    fn part<'a>(&mut self, mut part: Part, input: &'a mut [u8]) -> (usize, Option<Event<'a>>) {
        let length = usize::try_from(part.left).unwrap_or(usize::MAX).min(input.len());
        part.left -= length as u64;
        let done = part.left == 0;
        if length == 0 {
            self.part = Some(part);
            return (0, None);
        }
        let bytes = &mut input[..length];
        unmask(bytes, part.mask);
        part.mask.rotate_left(length % 4);
        self.part = (!done).then_some(part);
        let event = Event::Data { first: self.fresh, last: done && part.fin, bytes };
        self.fresh = false;
        (length, Some(event))
    }
}

fn control<'a>(head: &Head, input: &'a mut [u8]) -> Result<(usize, Option<Event<'a>>), Error> {
    if !head.fin || head.length > CONTROL_BYTES_MAX as u64 {
        return Err(Error::WebSocket("a control frame is too long"));
    }
    let end = head.bytes + head.length as usize;
    let Some(bytes) = input.get_mut(head.bytes..end) else { return Ok((0, None)) };
    unmask(bytes, head.mask);
    let event = match head.opcode {
        Opcode::Ping => Event::Ping(bytes),
        Opcode::Pong => Event::Pong,
        Opcode::Close => Event::Close,
        Opcode::Continuation | Opcode::Text | Opcode::Binary => {
            return Err(Error::WebSocket("data in a control frame"));
        }
    };
    Ok((end, Some(event)))
}

impl Head {
    fn read(input: &[u8]) -> Result<Option<Self>, Error> {
        let Some(&[first, second]) = input.first_chunk() else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Error::WebSocket("it uses an extension that was not agreed on"));
        }
        if second & 0x80 == 0 {
            return Err(Error::WebSocket("a client's frame is not masked"));
        }
        let opcode = match first & 0x0f {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return Err(Error::WebSocket("no such opcode")),
        };
        let rest = &input[2..];
        let length = match second & 0x7f {
            126 => rest.split_first_chunk().map(|(b, rest)| (u16::from_be_bytes(*b).into(), rest)),
            127 => rest.split_first_chunk().map(|(b, rest)| (u64::from_be_bytes(*b), rest)),
            length => Some((length.into(), rest)),
        };
        let Some((length, rest)) = length else { return Ok(None) };
        if length > i64::MAX as u64 {
            return Err(Error::WebSocket("its length has the topmost bit"));
        }
        let Some(mask) = rest.first_chunk() else { return Ok(None) };
        let bytes = input.len() - rest.len() + mask.len();
        Ok(Some(Self { fin: first & 0x80 != 0, opcode, length, mask: *mask, bytes }))
    }
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// What a client sends, for tests.
#[cfg(test)]
pub(crate) mod client {
    /// A masked frame: the first byte as given.
    pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let mut frame = vec![first];
        match payload.len() {
            length @ 0..126 => frame.push(0x80 | length as u8),
            length @ 126..65_536 => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::client::frame;
    use super::*;

    /// Messages, and control frames as text, however the bytes are split.
    fn run(bytes: &[u8], step: usize) -> Result<Vec<Vec<u8>>, Error> {
        let mut bytes = bytes.to_vec();
        let (mut decoder, mut seen, mut message) = (Decoder::default(), Vec::new(), Vec::new());
        let (mut start, mut end, total) = (0, 0, bytes.len());
        loop {
            let (used, event) = decoder.decode(&mut bytes[start..end])?;
            start += used;
            match event {
                Some(Event::Data { first, last, bytes }) => {
                    assert_eq!(first, message.is_empty());
                    message.push(0);
                    message.extend_from_slice(bytes);
                    if last {
                        let whole = std::mem::take(&mut message);
                        seen.push(whole.into_iter().filter(|byte| *byte != 0).collect());
                    }
                }
                Some(event) => seen.push(format!("{event:?}").into_bytes()),
                None if used > 0 => {}
                None if end == total => return Ok(seen),
                None => end = (end + step).min(total),
            }
        }
    }

    #[test]
    fn every_split_reads_alike() {
        let long = vec![b'x'; 70_000];
        let bytes = [
            frame(0x01, b"Hel"),
            frame(0x89, b"ping"),
            frame(0x00, b""),
            frame(0x80, b"lo"),
            frame(0x82, b""),
            frame(0x02, b""),
            frame(0x80, b""),
            frame(0x82, &long),
            frame(0x82, &long[..300]),
            frame(0x8a, b""),
            frame(0x88, &[3, 0xe8]),
        ]
        .concat();
        let whole = run(&bytes, usize::MAX / 2).unwrap();
        assert_eq!(whole.len(), 8);
        assert_eq!(whole[1], b"Hello");
        assert!(whole[2].is_empty() && whole[3].is_empty());
        assert!(whole[4] == long);
        assert_eq!(whole[7], b"Close");
        for step in (1..30).chain([127, 4096]) {
            assert!(run(&bytes, step).unwrap() == whole, "{step}");
        }
    }

    #[test]
    fn rules_are_kept() {
        assert!(run(&[0x82, 1, b'x'], 9).is_err(), "not masked");
        assert!(run(&frame(0xc2, b"x"), 9).is_err(), "an extension");
        assert!(run(&frame(0x83, b"x"), 9).is_err(), "an opcode");
        assert!(run(&frame(0x80, b"x"), 9).is_err(), "a continuation of nothing");
        assert!(run(&[frame(0x02, b"x"), frame(0x82, b"x")].concat(), 9).is_err());
        assert!(run(&frame(0x09, b"x"), 9).is_err(), "a ping in parts");
        assert!(run(&frame(0x89, &[0; 126]), 9).is_err(), "a long ping");
        assert!(run(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 20).is_err());
    }
}
