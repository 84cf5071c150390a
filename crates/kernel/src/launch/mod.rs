//! Launching a process: clone, the walk of its steps, execve.

mod step;

pub use step::*;
