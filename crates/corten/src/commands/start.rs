//! `corten start`: starts containers that have ended.

use corten_api::corten::StartContainerRequest;

use super::each_container;
use crate::client::Place;
use crate::error::Result;

/// Start containers that have ended
///
/// They keep the files that they have written.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Their names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Arguments {
    /// Starts them.
    pub async fn run(self, place: &Place) -> Result<u8> {
        each_container(
            place,
            self.containers,
            "start",
            |mut calls, namespace, container| async move {
                calls.start_container(StartContainerRequest { namespace, container }).await
            },
        )
        .await
    }
}
