//! What people type, and when they leave.

use std::io::Read;

use bytes::Bytes;
use corten_api::corten::TerminalSize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::limits::{INPUT_BYTES, INPUTS_WAITING_MAX};
use crate::parse::keys::{Keys, Watch};
use crate::terminal::{self, Raw};

/// One thing that comes from people.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    /// Input.
    Bytes(Bytes),
    /// There is no more input.
    End,
    /// Our terminal has another size.
    Size(TerminalSize),
    /// They leave the session, and what runs goes on.
    Left,
}

/// What is wanted of our stdin and our terminal.
#[derive(Debug, Clone)]
pub struct Wishes {
    /// It is read.
    pub input: bool,
    /// There is a terminal on the other side.
    pub terminal: bool,
    /// The keys by which people leave, where they have a terminal on both.
    pub keys: Keys,
    /// SIGTERM leaves too, so that our terminal is put right before we go.
    pub until_terminated: bool,
}

/// Our stdin and our terminal. The terminal is as it was before when this goes.
pub struct Keyboard {
    input: Option<mpsc::Receiver<Typed>>,
    resized: Option<Signal>,
    terminated: Option<Signal>,
    _raw: Option<Raw>,
}

impl Keyboard {
    /// Begins to read.
    pub fn open(wishes: Wishes) -> Result<Self> {
        let typed_into = terminal::is_typed_into();
        let raw = wishes.input && wishes.terminal && typed_into;
        let take = |kind| signal(kind).map_err(Error::io("take care of signals"));
        let resized = wishes.terminal.then(|| take(SignalKind::window_change())).transpose()?;
        let terminated =
            (raw && wishes.until_terminated).then(|| take(SignalKind::terminate())).transpose()?;
        let _raw = raw.then(Raw::enter).transpose()?;
        let input = wishes.input.then(|| {
            let (sender, receiver) = mpsc::channel(INPUTS_WAITING_MAX);
            let watch = raw.then(|| Watch::new(wishes.keys));
            // A read cannot be given up: the thread ends with the program.
            tokio::task::spawn_blocking(move || read(std::io::stdin(), watch, &sender));
            receiver
        });
        Ok(Self { input, resized, terminated, _raw })
    }

    /// The next thing. Never comes where nothing is read any more.
    pub async fn next(&mut self) -> Typed {
        let Self { input, resized, terminated, .. } = self;
        loop {
            tokio::select! {
                typed = from(input) => {
                    if typed == Typed::End {
                        *input = None;
                    }
                    return typed;
                }
                () = came(resized) => {
                    if let Some(size) = terminal::size() {
                        return Typed::Size(size);
                    }
                }
                () = came(terminated) => return Typed::Left,
            }
        }
    }
}

async fn from(input: &mut Option<mpsc::Receiver<Typed>>) -> Typed {
    match input {
        Some(input) => input.recv().await.unwrap_or(Typed::End),
        None => std::future::pending().await,
    }
}

async fn came(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Reads until the end, or until nobody wants it any more. Input that cannot
/// be read has ended.
fn read(mut from: impl Read, mut watch: Option<Watch>, to: &mpsc::Sender<Typed>) {
    let mut buffer = vec![0; INPUT_BYTES];
    loop {
        let typed = match from.read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => {
                let _ = to.blocking_send(Typed::End);
                return;
            }
            Ok(count) => &buffer[..count],
        };
        let (on, left) = match &mut watch {
            Some(watch) => watch.pass(typed),
            None => (typed.to_vec(), false),
        };
        if !on.is_empty() && to.blocking_send(Typed::Bytes(on.into())).is_err() {
            return;
        }
        if left {
            let _ = to.blocking_send(Typed::Left);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::keys;

    fn all(input: &[u8], watch: Option<Watch>) -> Vec<Typed> {
        let (sender, mut receiver) = mpsc::channel(100);
        read(input, watch, &sender);
        drop(sender);
        std::iter::from_fn(|| receiver.try_recv().ok()).collect()
    }

    #[test]
    fn input_ends_or_is_left() {
        let watch = || Some(Watch::new(keys::parse("ctrl-p,ctrl-q").unwrap()));
        assert_eq!(all(b"ab", None), [Typed::Bytes("ab".into()), Typed::End]);
        assert_eq!(all(b"a\x10\x11b", watch()), [Typed::Bytes("a".into()), Typed::Left]);
        let plain = [Typed::Bytes(Bytes::from_static(b"a\x10\x11b")), Typed::End];
        assert_eq!(all(b"a\x10\x11b", None), plain);
    }
}
