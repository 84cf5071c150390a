//! Tokens: what the kubelet gets for a request, and gives back once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use corten_base::limits::{STREAM_TOKEN_SECONDS_MAX, STREAM_TOKENS_MAX};
use corten_wire::remote::Wanted;
use rustix::rand::GetRandomFlags;
use tokio::time::Instant;

/// Bytes of a token before they are text: nobody guesses one.
const TOKEN_BYTES: usize = 16;
const LIFE: Duration = Duration::from_secs(STREAM_TOKEN_SECONDS_MAX);

/// What a stream is for. Ids are whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// A process in a container.
    Exec {
        /// The container.
        container: String,
        /// argv.
        command: Vec<String>,
        /// Which of its streams.
        wanted: Wanted,
    },
    /// A container's own process.
    Attach {
        /// The container.
        container: String,
        /// Which of its streams.
        wanted: Wanted,
    },
    /// Ports of a pod.
    PortForward {
        /// The sandbox.
        sandbox: String,
        /// Which ports, if the client knew them.
        ports: Vec<u16>,
    },
}

impl Order {
    /// The first part of its path.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Exec { .. } => "exec",
            Self::Attach { .. } => "attach",
            Self::PortForward { .. } => "portforward",
        }
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Too many were not used.
    #[error(
        "too many streams were asked for and not used: wait up to {STREAM_TOKEN_SECONDS_MAX} s"
    )]
    Full,
    /// The kernel gave no randomness.
    #[error("no random bytes: {0}")]
    Random(#[from] rustix::io::Errno),
}

/// The tokens that nobody has used yet.
#[derive(Default)]
pub struct Tokens {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    orders: HashMap<String, Order>,
    /// All that were given out, the oldest first, used ones among them.
    given: VecDeque<(Instant, String)>,
}

impl State {
    fn forget_old(&mut self) {
        let now = Instant::now();
        while self.given.front().is_some_and(|(at, _)| now.duration_since(*at) >= LIFE) {
            if let Some((_, token)) = self.given.pop_front() {
                self.orders.remove(&token);
            }
        }
    }
}

impl Tokens {
    /// A token for this order.
    pub fn give(&self, order: Order) -> Result<String, Refusal> {
        let mut random = [0; TOKEN_BYTES];
        let filled = rustix::rand::getrandom(&mut random, GetRandomFlags::empty())?;
        debug_assert_eq!(filled, TOKEN_BYTES, "the kernel never gives less than 256 bytes");
        let token = BASE64_URL_SAFE_NO_PAD.encode(random);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.forget_old();
        if state.orders.len() >= STREAM_TOKENS_MAX {
            return Err(Refusal::Full);
        }
        let State { orders, given } = &mut *state;
        if given.len() >= 2 * STREAM_TOKENS_MAX {
            given.retain(|(_, token)| orders.contains_key(token));
        }
        given.push_back((Instant::now(), token.clone()));
        orders.insert(token.clone(), order);
        Ok(token)
    }

    /// Whether somebody may use a token.
    pub fn knows(&self, kind: &str, token: &str) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.forget_old();
        state.orders.get(token).is_some_and(|order| order.kind() == kind)
    }

    /// Uses a token up.
    pub fn take(&self, kind: &str, token: &str) -> Option<Order> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.forget_old();
        state.orders.get(token).filter(|order| order.kind() == kind)?;
        state.orders.remove(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Order {
        Order::PortForward { sandbox: "s".into(), ports: vec![] }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_works_once_and_for_a_minute() {
        let tokens = Tokens::default();
        let token = tokens.give(order()).unwrap();
        assert_eq!(token.len(), 22);
        assert!(tokens.knows("portforward", &token) && !tokens.knows("exec", &token));
        assert_eq!(tokens.take("exec", &token), None);
        assert_eq!(tokens.take("portforward", &token), Some(order()));
        assert_eq!(tokens.take("portforward", &token), None);
        let old = tokens.give(order()).unwrap();
        tokio::time::advance(LIFE).await;
        assert!(!tokens.knows("portforward", &old));
        assert_eq!(tokens.take("portforward", &old), None);
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_are_counted() {
        let tokens = Tokens::default();
        for _ in 0..10 * STREAM_TOKENS_MAX {
            let token = tokens.give(order()).unwrap();
            tokens.take("portforward", &token).unwrap();
        }
        assert!(tokens.state.lock().unwrap().given.len() <= 2 * STREAM_TOKENS_MAX);
        for _ in 0..STREAM_TOKENS_MAX {
            tokens.give(order()).unwrap();
        }
        assert!(matches!(tokens.give(order()), Err(Refusal::Full)));
        tokio::time::advance(LIFE).await;
        tokens.give(order()).unwrap();
    }
}
