//! The vocabulary of Corten: ids, digests, image references and every limit.
//!
//! This crate does no I/O and reads no clocks, so everything in it can be
//! tested with data alone. All other crates may use it; it uses none.
#![forbid(unsafe_code)]

pub mod digest;
pub mod id;
pub mod limits;
pub mod meter;
pub mod reference;

pub use digest::Digest;
pub use id::{ContainerId, ExecId, Namespace, SandboxId};
pub use reference::Reference;
