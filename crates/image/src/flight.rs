//! Pulls under way: who wants the same joins, and who is last to leave stops it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use corten_base::{Namespace, Reference};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::error::PullError;
use crate::image::Image;
use crate::progress::PullProgress;

pub(crate) type Outcome = Result<Arc<Image>, PullError>;

/// What makes two pulls the same. Credentials count: nobody gets an image by
/// joining somebody who may have it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub namespace: Namespace,
    pub reference: Reference,
    pub auth: [u8; 32],
}

/// All pulls under way.
#[derive(Default)]
pub(crate) struct Flights {
    flying: Arc<Mutex<HashMap<Key, Flight>>>,
}

struct Flight {
    waiters: usize,
    outcome: watch::Receiver<Option<Outcome>>,
    progress: watch::Receiver<PullProgress>,
    task: AbortHandle,
}

/// One caller's part of a flight.
pub(crate) struct Seat {
    pub outcome: watch::Receiver<Option<Outcome>>,
    pub progress: watch::Receiver<PullProgress>,
    key: Key,
    flying: Arc<Mutex<HashMap<Key, Flight>>>,
}

impl Flights {
    /// Joins the pull of `key`, or begins it with `start`.
    pub(crate) fn join<F>(
        &self,
        key: Key,
        start: impl FnOnce(watch::Sender<PullProgress>) -> F,
    ) -> Seat
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut flying = self.flying.lock().unwrap_or_else(PoisonError::into_inner);
        // One that has landed, and whose callers have not all left, is over.
        let live = flying
            .get_mut(&key)
            .filter(|flight| flight.outcome.borrow().is_none() && !flight.task.is_finished());
        let (outcome, progress) = if let Some(flight) = live {
            flight.waiters += 1;
            (flight.outcome.clone(), flight.progress.clone())
        } else {
            let (progress_sender, progress) = watch::channel(PullProgress::default());
            let (sender, outcome) = watch::channel(None);
            let work = start(progress_sender);
            let task = tokio::spawn(async move {
                let result = work.await;
                // Nobody waits any more: then nobody wants to know.
                let _ = sender.send(Some(result));
            });
            let flight = Flight {
                waiters: 1,
                outcome: outcome.clone(),
                progress: progress.clone(),
                task: task.abort_handle(),
            };
            flying.insert(key.clone(), flight);
            (outcome, progress)
        };
        Seat { outcome, progress, key, flying: self.flying.clone() }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut flying = self.flying.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(flight) =
            flying.get_mut(&self.key).filter(|flight| flight.outcome.same_channel(&self.outcome))
        else {
            return;
        };
        flight.waiters -= 1;
        if flight.waiters == 0 {
            flight.task.abort();
            flying.remove(&self.key);
        }
    }
}
