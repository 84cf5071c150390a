//! The commands, a file each.

pub mod attach;
pub mod completion;
pub mod cp;
pub mod doctor;
pub mod events;
pub mod exec;
pub mod images;
pub mod info;
pub mod inspect;
pub mod kill;
pub mod load;
pub mod logs;
pub mod namespaces;
pub mod pods;
pub mod port_forward;
pub mod ps;
pub mod pull;
pub mod rm;
pub mod rmi;
pub mod run;
pub mod save;
pub mod start;
pub mod stats;
pub mod stop;
pub mod top;
pub mod update;
pub mod version;
pub mod wait;

use futures_util::{StreamExt, stream};
use tonic::{Response, Status};

use crate::cli::{Arguments, Command};
use crate::client::{Calls, Place};
use crate::error::{Doing, Error, Result};
use crate::limits::CALLS_MAX;
use crate::output;

/// Does what was typed; the exit code.
pub async fn run(arguments: Arguments) -> Result<u8> {
    let place = arguments.place().map_err(Error::Input)?;
    let place = &place;
    match arguments.command {
        Command::Run(command) => command.run(place).await,
        Command::Ps(command) => command.run(place).await,
        Command::Logs(command) => command.run(place).await,
        Command::Exec(command) => command.run(place).await,
        Command::Attach(command) => command.run(place).await,
        Command::Stats(command) => command.run(place).await,
        Command::Top(command) => command.run(place).await,
        Command::Events(command) => command.run(place).await,
        Command::Update(command) => command.run(place).await,
        Command::Cp(command) => command.run(place).await,
        Command::PortForward(command) => command.run(place).await,
        Command::Start(command) => command.run(place).await,
        Command::Stop(command) => command.run(place).await,
        Command::Kill(command) => command.run(place).await,
        Command::Wait(command) => command.run(place).await,
        Command::Rm(command) => command.run(place).await,
        Command::Inspect(command) => command.run(place).await,
        Command::Pull(command) => command.run(place).await,
        Command::Images(command) => command.run(place).await,
        Command::Rmi(command) => command.run(place).await,
        Command::Load(command) => command.run(place).await,
        Command::Save(command) => command.run(place).await,
        Command::Namespaces(command) => command.run(place).await,
        Command::Pods(command) => command.run(place).await,
        Command::Info(command) => command.run(place).await,
        Command::Doctor(command) => command.run(place).await,
        Command::Version(command) => command.run(place).await,
        Command::Completion(command) => command.run(),
    }
}

/// Makes a call for each of several containers; prints the names of those for
/// which it succeeds.
async fn each_container<F, T>(
    place: &Place,
    containers: Vec<String>,
    doing: &str,
    call: impl Fn(Calls, String, String) -> F,
) -> Result<u8>
where
    F: Future<Output = std::result::Result<Response<T>, Status>>,
{
    let daemon = &place.connect().await?;
    each(containers, |container| {
        let answer = call(daemon.calls(), daemon.space(), container.clone());
        async move {
            answer.await.doing(format_args!("{doing} {container}"))?;
            Ok(format!("{container}\n"))
        }
    })
    .await
}

/// Does something to each of several things, many at a time, and prints what
/// each gives in the order in which they were named. What fails does not keep
/// the others from being done.
async fn each<F>(names: Vec<String>, work: impl Fn(String) -> F) -> Result<u8>
where
    F: Future<Output = Result<String>>,
{
    let mut outcomes = stream::iter(names.into_iter().map(work)).buffered(CALLS_MAX);
    let mut errors = Vec::new();
    while let Some(outcome) = outcomes.next().await {
        match outcome {
            Ok(text) => output::print(&text)?,
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(0) } else { Err(Error::Several(errors)) }
}
