//! What containers have written, without anybody waiting for a walk.
//!
//! An overlay's upper has no counter (project quotas would be one, but few
//! file systems are mounted with them), so it is walked: when somebody asks,
//! not by a clock; in the background; and the longer a walk took, the longer
//! until the next. Answers are what the last walk found, with its time.
//!
//! There are two lanes. Small snapshots, nearly all, are walked at once; one
//! that turns out to be large goes to the other lane, where walks take breaks,
//! and stands in nobody's way.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use corten_base::ContainerId;
use corten_base::limits::{USAGE_ENTRIES_MAX, USAGE_QUICK_ENTRIES_MAX};

use super::usage::{self, Usage};

/// How long an answer is good for; kubelets ask every 10 s.
const AGE_MIN: Duration = Duration::from_secs(9);
/// So many times as long as it took, a walk is not repeated: 1 % of one CPU.
const REST_FACTOR: u32 = 100;

/// What a container has written, as the last walk found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// Bytes and files.
    pub usage: Usage,
    /// When that was.
    pub at: SystemTime,
}

/// Measures snapshots.
pub(super) struct Meter {
    shared: Arc<Shared>,
}

struct Shared {
    /// `<root>/snapshots`.
    dir: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    known: HashMap<ContainerId, Known>,
    quick: Lane,
    thorough: Lane,
}

/// Snapshots that wait to be walked.
#[derive(Default)]
struct Lane {
    queue: VecDeque<ContainerId>,
    /// A thread is at it; it ends with the queue.
    busy: bool,
}

#[derive(Default)]
struct Known {
    last: Option<Measured>,
    /// It waits in a lane, or is being walked.
    queued: bool,
    /// Not before.
    next: Option<Instant>,
}

#[derive(Clone, Copy)]
enum Pace {
    Quick,
    Thorough,
}

impl Meter {
    pub fn new(dir: PathBuf) -> Self {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Self { shared: Arc::new(Shared { dir, state, changed }) }
    }

    /// What is known of each, in their order. What was never measured is
    /// waited for, but all together no longer than `patience`.
    pub fn usages(&self, ids: &[ContainerId], patience: Duration) -> Vec<Option<Measured>> {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.state();
        for id in ids {
            let known = state.known.entry(id.clone()).or_default();
            if !known.queued && known.next.is_none_or(|next| next <= Instant::now()) {
                known.queued = true;
                state.quick.queue.push_back(id.clone());
            }
        }
        self.shared.start(&mut state, Pace::Quick);
        // Of those before, none is missing: each is looked at once, however
        // often we are woken.
        let mut from = 0;
        loop {
            let known = |id| state.known.get(id);
            let missing = |id| known(id).is_some_and(|known| known.queued && known.last.is_none());
            from += ids[from..].iter().take_while(|id| !missing(id)).count();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || from == ids.len() {
                return ids.iter().map(|id| known(id).and_then(|known| known.last)).collect();
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A snapshot is gone.
    pub fn forget(&self, id: &ContainerId) {
        self.shared.state().known.remove(id);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread of a lane that has work, unless it is at it.
    fn start(self: &Arc<Self>, state: &mut State, pace: Pace) {
        let lane = state.lane(pace);
        if lane.busy || lane.queue.is_empty() {
            return;
        }
        let shared = self.clone();
        let thread = std::thread::Builder::new().name("usage".into()).stack_size(256 << 10);
        // Without a thread now, the next one who asks tries again.
        lane.busy = thread.spawn(move || shared.walk_all(pace)).is_ok();
    }

    fn walk_all(self: Arc<Self>, pace: Pace) {
        loop {
            let id = {
                let mut state = self.state();
                let lane = state.lane(pace);
                let Some(id) = lane.queue.pop_front() else {
                    lane.busy = false;
                    return;
                };
                id
            };
            let upper = self.dir.join(id.as_str()).join("upper");
            let began = Instant::now();
            let counted = match pace {
                Pace::Quick => usage::count(&upper, USAGE_QUICK_ENTRIES_MAX, Duration::ZERO),
                Pace::Thorough => usage::count(&upper, USAGE_ENTRIES_MAX, usage::BREAK),
            };
            self.note(&id, pace, counted.ok(), began.elapsed());
        }
    }

    fn note(
        self: &Arc<Self>,
        id: &ContainerId,
        pace: Pace,
        counted: Option<Usage>,
        took: Duration,
    ) {
        let mut guard = self.state();
        let state = &mut *guard;
        // It may have been removed meanwhile.
        match (counted, state.known.get_mut(id)) {
            (Some(usage), Some(known)) => {
                let full = usage.inodes >= USAGE_QUICK_ENTRIES_MAX;
                let goes_on = full && matches!(pace, Pace::Quick);
                known.queued = goes_on;
                known.next = Some(Instant::now() + AGE_MIN.max(took * REST_FACTOR));
                // Until a large one is counted, what it had the last time is better.
                if !goes_on || known.last.is_none() {
                    known.last = Some(Measured { usage, at: SystemTime::now() });
                }
                if goes_on {
                    state.thorough.queue.push_back(id.clone());
                    self.start(state, Pace::Thorough);
                }
            }
            (None, _) => drop(state.known.remove(id)),
            (Some(_), None) => {}
        }
        self.changed.notify_all();
    }
}

impl State {
    fn lane(&mut self, pace: Pace) -> &mut Lane {
        match pace {
            Pace::Quick => &mut self.quick,
            Pace::Thorough => &mut self.thorough,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(120);

    fn snapshot(dir: &std::path::Path, number: u8, files: u64) -> ContainerId {
        let id = ContainerId::from_random([number; 32]);
        let upper = dir.join(id.as_str()).join("upper");
        std::fs::create_dir_all(&upper).unwrap();
        for file in 0..files {
            std::fs::write(upper.join(file.to_string()), b"x").unwrap();
        }
        id
    }

    #[test]
    fn what_was_never_measured_is_waited_for_and_then_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let meter = Meter::new(dir.path().to_owned());
        let ids = [snapshot(dir.path(), 1, 3), snapshot(dir.path(), 2, 0)];
        let inodes = |patience| -> Vec<Option<u64>> {
            let usages = meter.usages(&ids, patience);
            usages.iter().map(|found| found.map(|found| found.usage.inodes)).collect()
        };
        assert_eq!(inodes(PATIENCE), [Some(3), Some(0)]);
        snapshot(dir.path(), 2, 5);
        assert_eq!(inodes(Duration::ZERO), [Some(3), Some(0)], "it is too soon to walk again");
        meter.forget(&ids[1]);
        assert_eq!(inodes(PATIENCE), [Some(3), Some(5)]);
    }

    #[test]
    fn large_ones_are_counted_to_their_end() {
        let dir = tempfile::tempdir().unwrap();
        let meter = Meter::new(dir.path().to_owned());
        let files = USAGE_QUICK_ENTRIES_MAX + 10;
        let id = [snapshot(dir.path(), 1, files)];
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = meter.usages(&id, PATIENCE)[0].unwrap().usage.inodes;
            assert!(found >= USAGE_QUICK_ENTRIES_MAX, "{found}");
            if found == files {
                return;
            }
            assert!(Instant::now() < deadline, "{found}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn what_is_not_there_is_not_known() {
        let dir = tempfile::tempdir().unwrap();
        let meter = Meter::new(dir.path().to_owned());
        assert_eq!(meter.usages(&[ContainerId::from_random([9; 32])], PATIENCE), [None]);
    }
}
