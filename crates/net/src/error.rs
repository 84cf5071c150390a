//! The errors of networks.

use std::net::IpAddr;
use std::path::PathBuf;

use corten_spec::request::Protocol;

/// What can go wrong with a pod's network.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call, with what it was for.
    #[error(transparent)]
    Kernel(#[from] corten_kernel::Error),

    /// Work with a file failed.
    #[error("unable to {verb} {}: {source}", .path.display())]
    File {
        /// What was being done.
        verb: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    /// A setting cannot be used.
    #[error("unable to use the bridge settings: {0}")]
    Settings(String),

    /// A link of our name exists and is something else.
    #[error(
        "unable to use the link {name} as bridge: it is a {kind}; remove it or choose another \
         bridge name"
    )]
    NotABridge {
        /// Its name.
        name: String,
        /// What it is.
        kind: String,
    },

    /// All addresses of the bridge are in use.
    #[error(
        "unable to find a free address in {subnet}: all {count} are in use; use a larger subnet"
    )]
    NoFreeAddress {
        /// The bridge's subnet.
        subnet: String,
        /// Addresses in use.
        count: u64,
    },

    /// A host port that another pod has.
    #[error("unable to map host port {port}/{protocol}: {owner} has it")]
    PortTaken {
        /// The port on the host.
        port: u16,
        /// In lower case.
        protocol: &'static str,
        /// «sandbox …», or a process of the host.
        owner: String,
    },

    /// A port mapping that makes no sense.
    #[error("unable to map host port {port}/{protocol}: {reason}")]
    BadPort {
        /// The port on the host.
        port: u16,
        /// In lower case.
        protocol: &'static str,
        /// Why not.
        reason: String,
    },

    /// There is no usable CNI configuration.
    #[error("unable to attach pods to a network: {0}")]
    NotConfigured(String),

    /// A CNI plugin could not be found, started or understood, or reported an
    /// error.
    #[error("unable to {verb} the pod's network with the CNI plugin {plugin}: {cause}")]
    Plugin {
        /// `ADD`, `DEL`, …
        verb: &'static str,
        /// Type of the plugin, and its network.
        plugin: String,
        /// Its own error, or what it did.
        cause: String,
    },

    /// A task of ours ended in the middle (the runtime is shutting down).
    #[error("unable to finish work on the network: {0}")]
    Interrupted(#[from] tokio::task::JoinError),

    /// A record that was made by the other provider.
    #[error(
        "unable to detach the sandbox from {wanted}: it was attached by {found}; its record \
         belongs to another network provider"
    )]
    ForeignRecord {
        /// This provider.
        wanted: &'static str,
        /// The one in the record.
        found: &'static str,
    },

    /// An address that is in a record but not in the bridge's subnet.
    #[error("unable to use the address {0}: it is in no subnet of the bridge")]
    ForeignAddress(IpAddr),
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Names the file and what was being done to it.
pub(crate) trait FileContext<T> {
    fn file(self, verb: &'static str, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T> FileContext<T> for std::io::Result<T> {
    fn file(self, verb: &'static str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|source| Error::File { verb, path: path.into(), source })
    }
}

impl<T> FileContext<T> for rustix::io::Result<T> {
    fn file(self, verb: &'static str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|errno| Error::File { verb, path: path.into(), source: errno.into() })
    }
}

/// The name of a protocol, as people and CNI plugins write it.
pub(crate) fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}
