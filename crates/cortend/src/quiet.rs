//! What is done when there is nothing to do: memory goes back.
//!
//! A pull or a crowd of pods needs megabytes for a moment. The heap keeps them,
//! scattered over pages, and code that has run once stays mapped. Nothing wakes
//! an idle daemon for this: it is done once after each spell of work.

use std::time::Duration;

use corten_cri::Calls;
use corten_kernel::memory::{self, Gauge, Held};

/// How often is looked whether it is quiet.
const LOOK: Duration = Duration::from_millis(175);
/// In so many looks in a row it must have been: longer than threads that have
/// nothing to do stay, which have shares of the heap.
const LOOKS: u32 = 4;

/// Less is not worth the trouble: kubelets ask for lists every second.
const GROWN_BYTES_MIN: u64 = 256 << 10;
/// Likewise of code: what those lists need comes back each time.
const CODE_BYTES_MIN: u64 = 5 << 20;
/// After so many calls there may be much that was freed and is still held.
const CALLS_MIN: u64 = 100;

/// Gives memory back whenever no call was answered for a while.
pub async fn tidy_up(calls: Calls) {
    // Without it memory goes back whenever there is nothing to do.
    let gauge = Gauge::open().ok();
    let held = || gauge.as_ref().and_then(Gauge::held);
    let (mut kept, mut until) = (Held::default(), 0);
    loop {
        let answered = quiet(&calls).await;
        let grown = held().is_none_or(|held| {
            held.private_bytes > kept.private_bytes + GROWN_BYTES_MIN
                || held.file_bytes > kept.file_bytes + CODE_BYTES_MIN
        });
        if grown || answered - until >= CALLS_MIN {
            memory::give_back_heap();
            memory::give_back_code();
            kept = held().unwrap_or_default();
            until = answered;
        }
        calls.next_answer().await;
    }
}

/// Waits until no call is answered for a while; how many were so far.
async fn quiet(calls: &Calls) -> u64 {
    let (mut answered, mut looks) = (calls.answered(), 0);
    while looks < LOOKS {
        tokio::time::sleep(LOOK).await;
        let now = calls.answered();
        looks = if now == answered { looks + 1 } else { 0 };
        answered = now;
    }
    answered
}
