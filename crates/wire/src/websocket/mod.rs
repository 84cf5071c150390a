//! WebSocket (RFC 6455), the side of a server.

mod channels;
mod decode;
mod handshake;

pub use channels::{Channels, Coding, Input};
pub use decode::{Decoder, Event};
pub use handshake::accept_key;

/// Bytes of the longest head of an unmasked frame.
pub const HEAD_BYTES_MAX: usize = 10;
/// Bytes of the longest payload of a control frame.
const CONTROL_BYTES_MAX: usize = 125;

/// What kind of frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// More of a message.
    Continuation = 0,
    /// A message of text.
    Text = 1,
    /// A message of bytes.
    Binary = 2,
    /// The end of the connection.
    Close = 8,
    /// To be answered.
    Ping = 9,
    /// An answer.
    Pong = 10,
}

/// Why a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// All is done.
    Normal = 1000,
    /// The peer broke the protocol.
    ProtocolError = 1002,
    /// We are unable to go on.
    InternalError = 1011,
}

/// Appends what comes before `length` bytes of a whole message.
pub fn head(opcode: Opcode, length: usize, out: &mut Vec<u8>) {
    out.push(0x80 | opcode as u8);
    if length < 126 {
        out.push(length as u8);
    } else if let Ok(length) = u16::try_from(length) {
        out.push(126);
        out.extend_from_slice(&length.to_be_bytes());
    } else {
        out.push(127);
        out.extend_from_slice(&(length as u64).to_be_bytes());
    }
}

/// Appends a whole message.
pub fn frame(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    head(opcode, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends the end of the connection.
pub fn close(code: Code, out: &mut Vec<u8>) {
    frame(Opcode::Close, &(code as u16).to_be_bytes(), out);
}
