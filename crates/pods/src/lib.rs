//! Sandboxes and containers: their state machines, and the engine that
//! performs what these say, with shims, networks, images and cgroups.
//!
//! The kernel and the shims are the truth about what runs; what is kept here
//! is a view of them, and can be lost at any instant.
#![forbid(unsafe_code)]

mod engine;
mod error;
mod events;
mod journal;
mod meters;
mod placement;
mod record;
mod runtimes;
mod shim;
mod state;
mod stats;
mod systemd;
mod table;
mod view;
mod watch;

pub use corten_net::CniView;
pub use corten_protocol::frame::Exit;
pub use corten_store::CopiedIn;
pub use engine::{Engine, EngineConfig, NetworkProvider};
pub use error::{Error, Kind, Result};
pub use events::{EventKind, Events, PodEvent, Since, Told};
pub use placement::CgroupDriver;
pub use runtimes::{DEFAULT_HANDLER, HandlerView, RuntimeSettings};
pub use stats::{ContainerStats, Detail, Figures, Processes, SandboxStats};
pub use view::*;
