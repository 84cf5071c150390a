//! `corten rm`: forgets containers.

use corten_api::corten::RemoveContainerRequest;
use tonic::Code;

use super::each;
use crate::client::Place;
use crate::error::{Doing, Result};

/// Remove containers
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Although they run: they are killed; and do not mind if they are gone
    #[arg(short, long)]
    force: bool,
    /// Their names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Arguments {
    /// Removes them.
    pub async fn run(self, place: &Place) -> Result<u8> {
        let daemon = &place.connect().await?;
        let force = self.force;
        each(self.containers, |container| async move {
            let request = RemoveContainerRequest {
                namespace: daemon.space(),
                container: container.clone(),
                force,
            };
            let outcome = daemon.calls().remove_container(request).await;
            match outcome.doing(format_args!("remove {container}")) {
                Ok(_) => Ok(format!("{container}\n")),
                Err(error) if force && error.code() == Some(Code::NotFound) => Ok(String::new()),
                Err(error) => Err(error),
            }
        })
        .await
    }
}
