//! `corten rmi`: forgets images.

use corten_api::corten::RemoveImageRequest;
use tonic::Code;

use super::each;
use crate::client::Place;
use crate::error::{Doing, Result};
use crate::output::printable;

/// Remove images
///
/// A name is forgotten; the image goes with its last name.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Although containers were made of them, which go on; and do not mind if
    /// they are gone
    #[arg(short, long)]
    force: bool,
    /// Their names or ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl Arguments {
    /// Removes them.
    pub async fn run(self, place: &Place) -> Result<u8> {
        let daemon = &place.connect().await?;
        let force = self.force;
        each(self.images, |image| async move {
            let request =
                RemoveImageRequest { namespace: daemon.space(), image: image.clone(), force };
            let outcome = daemon.calls().remove_image(request).await;
            match outcome.doing(format_args!("remove the image {image}")) {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    let untagged = answer.untagged.iter().map(|name| ("untagged", name));
                    let deleted = [&answer.deleted].into_iter().filter(|id| !id.is_empty());
                    let lines = untagged.chain(deleted.map(|id| ("deleted", id)));
                    Ok(lines.map(|(what, name)| format!("{what} {}\n", printable(name))).collect())
                }
                Err(error) if force && error.code() == Some(Code::NotFound) => Ok(String::new()),
                Err(error) => Err(error),
            }
        })
        .await
    }
}
