//! The test kit: a machine of its own for every test.
//!
//! [`Machine::run`] gives a test namespaces (network, IPC), a directory, a cgroup, a
//! registry and a `cortend` that lives in them, and looks afterwards whether
//! anything is left of it: mounts, namespaces, cgroups, processes, addresses,
//! files. A test that leaves something behind fails.
#![forbid(unsafe_code)]

pub mod binaries;
pub mod cable;
pub mod client;
pub mod crictl;
pub mod daemon;
pub mod drift;
pub mod fuse;
pub mod group;
pub mod images;
pub mod kubelet;
pub mod machine;
pub mod poll;
pub mod scene;
pub mod service;
pub mod sweep;
pub mod terminal;
pub mod tool;
pub mod trace;
pub mod tree;

pub use client::Client;
pub use daemon::Daemon;
pub use kubelet::Kubelet;
pub use machine::Machine;
pub use poll::until;
pub use scene::Scene;
pub use service::Service;
pub use trace::Trace;
