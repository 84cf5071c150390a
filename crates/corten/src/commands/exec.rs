//! `corten exec`: a command in a running container.

use std::ffi::OsString;
use std::path::PathBuf;

use corten_api::corten::ExecStart;

use crate::client::Place;
use crate::error::{Doing, Error, Result};
use crate::follow::exit_code;
use crate::interactive::Interactive;
use crate::keyboard::Keyboard;
use crate::parse;
use crate::session::{End, Session};
use crate::writer::Writer;

/// Run a command in a running container
///
/// The command's exit code is ours; 125 means that Corten itself failed, 126
/// that the command cannot be run, 127 that there is no such command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples: corten exec web nginx -t, corten exec -it web sh")]
pub struct Arguments {
    #[command(flatten)]
    interactive: Interactive,
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
        self.interactive.check()?;
        let daemon = place.connect().await?;
        let doing = format!("run a command in {container}");
        let start = ExecStart {
            namespace: daemon.space(),
            container: container.clone(),
            command: command.to_vec(),
            tty: self.interactive.tty,
            stdin: self.interactive.interactive,
            environment,
            working_dir: self.workdir.unwrap_or_default(),
            user: self.user.unwrap_or_default(),
            size: self.interactive.size(),
        };
        let mut session = match Session::exec(&daemon, start).await.doing(&doing) {
            Ok(session) => session,
            Err(error) => return refused(error),
        };
        let mut keyboard = Keyboard::open(self.interactive.wishes(true))?;
        let writer = Writer::start();
        let end = session.run(&mut keyboard, &writer, &doing).await;
        let written = writer.finish().await;
        drop(keyboard);
        let code = match end {
            Ok(End::Exited(exited)) => exit_code(exited.exit_code),
            Ok(End::NoReader) => 0,
            Ok(End::Left) => {
                eprintln!("corten: left; the command goes on");
                0
            }
            Ok(End::Silent | End::TooSlow) => {
                return Err(Error::Input(format!(
                    "unable to {doing}: the daemon went away before it ended; it goes on"
                )));
            }
            Err(error) => return refused(error),
        };
        written.map(|()| code)
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
