//! `corten stop`: asks containers to end.

use corten_api::corten::StopContainerRequest;

use super::each_container;
use crate::client::Place;
use crate::error::Result;

/// Ask containers to end, and kill them when their time is up
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Seconds that they have
    #[arg(short, long, value_name = "SECONDS", default_value = "10")]
    time: u32,
    /// Their names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Arguments {
    /// Stops them, all at once.
    pub async fn run(self, place: &Place) -> Result<u8> {
        let grace_seconds = Some(self.time);
        each_container(
            place,
            self.containers,
            "stop",
            |mut calls, namespace, container| async move {
                let request = StopContainerRequest { namespace, container, grace_seconds };
                calls.stop_container(request).await
            },
        )
        .await
    }
}
