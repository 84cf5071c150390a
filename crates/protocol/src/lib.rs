//! What daemon and shim agree on: the launch plan and the frames.
#![forbid(unsafe_code)]

pub mod exit_record;
pub mod frame;
pub mod plan;
