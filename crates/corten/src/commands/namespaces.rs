//! `corten namespaces`: who has containers and images here.

use corten_api::corten::ListNamespacesRequest;
use serde::Serialize;

use crate::client::Place;
use crate::error::{Doing, Result};
use crate::output::{self, Output, Table};

/// List namespaces
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    output: Output,
}

/// A namespace, for programs.
#[derive(Serialize)]
struct Row {
    name: String,
    containers: u32,
    images: u32,
}

impl Arguments {
    /// Prints them.
    pub async fn run(self, place: &Place) -> Result<u8> {
        let daemon = place.connect().await?;
        let answer = daemon.calls().list_namespaces(ListNamespacesRequest {}).await;
        let namespaces = answer.doing("list namespaces")?.into_inner().namespaces;
        let rows = namespaces.into_iter().map(|namespace| Row {
            name: namespace.name,
            containers: namespace.containers,
            images: namespace.images,
        });
        if self.output.json() {
            output::print_json(&rows.collect::<Vec<_>>())?;
        } else {
            let mut table = Table::new(["NAME", "CONTAINERS", "IMAGES"]);
            for row in rows {
                table.row([row.name, row.containers.to_string(), row.images.to_string()]);
            }
            output::print(&table.render())?;
        }
        Ok(0)
    }
}
