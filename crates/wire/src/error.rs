//! What a peer can do wrong.

/// Why a connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A frame of SPDY that breaks the rules.
    #[error("unable to read a SPDY frame: {0}")]
    Spdy(&'static str),
    /// Compressed headers that cannot be inflated.
    #[error("unable to inflate SPDY headers: {0}")]
    Headers(&'static str),
    /// A frame of WebSocket that breaks the rules.
    #[error("unable to read a WebSocket frame: {0}")]
    WebSocket(&'static str),
    /// A message that its sub-protocol does not have.
    #[error("unable to read a channel's message: {0}")]
    Channel(&'static str),
    /// Streams that do not fit what was asked for.
    #[error("unable to use the client's streams: {0}")]
    Streams(&'static str),
}
