//! The monitor of one pod.
#![forbid(unsafe_code)]

mod log;
