//! The last events.

use std::collections::VecDeque;
use std::sync::Arc;

use corten_base::limits::{EVENT_VIEWS_MAX, EVENTS_MAX};

use super::PodEvent;

/// The last events, without a hole between them.
pub(super) struct Ring {
    events: VecDeque<Arc<PodEvent>>,
    /// The number of the next one.
    next: u64,
    /// Views of containers that the events refer to.
    views: usize,
}

impl Ring {
    /// An empty one, whose first event has this number.
    pub fn new(next: u64) -> Self {
        Self { events: VecDeque::new(), next, views: 0 }
    }

    /// The number of the next event.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The number of the oldest event that is kept.
    pub fn oldest(&self) -> u64 {
        self.next - self.events.len() as u64
    }

    /// Adds the next event; the oldest go.
    pub fn push(&mut self, event: Arc<PodEvent>) {
        if event.sequence != self.next {
            // After a hole nothing before it can be told as if it were whole.
            self.events.clear();
            self.views = 0;
        }
        self.next = event.sequence + 1;
        self.views += event.containers.len();
        self.events.push_back(event);
        while self.events.len() > EVENTS_MAX || self.views > EVENT_VIEWS_MAX {
            let Some(gone) = self.events.pop_front() else { return };
            self.views -= gone.containers.len();
        }
    }

    /// The event with this number, if it is kept.
    pub fn get(&self, sequence: u64) -> Option<&Arc<PodEvent>> {
        let index = sequence.checked_sub(self.oldest())?;
        self.events.get(usize::try_from(index).ok()?)
    }

    /// All that are kept, oldest first.
    pub fn events(&self) -> impl DoubleEndedIterator<Item = &Arc<PodEvent>> {
        self.events.iter()
    }
}
