//! A stream of bytes in messages of WebSocket.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use corten_wire::websocket::{Decoder, Event, Opcode, frame};
use tokio::io::{AsyncRead, ReadBuf};

use super::connection::{Inbox, Writer};

/// What a client sends, without the frames.
pub struct Tunnel {
    inbox: Inbox,
    /// Where pings are answered.
    writer: Arc<Writer>,
    decoder: Decoder,
    /// So many bytes at the inbox's beginning are payload.
    payload: usize,
    closed: bool,
}

impl Tunnel {
    /// A tunnel through this connection.
    pub fn new(inbox: Inbox, writer: Arc<Writer>) -> Self {
        Self { inbox, writer, decoder: Decoder::default(), payload: 0, closed: false }
    }

    /// Gives payload away, if there is some.
    fn give(&mut self, out: &mut ReadBuf<'_>) -> bool {
        let count = self.payload.min(out.remaining());
        out.put_slice(&self.inbox.unread()[..count]);
        self.inbox.consume(count);
        self.payload -= count;
        count > 0
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while !this.closed && !this.give(out) {
            let (used, event) =
                this.decoder.decode(this.inbox.unread()).map_err(io::Error::other)?;
            let idle = used == 0 && event.is_none();
            match event {
                // It is the end of what was used, and stays there for now.
                Some(Event::Data { bytes, .. }) => this.payload = bytes.len(),
                Some(Event::Ping(bytes)) => {
                    this.writer.queue(|out| frame(Opcode::Pong, bytes, out))?;
                }
                Some(Event::Close) => this.closed = true,
                Some(Event::Pong) | None => {}
            }
            this.inbox.consume(used - this.payload);
            if idle && !ready!(this.inbox.poll_fill(context))? {
                this.closed = true;
            }
        }
        Poll::Ready(Ok(()))
    }
}
