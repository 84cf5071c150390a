//! Output: a piece of data, framed where it lies.

use base64::prelude::{BASE64_STANDARD, Engine};
use corten_base::limits::STREAM_CHUNK_BYTES;

use crate::{spdy, websocket};

/// Where bytes go within a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlet {
    /// A stream of SPDY.
    Spdy {
        /// The stream.
        id: u32,
        /// SPDY travels in messages of WebSocket.
        tunnelled: bool,
    },
    /// A channel of a WebSocket, its bytes as they are.
    Binary {
        /// The channel.
        channel: u8,
    },
    /// A channel of a WebSocket whose messages are text.
    Base64 {
        /// The channel.
        channel: u8,
    },
}

impl Outlet {
    /// Whether the client can be told that no more will come.
    pub fn has_end(self) -> bool {
        matches!(self, Self::Spdy { .. })
    }

    /// Appends what says that no more will come; nothing where the protocol
    /// has no word for it.
    pub fn end(self, out: &mut Vec<u8>) {
        match self {
            Self::Spdy { id, tunnelled } => {
                let head = spdy::data_head(id, 0, true);
                if tunnelled {
                    websocket::frame(websocket::Opcode::Binary, &head, out);
                } else {
                    out.extend_from_slice(&head);
                }
            }
            Self::Binary { .. } | Self::Base64 { .. } => {}
        }
    }

    /// Appends what says that it is over both ways, and not as it should be;
    /// nothing where the protocol has no word for it.
    pub fn reset(self, out: &mut Vec<u8>) {
        match self {
            Self::Spdy { id, tunnelled } => {
                let mut frame = Vec::new();
                spdy::reset(id, spdy::Reset::InternalError, &mut frame);
                if tunnelled {
                    websocket::frame(websocket::Opcode::Binary, &frame, out);
                } else {
                    out.extend_from_slice(&frame);
                }
            }
            Self::Binary { .. } | Self::Base64 { .. } => {}
        }
    }

    /// Appends all of `bytes` in as many frames as are needed.
    pub fn write(self, mut bytes: &[u8], out: &mut Vec<u8>) {
        loop {
            let piece = &bytes[..bytes.len().min(STREAM_CHUNK_BYTES)];
            bytes = &bytes[piece.len()..];
            match self {
                Self::Spdy { id, tunnelled } => {
                    let head = spdy::data_head(id, piece.len(), false);
                    if tunnelled {
                        let length = head.len() + piece.len();
                        websocket::head(websocket::Opcode::Binary, length, out);
                    }
                    out.extend_from_slice(&head);
                    out.extend_from_slice(piece);
                }
                Self::Binary { channel } => {
                    websocket::head(websocket::Opcode::Binary, piece.len() + 1, out);
                    out.push(channel);
                    out.extend_from_slice(piece);
                }
                Self::Base64 { channel } => {
                    let text = BASE64_STANDARD.encode(piece);
                    websocket::head(websocket::Opcode::Text, text.len() + 1, out);
                    out.push(b'0'.wrapping_add(channel));
                    out.extend_from_slice(text.as_bytes());
                }
            }
            if bytes.is_empty() {
                return;
            }
        }
    }
}

/// Bytes before the payload: a WebSocket's head and SPDY's.
const HEAD_ROOM: usize = websocket::HEAD_BYTES_MAX + spdy::DATA_HEAD_BYTES;

/// A buffer that a payload is read into, and framed without being copied.
pub struct Chunk {
    bytes: Box<[u8]>,
    /// A head under construction.
    head: Vec<u8>,
    /// The payload as text, where an outlet wants that.
    text: Vec<u8>,
}

impl Default for Chunk {
    fn default() -> Self {
        let bytes = vec![0; HEAD_ROOM + STREAM_CHUNK_BYTES].into();
        Self { bytes, head: Vec::with_capacity(HEAD_ROOM), text: Vec::new() }
    }
}

impl Chunk {
    /// Where the payload goes.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[HEAD_ROOM..]
    }

    /// The first `length` bytes of the payload as a frame for this outlet.
    pub fn frame(&mut self, outlet: Outlet, length: usize) -> &[u8] {
        self.head.clear();
        match outlet {
            Outlet::Spdy { id, tunnelled } => {
                let head = spdy::data_head(id, length, false);
                if tunnelled {
                    let length = head.len() + length;
                    websocket::head(websocket::Opcode::Binary, length, &mut self.head);
                }
                self.head.extend_from_slice(&head);
            }
            Outlet::Binary { channel } => {
                websocket::head(websocket::Opcode::Binary, length + 1, &mut self.head);
                self.head.push(channel);
            }
            Outlet::Base64 { .. } => {
                self.text.clear();
                outlet.write(&self.bytes[HEAD_ROOM..HEAD_ROOM + length], &mut self.text);
                return &self.text;
            }
        }
        let start = HEAD_ROOM - self.head.len();
        self.bytes[start..HEAD_ROOM].copy_from_slice(&self.head);
        &self.bytes[start..HEAD_ROOM + length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTLETS: [Outlet; 4] = [
        Outlet::Spdy { id: 5, tunnelled: false },
        Outlet::Spdy { id: 5, tunnelled: true },
        Outlet::Binary { channel: 1 },
        Outlet::Base64 { channel: 1 },
    ];

    #[test]
    fn a_chunk_is_what_would_be_written() {
        let mut chunk = Chunk::default();
        for outlet in OUTLETS {
            for length in [0, 1, 2, 125, 126, 65_535, STREAM_CHUNK_BYTES] {
                chunk.room().iter_mut().enumerate().for_each(|(at, byte)| *byte = at as u8);
                let payload = chunk.room()[..length].to_vec();
                let mut written = Vec::new();
                outlet.write(&payload, &mut written);
                assert!(chunk.frame(outlet, length) == written, "{outlet:?} {length}");
            }
        }
    }

    #[test]
    fn only_spdy_has_an_end() {
        let ends = OUTLETS.map(|outlet| {
            let mut out = Vec::new();
            outlet.end(&mut out);
            out
        });
        assert_eq!(ends[0], [0, 0, 0, 5, 1, 0, 0, 0]);
        assert_eq!(ends[1], [0x82, 8, 0, 0, 0, 5, 1, 0, 0, 0]);
        assert!(ends[2].is_empty() && ends[3].is_empty());
        assert_eq!(OUTLETS.map(Outlet::has_end), [true, true, false, false]);
    }
}
