//! `corten version`: what runs here.

use corten_api::corten::{VersionRequest, VersionResponse};
use serde_json::json;

use crate::client::Place;
use crate::error::{Doing, Result};
use crate::output::{self, Output, printable};

/// Tell the versions of this program and of the daemon
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    output: Output,
}

impl Arguments {
    /// Prints them: ours also where the daemon cannot be reached.
    pub async fn run(self, place: &Place) -> Result<u8> {
        let client = env!("CARGO_PKG_VERSION");
        let daemon = async {
            let daemon = place.connect().await?;
            let answer = daemon.calls().version(VersionRequest {}).await;
            Ok(answer.doing("ask the daemon for its version")?.into_inner())
        }
        .await;
        if self.output.json() {
            let daemon = daemon.as_ref().ok().map(|daemon: &VersionResponse| {
                json!({
                    "version": daemon.version,
                    "apiVersion": daemon.api_version,
                    "criVersion": daemon.cri_version,
                    "kernel": daemon.kernel,
                    "architecture": daemon.architecture,
                    "pid": daemon.pid,
                })
            });
            output::print_json(&json!({ "client": { "version": client }, "daemon": daemon }))?;
        } else {
            let mut text = format!("corten    {client}\n");
            if let Ok(daemon) = &daemon {
                text += &printable(&format!(
                    "cortend   {} (pid {}, API {}, CRI {}) on Linux {} {}",
                    daemon.version,
                    daemon.pid,
                    daemon.api_version,
                    daemon.cri_version,
                    daemon.kernel,
                    daemon.architecture
                ));
                text.push('\n');
            }
            output::print(&text)?;
        }
        daemon.map(|_| 0)
    }
}
