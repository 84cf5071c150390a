//! Launching a process: clone, the walk of its steps, execve.
//!
//! The parent calls [`spawn`] and goes on with its own work; the child performs
//! the steps one after the other with bare system calls: after the clone it
//! allocates nothing, takes no lock and never panics, since it may have been
//! cloned from a process with many threads. What it has to say comes over a
//! socket ([`Child::read_message`]); its end of that socket closes by itself
//! when the command runs.

mod child;
mod spawn;
mod step;
mod sync;

pub use child::{Child, Message};
pub use spawn::{Join, Launch, STEP_BEFORE, spawn};
pub use step::*;
