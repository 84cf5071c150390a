//! Shims as the engine sees them: started, connected to, spoken with.

mod client;
mod start;

pub use client::{Shim, ShimNews};
pub use start::{ShimProgram, Started};
