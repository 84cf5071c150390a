//! A stop watch.

use std::time::{Duration, Instant};

/// Milliseconds, in total and between laps.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    lap: Instant,
}

impl Clock {
    /// Starts.
    pub fn start() -> Self {
        let now = Instant::now();
        Self { start: now, lap: now }
    }

    /// Milliseconds since the last lap.
    pub fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let lap = ms(now - self.lap);
        self.lap = now;
        lap
    }

    /// Milliseconds from the start to the last lap.
    pub fn total(&self) -> f64 {
        ms(self.lap - self.start)
    }
}

/// A duration in milliseconds.
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
