//! `corten`: containers for people, at the command line.
//!
//! A client of the daemon's socket, and of nothing else: what it says comes
//! from the daemon, what it does the daemon does.
#![forbid(unsafe_code)]

mod cli;
mod client;
mod commands;
mod docker;
mod error;
mod follow;
mod foreground;
mod interactive;
mod keyboard;
mod limits;
mod names;
mod output;
mod parse;
mod progress;
mod session;
mod signals;
mod terminal;
mod writer;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = match cli::parse() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let failure_code = arguments.command.failure_code();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("corten: unable to start: {error}");
            return ExitCode::from(failure_code);
        }
    };
    let outcome = runtime.block_on(commands::run(arguments));
    // A thread that reads the terminal or a file must not hold us up.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            error.tell();
            ExitCode::from(error.exit_code().unwrap_or(failure_code))
        }
    }
}
