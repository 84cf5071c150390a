//! What can be wrong with what was asked for.

/// Why a spec or a plan could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Neither the request nor the image says what to run.
    #[error(
        "unable to make the command of container {container}: neither the request nor the image names one; give a command"
    )]
    NoCommand {
        /// Its name.
        container: String,
    },
    /// A field has a value that makes no sense.
    #[error("unable to use {field} {value:?}: {reason}")]
    Invalid {
        /// What it is.
        field: &'static str,
        /// The value.
        value: String,
        /// Why not, and what to do.
        reason: &'static str,
    },
    /// A group without a user.
    #[error(
        "unable to resolve the user: a group ({gid}) was asked for without a user; set a user too"
    )]
    GroupWithoutUser {
        /// The group.
        gid: u32,
    },
    /// A name that the image's files do not have.
    #[error("unable to resolve {kind} {name:?}: the image's {file} does not have it")]
    UnknownName {
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
        /// Where it was looked up.
        file: &'static str,
    },
    /// The machine cannot do it.
    #[error("unable to {verb}: {reason}")]
    Unavailable {
        /// What was being done, to what.
        verb: String,
        /// Why not, and what to do.
        reason: &'static str,
    },
    /// A profile that cannot be read.
    #[error("unable to read seccomp profile {name:?}: {reason}")]
    Profile {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// A device of a vendor that a container cannot have.
    #[error("unable to give the CDI device {name}: {reason}")]
    Device {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// A filter that cannot be made.
    #[error("unable to compile the seccomp filter: {reason}")]
    Filter {
        /// Why.
        reason: String,
    },
    /// The spec holds something that our launcher does not do.
    #[error("unable to launch: {what} is not supported by Corten's launcher; {remedy}")]
    Unsupported {
        /// The part of the spec.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The plan would exceed what a plan may hold.
    #[error("unable to write the launch plan: {reason}")]
    Plan {
        /// Why.
        reason: String,
    },
}

impl Error {
    /// A field with a senseless value.
    pub(crate) fn invalid(
        field: &'static str,
        value: impl Into<String>,
        reason: &'static str,
    ) -> Self {
        Self::Invalid { field, value: value.into(), reason }
    }
}

/// Of this crate.
pub type Result<T> = std::result::Result<T, Error>;
