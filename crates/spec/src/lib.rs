//! The pure heart: what was asked for, the image and the node policy in; an OCI runtime spec, and from it a launch plan, out.
#![forbid(unsafe_code)]

pub mod apparmor;
pub mod capabilities;
pub mod cdi;
pub mod container;
mod error;
pub mod files;
pub mod lower;
pub mod oci;
pub mod request;
pub mod seccomp;
pub mod selinux;
pub mod signal;
mod update;
pub mod user;

pub use container::{ContainerInput, NodePolicy, container_spec};
pub use error::{Error, Result};
pub use lower::{
    BindSource, ExecBase, LowerInput, bind_sources, cgroup_resources, filter, lower, lower_exec,
    v1_cgroups,
};
pub use update::{Update, update};
pub use user::{ResolvedUser, resolve_user};

#[cfg(test)]
mod fixture;
