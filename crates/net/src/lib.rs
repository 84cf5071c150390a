//! Networks of pods: namespaces kept ready, the CNI client, the built-in bridge.
//!
//! Everything acts on the network namespace of the thread that calls (and of
//! those that it starts), so a whole daemon can live in a namespace of its own.
#![forbid(unsafe_code)]

mod address;
mod bridge;
mod cni;
mod error;
mod namespaces;
mod network;
mod request;
#[cfg(test)]
mod testing;

pub use address::IpNet;
pub use bridge::{Bridge, BridgeSettings};
pub use cni::{Cni, CniSettings, CniView};
pub use error::{Error, Result};
pub use namespaces::{NamespacePool, PodNamespaces};
pub use network::{Kept, Network};
pub use request::{Attachment, BridgeRecord, CniRecord, Interface, NetworkRequest, Provider};
