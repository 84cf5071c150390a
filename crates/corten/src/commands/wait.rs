//! `corten wait`: waits for containers.

use corten_api::corten::WaitContainerRequest;

use super::each;
use crate::client::Place;
use crate::error::{Doing, Result};

/// Wait until containers have ended, and print their exit codes
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Their names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Arguments {
    /// Waits for all of them.
    pub async fn run(self, place: &Place) -> Result<u8> {
        let daemon = &place.connect().await?;
        each(self.containers, |container| async move {
            let request =
                WaitContainerRequest { namespace: daemon.space(), container: container.clone() };
            let outcome = daemon.calls().wait_container(request).await;
            let ended = outcome.doing(format_args!("wait for {container}"))?.into_inner();
            Ok(format!("{}\n", ended.exit_code))
        })
        .await
    }
}
