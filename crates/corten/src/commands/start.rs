//! `corten start`: starts containers that have ended.

use corten_api::corten::StartContainerRequest;

use super::each;
use crate::client::Place;
use crate::error::{Doing, Result};

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
        let daemon = &place.connect().await?;
        each(self.containers, |container| async move {
            let request =
                StartContainerRequest { namespace: daemon.space(), container: container.clone() };
            let outcome = daemon.calls().start_container(request).await;
            outcome.doing(format_args!("start {container}"))?;
            Ok(format!("{container}\n"))
        })
        .await
    }
}
