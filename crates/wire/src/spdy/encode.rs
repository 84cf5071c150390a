//! Frames of ours.

use super::headers::{Deflater, Headers};
use super::{CONTROL, FLAG_FIN, HEAD_BYTES, Reset, VERSION, kind};

/// Bytes before the payload of a data frame.
pub const DATA_HEAD_BYTES: usize = HEAD_BYTES;

/// What comes before `length` bytes of data (less than 2^24).
pub fn data_head(id: u32, length: usize, fin: bool) -> [u8; DATA_HEAD_BYTES] {
    debug_assert!(length < 1 << 24 && id & CONTROL == 0);
    head(id, if fin { FLAG_FIN } else { 0 }, length)
}

fn head(word: u32, flags: u8, length: usize) -> [u8; HEAD_BYTES] {
    let [a, b, c, d] = word.to_be_bytes();
    let [_, e, f, g] = (length as u32).to_be_bytes();
    [a, b, c, d, flags, e, f, g]
}

fn control(kind: u16, flags: u8, payload: &[u8], out: &mut Vec<u8>) {
    let word = CONTROL | u32::from(VERSION) << 16 | u32::from(kind);
    out.extend_from_slice(&head(word, flags, payload.len()));
    out.extend_from_slice(payload);
}

/// SYN_REPLY: the stream is taken.
pub(super) fn reply(deflater: &mut Deflater, id: u32, out: &mut Vec<u8>) {
    let mut payload = id.to_be_bytes().to_vec();
    deflater.block(&Headers::default(), &mut payload);
    control(kind::SYN_REPLY, 0, &payload, out);
}

/// RST_STREAM: the stream is over, both ways.
pub fn reset(id: u32, why: Reset, out: &mut Vec<u8>) {
    let mut payload = [0; 8];
    payload[..4].copy_from_slice(&id.to_be_bytes());
    payload[4..].copy_from_slice(&(why as u32).to_be_bytes());
    control(kind::RST_STREAM, 0, &payload, out);
}

/// PING: the answer to one.
pub(super) fn ping(number: u32, out: &mut Vec<u8>) {
    control(kind::PING, 0, &number.to_be_bytes(), out);
}

/// What a client sends, for tests.
#[cfg(any(test, feature = "testing"))]
pub mod client {
    use super::*;

    /// Writes what a client sends.
    #[derive(Default)]
    pub struct Client {
        deflater: Option<Deflater>,
        /// All that was written.
        pub out: Vec<u8>,
    }

    impl Client {
        /// Opens a stream.
        pub fn open(&mut self, id: u32, flags: u8, headers: &[(&str, &str)]) -> &mut Self {
            let deflater = self.deflater.get_or_insert_with(Deflater::new);
            let mut payload = [&id.to_be_bytes()[..], &[0; 6]].concat();
            deflater.block(&Headers::of(headers), &mut payload);
            control(kind::SYN_STREAM, flags, &payload, &mut self.out);
            self
        }

        /// Sends data on one.
        pub fn data(&mut self, id: u32, bytes: &[u8], fin: bool) -> &mut Self {
            self.out.extend_from_slice(&data_head(id, bytes.len(), fin));
            self.out.extend_from_slice(bytes);
            self
        }

        /// Sends any control frame.
        pub fn control(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
            control(kind, 0, payload, &mut self.out);
            self
        }

        /// Sends a ping.
        pub fn ping(&mut self, number: u32) -> &mut Self {
            self.control(kind::PING, &number.to_be_bytes())
        }

        /// Resets a stream.
        pub fn reset(&mut self, id: u32) -> &mut Self {
            reset(id, Reset::Cancel, &mut self.out);
            self
        }
    }
}
