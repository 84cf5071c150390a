//! Devices of vendors: the Container Device Interface. A vendor describes, in
//! files on the node, what his devices need of a container; who asks for
//! `vendor.com/class=device` gets these edits made to the OCI spec.
//!
//! All of it is pure: files come in as bytes, facts about device nodes by a
//! function that the caller gives.

mod document;
mod edit;
mod registry;
#[cfg(test)]
mod tests;

pub use document::{Document, Format};
pub use edit::{NodeFact, apply};
pub use registry::Registry;

use crate::error::{Error, Result};
use crate::request::Map;

/// Annotations that name devices begin so.
const ANNOTATION: &str = "cdi.k8s.io/";

/// The full name of a device, `vendor.com/class=device`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceName {
    /// `vendor.com/class`
    pub kind: String,
    /// `device`
    pub device: String,
}

impl std::fmt::Display for DeviceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.kind, self.device)
    }
}

impl std::str::FromStr for DeviceName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts =
            text.split_once('=').filter(|(kind, device)| is_kind(kind) && is_device(device));
        let (kind, device) = parts.ok_or_else(|| {
            Error::invalid("CDI device", text, "its full name is vendor.com/class=device")
        })?;
        Ok(Self { kind: kind.to_owned(), device: device.to_owned() })
    }
}

/// The devices that a container asks for: in its own field, and in annotations
/// as older clients do. Each once, in this order.
pub fn wanted(field: &[String], annotations: &Map) -> Result<Vec<DeviceName>> {
    let annotated = annotations.iter().filter(|(key, _)| key.starts_with(ANNOTATION));
    let annotated = annotated.flat_map(|(_, value)| value.split(','));
    let mut names: Vec<DeviceName> = Vec::new();
    for text in field.iter().map(String::as_str).chain(annotated) {
        let name = text.trim().parse()?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// `vendor.com/class`
fn is_kind(text: &str) -> bool {
    let word = |text: &str, more: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.ends_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(inner)
    };
    text.split_once('/').is_some_and(|(vendor, class)| word(vendor, "_-.") && word(class, "_-."))
}

fn is_device(text: &str) -> bool {
    let ends = |c: char| c.is_ascii_alphanumeric();
    let inner = |c: char| ends(c) || "_-.:".contains(c);
    text.starts_with(ends) && text.ends_with(ends) && text.chars().all(inner)
}
