//! The one error of this crate.

use std::fmt;

use rustix::io::Errno;

/// A system call, or a short series of them, that failed.
///
/// Prints as `unable to <verb> <object>: <cause>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What was being done: «mount», «open».
    pub verb: &'static str,
    /// To what: a path, a process, a device.
    pub object: String,
    /// What the kernel said.
    pub errno: Errno,
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error that tells what was being done to what.
    pub fn new(verb: &'static str, object: impl Into<String>, errno: Errno) -> Self {
        Self { verb, object: object.into(), errno }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unable to {} {}: {}", self.verb, self.object, self.errno)
    }
}

impl std::error::Error for Error {}

/// Adds what was being done to a bare errno.
pub trait Context<T> {
    /// Names the verb and the object; the object is only made on failure.
    fn context<O: Into<String>>(self, verb: &'static str, object: impl FnOnce() -> O) -> Result<T>;
}

impl<T> Context<T> for std::result::Result<T, Errno> {
    fn context<O: Into<String>>(self, verb: &'static str, object: impl FnOnce() -> O) -> Result<T> {
        self.map_err(|errno| Error::new(verb, object(), errno))
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn context<O: Into<String>>(self, verb: &'static str, object: impl FnOnce() -> O) -> Result<T> {
        self.map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            Error::new(verb, object(), errno)
        })
    }
}
