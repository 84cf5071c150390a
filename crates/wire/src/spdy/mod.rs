//! SPDY/3.1, the side of a server that opens no streams itself.
//!
//! Kubernetes' peers have no flow control: they neither send nor obey
//! WINDOW_UPDATE. So do we; back-pressure is that of the TCP connection.

mod decode;
mod encode;
mod headers;
mod server;

pub use decode::{Decoder, Event};
#[cfg(any(test, feature = "testing"))]
pub use encode::client;
pub use encode::{DATA_HEAD_BYTES, data_head, reset};
pub use headers::Headers;
pub use server::{Input, Server};

/// The version in every control frame.
const VERSION: u16 = 3;
/// The bit that tells control frames from data.
const CONTROL: u32 = 1 << 31;
/// Bytes before the payload of every frame.
const HEAD_BYTES: usize = 8;
/// The sender has no more for this stream.
const FLAG_FIN: u8 = 1;
/// The receiver may send nothing on this stream.
const FLAG_UNIDIRECTIONAL: u8 = 2;

/// Types of control frames.
mod kind {
    pub const SYN_STREAM: u16 = 1;
    pub const SYN_REPLY: u16 = 2;
    pub const RST_STREAM: u16 = 3;
    pub const SETTINGS: u16 = 4;
    pub const PING: u16 = 6;
    pub const GOAWAY: u16 = 7;
    pub const HEADERS: u16 = 8;
    pub const WINDOW_UPDATE: u16 = 9;
}

/// Why a stream is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// It breaks the protocol.
    ProtocolError = 1,
    /// It was not begun.
    Refused = 3,
    /// It is not wanted any more.
    Cancel = 5,
    /// Its sender is unable to go on.
    InternalError = 6,
}
