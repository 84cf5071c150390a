//! The daemon of a node: configuration, engine, sockets, and a way out.
//!
//! A table of contents: everything that is done, in its order, by the crate
//! that it belongs to.
#![forbid(unsafe_code)]

mod config;
mod logging;
mod metrics;
mod node;
mod notify;
mod quiet;
mod serve;
mod socket;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exit code where another instance works on the same root or socket.
const EXIT_IN_USE: u8 = 3;
/// Exit code where the configuration cannot be used; systemd knows it by the
/// name EX_CONFIG.
const EXIT_CONFIG: u8 = 78;

/// Corten's daemon: runs pods for the kubelet, and containers for people.
#[derive(Parser)]
#[command(name = "cortend", version)]
struct Arguments {
    /// Read this configuration, and the conf.d beside it
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(flatten)]
    overrides: config::Overrides,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve (this is what happens without a command, too)
    Serve,
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Print every key with its default and what it means
    Default,
    /// Say whether the configuration can be used
    Check,
    /// Print the configuration in force, all files together
    Dump,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::Config(ConfigCommand::Default)) = arguments.command {
        print!("{}", config::DEFAULT_TEXT);
        return ExitCode::SUCCESS;
    }
    let config = match config::load(arguments.config.as_deref(), &arguments.overrides) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("cortend: {error}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match arguments.command {
        Some(Command::Config(ConfigCommand::Dump)) => dump(&config),
        Some(Command::Config(_)) => {
            println!("the configuration can be used");
            ExitCode::SUCCESS
        }
        Some(Command::Serve) | None => run(config),
    }
}

fn dump(config: &config::Config) -> ExitCode {
    match toml::to_string(config) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cortend: unable to print the configuration: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: config::Config) -> ExitCode {
    logging::start(&config.log);
    match serve::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(if error.in_use() { EXIT_IN_USE } else { 1 })
        }
    }
}
