//! What a pod costs, under Corten and under its peers: measured over the CRI
//! socket alone, as the kubelet would feel it.
#![forbid(unsafe_code)]

pub mod aims;
pub mod floor;
pub mod plot;
pub mod report;
