//! The monitor of one pod: parent of every init and exec in it, owner of their
//! streams, writer of their logs, recorder of their ends.
//!
//! One control thread waits for everything at once and touches no foreign
//! filesystem; one log thread is there while there is something to write to the
//! logs, and may hang with their disk. What is decided was decided by the daemon; the shim executes plans.
#![forbid(unsafe_code)]

mod attach;
mod daemon;
mod delegate;
mod hooks;
mod launching;
mod life;
pub mod log;
mod output;
mod process;
mod requests;
mod setup;
mod shim;
mod table;

pub use setup::run;
