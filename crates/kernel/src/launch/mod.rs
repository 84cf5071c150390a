//! Launching a process: clone, the walk of its steps, execve.
//!
//! The parent calls [`spawn`] and goes on with its own work; the child performs
//! the steps one after the other with bare system calls: after the clone it
//! allocates nothing, takes no lock and never panics, since it may have been
//! cloned from a process with many threads. What it has to say comes over a
//! socket ([`Child::read_message`]); its end of that socket closes by itself
//! when the command runs.

mod child;
mod copy_up;
mod execute;
mod files;
mod hook;
mod init;
mod lent;
mod mounts;
mod path;
mod settings;
mod spawn;
mod start;
mod step;
mod sync;
mod walk;

pub use child::{Child, Message};
use settings::{raise_limit, write_oom_score_adj};
pub use spawn::{Join, Launch, Memory, STEP_BEFORE, spawn};
pub use step::*;
pub(crate) use walk::clone_flag;

#[cfg(test)]
mod tests;
