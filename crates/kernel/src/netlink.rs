//! Netlink: links, addresses and routes, and a transport for nf_tables.
//!
//! The kernel answers a netlink request before `send` returns, so nothing here
//! waits: requests go out, answers are read, and several requests can share
//! one datagram. Errors carry the kernel's own explanation (extended acks).

mod counters;
mod message;
mod namespace;
pub mod route;
mod socket;

pub use counters::{Counters, LinkCounters, link_counters};
pub use message::{Attributes, Message};
pub use namespace::{NamespaceSet, in_network_namespace, loopback_up, make_namespace_set};
pub use socket::{Family, Reply, Socket};
