//! How images are pulled on this node.

use std::path::PathBuf;
use std::time::Duration;

use crate::proxy::Proxies;

/// Settings of [`crate::Images`].
#[derive(Debug, Clone)]
pub struct ImagesConfig {
    /// Directories with `<host>/hosts.toml`; the first that has a registry's wins.
    pub hosts_dirs: Vec<PathBuf>,
    /// Which image of an index is taken.
    pub platform: Platform,
    /// Layers of one image that are fetched at the same time.
    pub concurrency: usize,
    /// A registry that sends next to nothing for so long is given up.
    pub stall_timeout: Duration,
    /// Until a connection is made, where hosts.toml says nothing.
    pub connect_timeout: Duration,
    /// The first pause before a request is tried again; it doubles.
    pub retry_pause: Duration,
    /// How registries are reached from this site.
    pub proxies: Proxies,
    /// Images with such a name are reported as pinned: the kubelet keeps them.
    pub pinned: Vec<String>,
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self {
            hosts_dirs: vec!["/etc/corten/certs.d".into(), "/etc/containerd/certs.d".into()],
            platform: Platform::host(),
            concurrency: 6,
            stall_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(30),
            retry_pause: Duration::from_millis(500),
            proxies: Proxies::default(),
            pinned: Vec::new(),
        }
    }
}

/// An operating system and architecture, in the words of image indexes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `linux`
    pub os: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `v7`, …; empty for any.
    pub variant: String,
}

impl Platform {
    /// What this program was built for.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "aarch64" => ("arm64", "v8"),
            "x86" => ("386", ""),
            "arm" => ("arm", "v7"),
            other => (other, ""),
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: variant.into() }
    }

    /// How well an image for `other` runs here; None if it does not. An index
    /// that does not name a variant means the common one.
    pub(crate) fn rank(&self, os: &str, architecture: &str, variant: &str) -> Option<u32> {
        if os != self.os || architecture != self.architecture {
            return None;
        }
        if variant == self.variant || variant.is_empty() {
            return Some(if variant == self.variant { 100 } else { 50 });
        }
        match (variant.strip_prefix('v'), self.variant.strip_prefix('v')) {
            // An older variant of the same architecture runs; newer is better.
            (Some(theirs), Some(ours)) => {
                let (theirs, ours) = (theirs.parse::<u32>().ok()?, ours.parse::<u32>().ok()?);
                (theirs <= ours).then_some(theirs.min(40))
            }
            // amd64/v2 and later may need instructions that are not here.
            _ => (variant == "v1").then_some(40),
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}
