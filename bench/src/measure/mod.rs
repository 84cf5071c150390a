//! What the kernel says of a runtime: its processes, its cgroups, the machine.

pub mod charge;
pub mod clock;
pub mod facts;
pub mod process;
