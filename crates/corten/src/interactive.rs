//! The flags of commands with which people talk to a process.

use corten_api::corten::TerminalSize;

use crate::error::{Error, Result};
use crate::keyboard::Wishes;
use crate::parse::keys::{self, Keys};
use crate::terminal;

/// How to talk to it.
#[derive(Debug, Clone, clap::Args)]
pub struct Interactive {
    /// Give it our stdin
    #[arg(short, long)]
    pub interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub tty: bool,
    #[command(flatten)]
    pub leaving: Leaving,
}

/// How to leave.
#[derive(Debug, Clone, clap::Args)]
pub struct Leaving {
    /// Keys that leave it running, where it has a terminal
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = keys::parse)]
    pub detach_keys: Keys,
}

impl Interactive {
    /// Refuses what would look broken: a terminal that nobody can type into.
    pub fn check(&self) -> Result<()> {
        if self.interactive && self.tty && !terminal::is_typed_into() {
            return Err(Error::Input(
                "unable to use -t with -i: our stdin is no terminal; leave -t out".to_owned(),
            ));
        }
        Ok(())
    }

    /// What is wanted of our keyboard; whether SIGTERM leaves.
    pub fn wishes(&self, until_terminated: bool) -> Wishes {
        Wishes {
            input: self.interactive,
            terminal: self.tty,
            keys: self.leaving.detach_keys.clone(),
            until_terminated,
        }
    }

    /// The size of the terminal that it gets.
    pub fn size(&self) -> Option<TerminalSize> {
        if self.tty { terminal::size() } else { None }
    }
}
