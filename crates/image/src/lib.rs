//! Images: pulled from registries, kept by content, named per namespace.
//!
//! [`Images`] is the whole face of this crate. A pull resolves a reference at
//! the registry or its mirrors, and streams every layer through hash, inflate
//! and unpack at once; nothing compressed is kept. Content is shared by all
//! namespaces, names are not. An image's id is the digest of its
//! configuration, the same in every API.
#![forbid(unsafe_code)]

mod archive;
mod auth;
mod catalog;
mod client;
mod config;
mod error;
mod flight;
mod hosts;
mod image;
mod images;
mod manifest;
mod pipe;
mod progress;
mod proxy;
mod pull;
mod registry;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(test)]
mod tests;
mod token;

pub use archive::{ArchiveFormat, ArchiveReader, ArchiveSender, LoadedImage, archive_pipe};
pub use auth::{Auth, Secret};
pub use config::{ImagesConfig, Platform};
pub use error::{Error, PullError, PullErrorKind, Result};
pub use image::{Image, ImageConfig};
pub use images::{Images, Removed};
pub use progress::{LayerProgress, LayerState, ProgressSender, PullProgress};
pub use proxy::Proxies;
