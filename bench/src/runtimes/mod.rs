//! Runtimes under test.

pub mod containerd;
pub mod corten;
pub mod crio;
mod recipe;
mod subject;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

pub use recipe::Recipe;
pub use subject::{Running, Subject, confine};

use crate::home::Home;
use crate::report::Role;

/// What can be put under test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Corten with its own bridge: what the others are compared with.
    Corten,
    /// Corten with the network of the peers.
    CortenCni,
    /// containerd over runc.
    ContainerdRunc,
    /// containerd over crun.
    ContainerdCrun,
    /// CRI-O over crun.
    CrioCrun,
    /// A runtime that somebody runs himself: a name and a socket.
    Socket(String, PathBuf),
}

impl Choice {
    /// What the bench measures unless it is told otherwise; of them, CRI-O
    /// where there is one.
    pub const DEFAULT: &[Self] = &[
        Self::Corten,
        Self::CortenCni,
        Self::ContainerdRunc,
        Self::ContainerdCrun,
        Self::CrioCrun,
    ];

    /// Whether this machine has it, or can have it built.
    pub fn is_to_be_had(&self) -> bool {
        *self != Self::CrioCrun || xtask::peers::crio().is_some()
    }

    /// As the report calls it.
    pub fn name(&self) -> &str {
        match self {
            Self::Corten => "corten",
            Self::CortenCni => "corten+cni",
            Self::ContainerdRunc => "containerd+runc",
            Self::ContainerdCrun => "containerd+crun",
            Self::CrioCrun => "cri-o+crun",
            Self::Socket(name, _) => name,
        }
    }

    /// Whose it is.
    pub fn role(&self) -> Role {
        match self {
            Self::Corten | Self::CortenCni => Role::Corten,
            Self::ContainerdRunc | Self::ContainerdCrun | Self::CrioCrun | Self::Socket(..) => {
                Role::Peer
            }
        }
    }

    /// Makes a home for it below the bench's directory, starts it, and gives
    /// it the image. A runtime of somebody else pulls `image`.
    ///
    /// # Errors
    /// If it does not come to serve.
    pub async fn settle(&self, below: &Path, image: Option<&str>) -> Result<Subject> {
        let name = self.name();
        if let Self::Socket(_, socket) = self {
            let image = image.context("--socket needs --image, which that runtime can pull")?;
            return Subject::of_others(name, socket, below, image).await;
        }
        let over_crun = matches!(self, Self::ContainerdCrun | Self::CrioCrun);
        let home = Home::build(below, name, over_crun)?;
        let recipe = match self {
            Self::Corten => corten::recipe(&home, name, false)?,
            Self::CortenCni => corten::recipe(&home, name, true)?,
            Self::ContainerdRunc => containerd::recipe(&home, name, &xtask::peers::build()?.runc)?,
            Self::ContainerdCrun => containerd::recipe(&home, name, &xtask::peers::build()?.crun)?,
            Self::CrioCrun => crio::recipe(&home, name, &xtask::peers::build()?.crun)?,
            Self::Socket(..) => unreachable!("it has no home"),
        };
        Subject::of_home(home, recipe).await
    }
}

#[cfg(test)]
mod tests;
