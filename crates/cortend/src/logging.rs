//! What the daemon says of itself, to stderr: systemd puts it into the journal.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::{Log, LogFormat};

/// Sends all events to stderr from now on. The level was checked with the
/// configuration.
pub fn start(log: &Log) {
    let builder = fmt()
        .with_env_filter(EnvFilter::new(&log.level))
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal());
    match log.format {
        LogFormat::Json => builder.json().init(),
        // The journal has times of its own.
        LogFormat::Text if std::env::var_os("JOURNAL_STREAM").is_some() => {
            builder.without_time().init();
        }
        LogFormat::Text => builder.init(),
    }
}
