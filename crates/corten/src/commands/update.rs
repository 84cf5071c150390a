//! `corten update`: other limits for containers.

use corten_api::corten::UpdateContainerRequest;

use super::each;
use crate::client::Place;
use crate::error::{Doing, Error, Result};
use crate::parse;

/// Change the limits of containers
///
/// They hold at once, and stay when a container is started again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: corten update --memory 256m --cpus 1.5 web")]
pub struct Arguments {
    /// Most memory it may use: 128m, 1.5g
    #[arg(short, long, value_name = "SIZE", value_parser = parse::number::size)]
    memory: Option<u64>,
    /// Most memory and swap together
    #[arg(long, value_name = "SIZE", value_parser = parse::number::size)]
    memory_swap: Option<u64>,
    /// Most CPU time it may use: 1.5
    #[arg(long, value_name = "NUMBER", value_parser = parse::number::cpus)]
    cpus: Option<u64>,
    /// Its weight among others that want the CPU; 1024 is usual
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(2..=262_144))]
    cpu_shares: Option<u64>,
    /// The CPUs that it may use: 0-3,7
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// The memory nodes that it may use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Most processes and threads it may have
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pids_limit: Option<u64>,
    /// A file of cgroup v2 and its value: memory.high=64M; may be repeated
    #[arg(long, value_name = "FILE=VALUE", value_parser = parse::label)]
    unified: Vec<(String, String)>,
    /// Their names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Arguments {
    /// Changes them.
    pub async fn run(self, place: &Place) -> Result<u8> {
        let limits = UpdateContainerRequest {
            memory_bytes: self.memory,
            memory_swap_bytes: self.memory_swap,
            nano_cpus: self.cpus,
            cpu_shares: self.cpu_shares,
            cpuset_cpus: self.cpuset_cpus,
            cpuset_mems: self.cpuset_mems,
            pids: self.pids_limit,
            unified: self.unified.into_iter().collect(),
            ..UpdateContainerRequest::default()
        };
        if limits == UpdateContainerRequest::default() {
            return Err(Error::Input("unable to change limits: none is named".to_owned()));
        }
        let daemon = &place.connect().await?;
        let limits = &limits;
        each(self.containers, |container| async move {
            let request = UpdateContainerRequest {
                namespace: daemon.space(),
                container: container.clone(),
                ..limits.clone()
            };
            let outcome = daemon.calls().update_container(request).await;
            outcome.doing(format_args!("change the limits of {container}"))?;
            Ok(format!("{container}\n"))
        })
        .await
    }
}
