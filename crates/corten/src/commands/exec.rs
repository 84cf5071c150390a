//! `corten exec`: a command in a running container.

use std::ffi::OsString;
use std::path::PathBuf;

use corten_api::corten::exec_request::Event as Input;
use corten_api::corten::exec_response::Event as Output;
use corten_api::corten::{ExecRequest, ExecStart, LogStream};

use crate::attach::{Writer, exit_code};
use crate::client::Place;
use crate::error::{Doing, Error, Result};
use crate::parse;

/// Run a command in a running container
///
/// The command's exit code is ours; 125 means that Corten itself failed, 126
/// that the command cannot be run, 127 that there is no such command. It has
/// no terminal and no input: these come with a later release.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: corten exec web nginx -t")]
pub struct Arguments {
    /// Set an environment variable, or pass ours on; may be repeated
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<OsString>,
    /// Set the environment variables that a file has, a line each; may be
    /// repeated
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Directory in which the command begins [default: the container's]
    #[arg(short, long, value_name = "PATH")]
    workdir: Option<String>,
    /// User that runs it [default: the container's]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// The container's name or id, and what to run in it
    #[arg(required = true, num_args = 2.., trailing_var_arg = true,
          value_names = ["CONTAINER", "COMMAND"])]
    container_and_command: Vec<String>,
}

impl Arguments {
    /// Runs it; the exit code is the command's.
    pub async fn run(self, place: &Place) -> Result<u8> {
        let own = |name: &std::ffi::OsStr| std::env::var_os(name);
        let environment = parse::environment::collect(&self.env_file, &self.env, &own)?;
        let Some((container, command)) = self.container_and_command.split_first() else {
            return Err(Error::Input("unable to run a command: no container is named".to_owned()));
        };
        // As kubectl's users write it.
        let command = match command.split_first() {
            Some((first, rest)) if first == "--" => rest,
            _ => command,
        };
        let daemon = place.connect().await?;
        let doing = format!("run a command in {container}");
        let start = ExecStart {
            namespace: daemon.space(),
            container: container.clone(),
            command: command.to_vec(),
            tty: false,
            stdin: false,
            environment,
            working_dir: self.workdir.unwrap_or_default(),
            user: self.user.unwrap_or_default(),
            size: None,
        };
        let input = tokio_stream::iter([ExecRequest { event: Some(Input::Start(start)) }]);
        let mut messages = match daemon.calls().exec(input).await.doing(&doing) {
            Ok(answer) => answer.into_inner(),
            Err(error) => return refused(error),
        };
        let writer = Writer::start();
        let outcome = loop {
            let (to, piece) = match messages.message().await.doing(&doing) {
                Ok(Some(message)) => match message.event {
                    Some(Output::Stdout(piece)) => (LogStream::Stdout, piece),
                    Some(Output::Stderr(piece)) => (LogStream::Stderr, piece),
                    Some(Output::Exited(exited)) => break Ok(exit_code(exited.exit_code)),
                    None => continue,
                },
                Ok(None) => {
                    break Err(Error::Input(format!(
                        "unable to {doing}: the daemon went away before it ended; it goes on"
                    )));
                }
                Err(error) => break refused(error),
            };
            if !writer.write(to, piece).await {
                break Ok(0);
            }
        };
        writer.finish().await?;
        outcome
    }
}

/// The command was not run: with what exit code?
fn refused(error: Error) -> Result<u8> {
    match error.launch_exit_code() {
        Some(code) => {
            error.tell();
            Ok(code)
        }
        None => Err(error),
    }
}
