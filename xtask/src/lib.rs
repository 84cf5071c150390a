//! What developers of Corten run: `cargo xtask <command>`. One file for each
//! command. Nothing here is needed at run time.

#![forbid(unsafe_code)]

pub mod bench;
pub mod build;
pub mod conformance;
pub mod demo;
pub mod fuzz;
pub mod images;
pub mod kubelet;
pub mod peers;
pub mod setup;
pub mod shell;
pub mod test;
pub mod tidy;
pub mod tools;
pub mod vm;
