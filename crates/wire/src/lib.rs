//! Foreign protocols as codecs: SPDY/3.1 and WebSocket, and what Kubernetes
//! speaks over them to execute, attach and forward ports.
//!
//! Bytes in, events and bytes out: no sockets, no clocks. What comes from a
//! peer is bounded by `corten_base::limits`; what breaks a protocol is an
//! [`Error`], after which the connection is of no more use.
#![forbid(unsafe_code)]

mod chunk;
mod error;
pub mod forward;
pub mod fuzz;
pub mod remote;
pub mod resize;
pub mod spdy;
pub mod status;
pub mod websocket;

pub use chunk::{Chunk, Outlet};
pub use error::Error;
