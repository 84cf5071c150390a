//! `corten kill`: sends a signal to containers.

use corten_api::corten::KillContainerRequest;

use super::each;
use crate::client::Place;
use crate::error::{Doing, Result};

/// Send a signal to containers
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The signal, by name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    /// Their names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Arguments {
    /// Sends it to each.
    pub async fn run(self, place: &Place) -> Result<u8> {
        let daemon = &place.connect().await?;
        let signal = &self.signal;
        each(self.containers, |container| async move {
            let request = KillContainerRequest {
                namespace: daemon.space(),
                container: container.clone(),
                signal: signal.clone(),
            };
            let outcome = daemon.calls().kill_container(request).await;
            outcome.doing(format_args!("send {signal} to {container}"))?;
            Ok(format!("{container}\n"))
        })
        .await
    }
}
