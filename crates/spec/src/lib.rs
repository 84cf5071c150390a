//! The pure heart: what was asked for, the image and the node policy in; an OCI runtime spec, and from it a launch plan, out.
#![forbid(unsafe_code)]

pub mod oci;
pub mod request;
