//! Logs: from the streams of containers to files in the CRI log format.

mod queue;
mod stamp;
#[cfg(test)]
mod tests;
mod writer;

pub use queue::{Filled, LogId, News, Queue, Stream, Task};
