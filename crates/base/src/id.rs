//! Names of sandboxes, containers, execs and namespaces.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Characters of a sandbox or container id: 32 random bytes in hexadecimal,
/// the form that the kubelet, cAdvisor and log shippers expect.
pub const ID_CHARS: usize = 64;

/// What is wrong with an id or a namespace name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} {text:?}: {reason}")]
pub struct InvalidId {
    what: &'static str,
    text: String,
    reason: &'static str,
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Makes an id of 32 random bytes (the caller brings the randomness).
            pub fn from_random(bytes: [u8; 32]) -> Self {
                Self(hex(&bytes))
            }

            /// The 64 hexadecimal characters.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first 13 characters: what people are shown.
            pub fn short(&self) -> &str {
                &self.0[..13]
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                check_hex($what, text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                check_hex($what, &text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

hex_id!(
    /// The id of a pod sandbox.
    SandboxId,
    "sandbox id"
);
hex_id!(
    /// The id of a container.
    ContainerId,
    "container id"
);

/// The number of an exec within its pod; never used twice by one shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExecId(pub u64);

/// A namespace of names. CRI sees [`Namespace::KUBERNETES`] only; people work
/// in [`Namespace::DEFAULT`] unless they say otherwise.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Namespace(String);

impl Namespace {
    /// What the kubelet sees.
    pub const KUBERNETES: &'static str = "k8s.io";
    /// Where `corten run` puts its containers.
    pub const DEFAULT: &'static str = "default";

    /// The kubelet's namespace, `k8s.io`.
    pub fn kubernetes() -> Self {
        Self(Self::KUBERNETES.to_owned())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Namespace {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        check_namespace(text)?;
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Namespace {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        check_namespace(&text)?;
        Ok(Self(text))
    }
}

impl From<Namespace> for String {
    fn from(namespace: Namespace) -> String {
        namespace.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lower-case hexadecimal of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
    text
}

fn check_hex(what: &'static str, text: &str) -> Result<(), InvalidId> {
    let reason = if text.len() != ID_CHARS {
        "an id has 64 characters"
    } else if !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        "an id is lower-case hexadecimal"
    } else {
        return Ok(());
    };
    Err(InvalidId { what, text: text.chars().take(80).collect(), reason })
}

fn check_namespace(text: &str) -> Result<(), InvalidId> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let reason = if text.is_empty() || text.len() > 63 {
        "a namespace has 1 to 63 characters"
    } else if !text.bytes().all(inner) || text.starts_with(['.', '-']) {
        "a namespace is letters, digits, '.', '_' and '-', and begins with a letter or digit"
    } else {
        return Ok(());
    };
    Err(InvalidId { what: "namespace", text: text.chars().take(80).collect(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_64_hex_characters() {
        let id = ContainerId::from_random([0xab; 32]);
        assert_eq!(id.as_str().len(), ID_CHARS);
        assert_eq!(id.as_str().parse::<ContainerId>().unwrap(), id);
        assert!("../../etc".parse::<ContainerId>().is_err());
        assert!("AB".repeat(32).parse::<ContainerId>().is_err());
    }

    #[test]
    fn a_namespace_is_a_safe_file_name() {
        assert!("k8s.io".parse::<Namespace>().is_ok());
        for bad in ["", "..", "a/b", ".hidden", "-x", "a b"] {
            assert!(bad.parse::<Namespace>().is_err(), "{bad}");
        }
    }
}
