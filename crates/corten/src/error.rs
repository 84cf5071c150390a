//! What can go wrong, as one sentence for people, and the exit code it has.

use std::fmt;
use std::path::PathBuf;

use tonic::{Code, Status};

/// Our own failure, where a container's exit code is passed on otherwise.
pub const EXIT_OWN: u8 = 125;
/// The container's command is there, but cannot be run.
pub const EXIT_NOT_INVOKED: u8 = 126;
/// The container's command is not there.
pub const EXIT_NOT_FOUND: u8 = 127;
/// Nobody reads what we write: as a shell has it for SIGPIPE.
const EXIT_PIPE: u8 = 141;

/// Results of commands.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The daemon cannot be reached; the sentence says what to do.
    #[error("unable to reach the daemon at {}: {why}", .socket.display())]
    Unreachable {
        /// Where it should listen.
        socket: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The daemon refused or failed.
    #[error("{}", sentence(.doing, .status))]
    Daemon {
        /// What was being done: `start web`.
        doing: String,
        /// What it answered.
        status: Box<Status>,
    },
    /// A file or a stream of ours failed.
    #[error("unable to {doing}: {source}")]
    Io {
        /// What was being done: `read the archive x.tar`.
        doing: String,
        /// Why.
        source: std::io::Error,
    },
    /// What was asked makes no sense; a whole sentence.
    #[error("{0}")]
    Input(String),
    /// Some of several things failed, each for itself.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<Error>),
}

impl Error {
    /// Turns an I/O error into ours.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// Prints the sentence. Where only our reader has left, there is nobody to
    /// tell.
    pub fn tell(&self) {
        match self {
            Self::Several(errors) => errors.iter().for_each(Self::tell),
            error if error.broken_pipe() => {}
            error => eprintln!("corten: {}", crate::output::printable_lines(&error.to_string())),
        }
    }

    /// The exit code, where the error has one of its own.
    pub fn exit_code(&self) -> Option<u8> {
        self.broken_pipe().then_some(EXIT_PIPE)
    }

    /// The daemon's code, where it answered.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Daemon { status, .. } => Some(status.code()),
            _ => None,
        }
    }

    /// Whether the daemon went away while it answered, or is not there yet.
    pub fn daemon_away(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Daemon { status, .. } => broken_wire(status),
            _ => false,
        }
    }

    /// The exit code of a container or exec whose command could not be run.
    pub fn launch_exit_code(&self) -> Option<u8> {
        match self {
            Self::Daemon { status, .. } => launch_exit_code(status.message()),
            _ => None,
        }
    }

    /// Whether the other end of our stdout has gone.
    pub fn broken_pipe(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

/// `.doing("start web")`: a daemon's answer as a result of ours.
pub trait Doing<T> {
    /// Names what was being done, for the sentence.
    fn doing(self, doing: impl fmt::Display) -> Result<T>;
}

impl<T> Doing<T> for std::result::Result<T, Status> {
    fn doing(self, doing: impl fmt::Display) -> Result<T> {
        self.map_err(|status| Error::Daemon { doing: doing.to_string(), status: Box::new(status) })
    }
}

/// The daemon's sentences say what was being done; what comes from below it,
/// or from the wire, does not.
fn sentence(doing: &str, status: &Status) -> String {
    if broken_wire(status) {
        return format!("unable to {doing}: the daemon went away before it answered");
    }
    let message = match (status.code(), status.message()) {
        (Code::Unimplemented, "") => "this daemon does not offer it (is it older than corten?)",
        (_, "") => "the daemon does not say why",
        (_, message) => message,
    };
    // A word before it is for the kubelet, which looks for it.
    let message = match message.split_once(": ") {
        Some((word, rest)) if rest.starts_with("unable to ") && !word.contains(' ') => rest,
        _ => message,
    };
    if message.starts_with("unable to ") {
        message.to_owned()
    } else {
        format!("unable to {doing}: {message}")
    }
}

/// A status that was made on our side, since the connection broke.
fn broken_wire(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
        || (status.code() == Code::Unknown && status.message().contains("transport error"))
}

/// The last thing that was tried tells it: `unable to execute x: … (os error
/// 2)`. There may be `unable to …` before it, of what was being done.
fn launch_exit_code(message: &str) -> Option<u8> {
    let (_, tried) = message.rsplit_once("unable to ")?;
    let (_, number) = tried.strip_prefix("execute ")?.rsplit_once("(os error ")?;
    match number.strip_suffix(')')? {
        "2" | "20" => Some(EXIT_NOT_FOUND),
        _ => Some(EXIT_NOT_INVOKED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: Status) -> String {
        Err::<(), _>(status).doing("stop web").unwrap_err().to_string()
    }

    #[test]
    fn one_sentence_says_what_was_being_done() {
        assert_eq!(
            said(Status::not_found("no container \"web\"")),
            "unable to stop web: no container \"web\""
        );
        assert_eq!(said(Status::internal("unable to open x: gone")), "unable to open x: gone");
        assert_eq!(
            said(Status::unavailable("RegistryUnavailable: unable to pull x: no")),
            "unable to pull x: no"
        );
        assert!(said(Status::unimplemented("")).contains("does not offer it"));
        assert!(said(Status::from_error(Box::new(std::io::Error::other("x")))).contains("away"));
    }

    #[test]
    fn commands_that_are_not_there_are_127() {
        let start = "unable to start container 0123: unable to ";
        for (tried, code) in [
            ("execute \"x\" (looked up in PATH): No such file (os error 2)", Some(127)),
            ("execute \"/x\": Permission denied (os error 13)", Some(126)),
            ("change into /x: No such file (os error 2)", None),
        ] {
            assert_eq!(launch_exit_code(&format!("{start}{tried}")), code, "{tried}");
        }
        assert_eq!(launch_exit_code("unable to execute in container 1: it has ended"), None);
    }

    #[test]
    fn a_reader_that_has_left_is_not_told() {
        let gone = Error::io("write")(std::io::ErrorKind::BrokenPipe.into());
        assert_eq!(gone.exit_code(), Some(141));
        assert_eq!(Error::Input("x".into()).exit_code(), None);
    }
}
