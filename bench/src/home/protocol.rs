//! What bench and keeper say to each other: a line of JSON each.

use std::io::{BufRead, Write};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What a keeper is told when it is started, as its only argument.
#[derive(Debug, Serialize, Deserialize)]
pub struct Task {
    /// The runtime's files; removed at the end.
    pub directory: PathBuf,
    /// The cgroup of everything; removed at the end.
    pub cgroup: String,
    /// Hide the unified hierarchy: crun refuses a machine that has both.
    pub without_unified: bool,
}

/// What a keeper is asked for.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Start a program among the runtime's daemons.
    Start {
        /// The program and its arguments.
        command: Vec<String>,
        /// More of its environment.
        environment: Vec<(String, String)>,
        /// Where its output is appended.
        log: PathBuf,
    },
    /// Send a signal to a program that was started, and wait for its end.
    End {
        /// Which.
        pid: u32,
        /// Not SIGKILL, but SIGTERM.
        politely: bool,
    },
    /// Run a program to its end.
    Run {
        /// The program and its arguments.
        command: Vec<String>,
    },
}

/// What it answers; first of all, unasked, `Ready`.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// Everything is prepared.
    Ready {
        /// The registry's host and port.
        registry: String,
    },
    /// The program runs.
    Started {
        /// As which.
        pid: u32,
    },
    /// The program has ended.
    Ended,
    /// The program ran.
    Ran {
        /// Whether it succeeded.
        success: bool,
        /// What it printed.
        output: String,
    },
    /// It could not be done.
    Failed {
        /// Why.
        error: String,
    },
}

/// Says something.
///
/// # Errors
/// If nobody listens.
pub fn say(to: &mut impl Write, what: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_string(what).context("unable to make JSON")?;
    line.push('\n');
    to.write_all(line.as_bytes()).and_then(|()| to.flush()).context("unable to write to a pipe")
}

/// Hears something; `None` when the other is gone.
///
/// # Errors
/// If it cannot be understood.
pub fn hear<T: DeserializeOwned>(from: &mut impl BufRead) -> Result<Option<T>> {
    let mut line = String::new();
    if from.read_line(&mut line).context("unable to read from a pipe")? == 0 {
        return Ok(None);
    }
    serde_json::from_str(&line).with_context(|| format!("unable to understand {line:?}")).map(Some)
}

impl Answer {
    /// The answer, unless it is that something failed.
    ///
    /// # Errors
    /// If it is.
    pub fn well(self) -> Result<Self> {
        match self {
            Self::Failed { error } => bail!("{error}"),
            Self::Ready { .. } | Self::Started { .. } | Self::Ended | Self::Ran { .. } => Ok(self),
        }
    }
}
