//! `corten inspect`: everything known about containers or images.

use corten_api::corten::{InspectContainerRequest, InspectImageRequest};
use serde_json::Value;
use tonic::Code;

use crate::client::{Daemon, Place};
use crate::error::{Doing, Error, Result};
use crate::output;

/// Tell everything known about containers or images, as JSON
///
/// The output is a list with an object for each name. A name is taken for a
/// container's first, then for an image's.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Look for nothing else
    #[arg(long, value_name = "KIND")]
    r#type: Option<Kind>,
    /// Takes json, which it prints anyhow
    #[arg(short, long, value_name = "FORMAT", hide = true, value_parser = ["json"])]
    output: Option<String>,
    /// Names or ids of containers or images
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// A container
    Container,
    /// An image
    Image,
}

impl Arguments {
    /// Prints what is known.
    pub async fn run(self, place: &Place) -> Result<u8> {
        let daemon = place.connect().await?;
        let (mut found, mut errors) = (Vec::new(), Vec::new());
        for name in &self.names {
            match inspect(&daemon, self.r#type, name).await {
                Ok(value) => found.push(value),
                Err(error) => errors.push(error),
            }
        }
        output::print_json(&found)?;
        if errors.is_empty() { Ok(0) } else { Err(Error::Several(errors)) }
    }
}

async fn inspect(daemon: &Daemon, kind: Option<Kind>, name: &str) -> Result<Value> {
    match kind {
        Some(Kind::Container) => container(daemon, name).await,
        Some(Kind::Image) => image(daemon, name).await,
        None => match container(daemon, name).await {
            Err(error) if absent(&error) => match image(daemon, name).await {
                Err(error) if absent(&error) => Err(Error::Input(format!(
                    "unable to inspect {name}: there is neither a container nor an image of this \
                     name"
                ))),
                outcome => outcome,
            },
            outcome => outcome,
        },
    }
}

/// What cannot be a container's name may be an image's.
fn absent(error: &Error) -> bool {
    matches!(error.code(), Some(Code::NotFound | Code::InvalidArgument))
}

async fn container(daemon: &Daemon, name: &str) -> Result<Value> {
    let request = InspectContainerRequest { namespace: daemon.space(), container: name.to_owned() };
    let outcome = daemon.calls().inspect_container(request).await;
    value(&outcome.doing(format_args!("inspect {name}"))?.into_inner().json)
}

/// Everything known about an image.
pub async fn image(daemon: &Daemon, name: &str) -> Result<Value> {
    let request = InspectImageRequest { namespace: daemon.space(), image: name.to_owned() };
    let outcome = daemon.calls().inspect_image(request).await;
    value(&outcome.doing(format_args!("inspect the image {name}"))?.into_inner().json)
}

fn value(json: &str) -> Result<Value> {
    serde_json::from_str(json)
        .map_err(|error| Error::io("read the daemon's answer")(std::io::Error::other(error)))
}
