//! `corten stop`: asks containers to end.

use corten_api::corten::StopContainerRequest;

use super::each;
use crate::client::Place;
use crate::error::{Doing, Result};

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
        let daemon = &place.connect().await?;
        let grace_seconds = Some(self.time);
        each(self.containers, |container| async move {
            let request = StopContainerRequest {
                namespace: daemon.space(),
                container: container.clone(),
                grace_seconds,
            };
            let outcome = daemon.calls().stop_container(request).await;
            outcome.doing(format_args!("stop {container}"))?;
            Ok(format!("{container}\n"))
        })
        .await
    }
}
