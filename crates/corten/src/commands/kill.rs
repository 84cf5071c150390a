//! `corten kill`: sends a signal to containers.

use corten_api::corten::KillContainerRequest;

use super::each_container;
use crate::client::Place;
use crate::error::Result;

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
        let doing = format!("send {} to", self.signal);
        each_container(place, self.containers, &doing, |mut calls, namespace, container| {
            let signal = self.signal.clone();
            async move {
                calls.kill_container(KillContainerRequest { namespace, container, signal }).await
            }
        })
        .await
    }
}
