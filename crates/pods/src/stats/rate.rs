//! Processor time per second, without a clock that samples it: each question
//! is a sample, and compared with one that is old enough.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How old a sample must be to be compared with. What two clients ask for at
/// nearly the same time is no window.
const WINDOW_MIN: Duration = Duration::from_secs(1);

/// Samples of one group.
#[derive(Debug, Default)]
pub(crate) struct CpuRate {
    samples: Mutex<Samples>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Samples {
    /// Is compared with until the newer one is old enough.
    older: Option<Sample>,
    newer: Option<Sample>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    used_ns: u64,
}

impl CpuRate {
    /// Takes a sample: nanoseconds of a core per second since an earlier one,
    /// or for the first one since the group is there, which is `age` long.
    pub fn sample(&self, at: Instant, used_ns: u64, age: Duration) -> Option<u64> {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Sample { at, used_ns };
        let Some(newer) = samples.newer else {
            samples.newer = Some(now);
            return rate(used_ns, age);
        };
        if at.saturating_duration_since(newer.at) >= WINDOW_MIN {
            *samples = Samples { older: Some(newer), newer: Some(now) };
        }
        match samples.older {
            Some(older) => {
                let used = used_ns.saturating_sub(older.used_ns);
                rate(used, at.saturating_duration_since(older.at))
            }
            None => rate(used_ns, age),
        }
    }
}

fn rate(used_ns: u64, time: Duration) -> Option<u64> {
    if time.is_zero() {
        return None;
    }
    u64::try_from(u128::from(used_ns) * 1_000_000_000 / time.as_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_question_is_compared_with_one_before() {
        const SECOND: u64 = 1_000_000_000;
        let seconds = Duration::from_secs;
        let rates = CpuRate::default();
        let start = Instant::now();
        // Half a core over its first ten seconds.
        assert_eq!(rates.sample(start, 5 * SECOND, seconds(10)), Some(SECOND / 2));
        // Two cores since.
        let later = start + seconds(10);
        assert_eq!(rates.sample(later, 25 * SECOND, seconds(20)), Some(2 * SECOND));
        // A second client, at once: the window is still the same.
        let soon = later + Duration::from_millis(1);
        let same = rates.sample(soon, 25 * SECOND, seconds(20)).unwrap();
        assert!((1_990_000_000..=2 * SECOND).contains(&same), "{same}");
        // Idle since.
        assert_eq!(rates.sample(later + seconds(10), 25 * SECOND, seconds(30)), Some(0));
    }

    #[test]
    fn no_time_gives_no_rate() {
        let rates = CpuRate::default();
        assert_eq!(rates.sample(Instant::now(), 5, Duration::ZERO), None);
    }
}
