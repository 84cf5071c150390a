//! Waiting for something to become true, for a bounded time.

use std::time::{Duration, Instant};

/// How long a test waits before it fails. Only a test that fails waits so
/// long: a machine that builds beside it may be ten times slower than alone.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `probe` gives something; panics with `what` when it does not.
pub async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Likewise, without an async runtime.
pub fn until_now<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
