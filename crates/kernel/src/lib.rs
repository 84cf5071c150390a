//! Every system call of Corten, made safe.
//!
//! This crate touches the kernel and nothing else: it holds no policy, knows
//! nothing of Kubernetes or OCI, and parses no JSON. It is the only crate that
//! may contain `unsafe`.

pub mod cgroup;
mod error;
pub mod event;
pub mod fdpass;
pub mod fsuser;
pub mod heap;
pub mod launch;
pub mod memfd;
pub mod memory;
pub mod mount;
pub mod netlink;
pub mod ns;
pub mod overlay;
pub mod process;
pub mod random;
pub mod rooted;
pub mod stream;
pub(crate) mod sys;
pub mod sysctl;
pub mod tcp;

pub use error::{Context, Error, Result};
pub use rustix::io::Errno;
