//! CRI's messages to our own plain types, and back. Pure functions: nothing
//! here looks at the machine.

pub mod container;
pub mod filter;
pub mod mount;
pub mod namespaces;
pub mod resources;
pub mod sandbox;
pub mod security;
pub mod signal;
pub mod stats;
pub mod view;
