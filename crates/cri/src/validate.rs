//! Whether the parts of a request can be used at all. What is refused names
//! the field as the client knows it, and says what would be right.

use std::fmt::Display;

use corten_base::limits;
use corten_pods::{Error, Result};

/// «unable to use `field`: `why`»: the request can never work.
pub fn refuse(field: &str, why: impl Display) -> Error {
    Error::invalid(format!("unable to use {field}: {why}"))
}

/// A text that must be there.
pub fn required<'a>(field: &str, text: &'a str) -> Result<&'a str> {
    if text.is_empty() {
        return Err(refuse(field, "it is required"));
    }
    Ok(text)
}

/// An id, or the beginning of one. An empty one would fit everything.
pub fn id<'a>(field: &str, text: &'a str) -> Result<&'a str> {
    if text.len() > limits::ID_QUERY_BYTES_MAX {
        return Err(refuse(field, "it is longer than any id or name"));
    }
    required(field, text)
}

/// A part of a message that must be there.
pub fn present<T>(field: &str, part: Option<T>) -> Result<T> {
    part.ok_or_else(|| refuse(field, "it is required"))
}

/// A text that the kernel takes as a C string.
pub fn no_nul<'a>(field: &str, text: &'a str) -> Result<&'a str> {
    if text.as_bytes().contains(&0) {
        return Err(refuse(field, "it holds a NUL byte"));
    }
    Ok(text)
}

/// A user or group id that came as a signed 64-bit number.
pub fn kernel_id(field: &str, value: i64) -> Result<u32> {
    // The last one is the kernel's «no id».
    u32::try_from(value)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| refuse(field, format!("{value} is no user or group id")))
}

/// A port that must be there.
pub fn port(field: &str, value: i64) -> Result<u16> {
    match port_or_zero(field, value)? {
        0 => Err(refuse(field, "a port is 1 to 65535")),
        port => Ok(port),
    }
}

/// A port that may be 0, for none.
pub fn port_or_zero(field: &str, value: i64) -> Result<u16> {
    u16::try_from(value)
        .map_err(|_| refuse(field, format!("{value} is no port: these are 0 to 65535")))
}

/// A host name as the kernel takes it.
pub fn hostname<'a>(field: &str, text: &'a str) -> Result<&'a str> {
    if text.len() > limits::HOSTNAME_BYTES_MAX {
        return Err(refuse(field, "a host name has up to 64 characters"));
    }
    no_nul(field, text)
}

/// A list that may not be longer than `max`.
pub fn at_most(field: &str, count: usize, max: usize) -> Result<()> {
    if count > max {
        return Err(refuse(field, format!("{count} are too many: up to {max} are taken")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_pods::Kind;

    #[test]
    fn an_empty_id_fits_nothing() {
        let error = id("container_id", "").unwrap_err();
        assert_eq!(error.kind, Kind::InvalidArgument);
        assert!(error.to_string().contains("container_id"));
        assert!(id("container_id", &"a".repeat(300)).is_err());
        assert!(id("container_id", "abc").is_ok());
    }

    #[test]
    fn ids_and_ports_stay_in_range() {
        assert_eq!(kernel_id("u", 0).unwrap(), 0);
        assert!(kernel_id("u", -1).is_err());
        assert!(kernel_id("u", i64::from(u32::MAX)).is_err());
        assert!(kernel_id("u", 1 << 33).is_err());
        assert!(port("p", 0).is_err());
        assert_eq!(port_or_zero("p", 0).unwrap(), 0);
        assert!(port("p", 65_536).is_err());
        assert!(port("p", -1).is_err());
    }
}
