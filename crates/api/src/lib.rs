//! The wire contracts: CRI v1 and Corten's own `corten.v1`, with the types,
//! clients and servers that are generated from them.
//!
//! The contracts are in `proto/`. CRI's is a transcription: a test holds it
//! equal to what Kubernetes publishes.
#![forbid(unsafe_code)]

#[cfg(feature = "client")]
mod client;
mod secret;

#[cfg(feature = "client")]
pub use client::{ConnectError, connect};

/// CRI v1: what the kubelet and crictl speak.
#[allow(missing_docs, deprecated, clippy::all)]
pub mod cri {
    tonic::include_proto!("runtime.v1");
}

/// `corten.v1`: what `corten` speaks.
#[allow(missing_docs, clippy::all)]
pub mod corten {
    tonic::include_proto!("corten.v1");
}

/// Where the daemon listens unless it is told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/corten/corten.sock";
