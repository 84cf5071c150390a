//! What is printed: tables for people, JSON for programs.

mod table;
mod time;

pub use table::Table;
pub use time::{ago, now_ns, rfc3339, span};

use std::io::Write;

use corten_api::corten::{PortMapping, Protocol};
use serde::Serialize;

use crate::error::{Error, Result};

/// Characters of an id that people see: as many as in the daemon's sentences.
const SHORT_ID_CHARS: usize = 13;

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

/// The flag of lists that chooses.
#[derive(Debug, clap::Args)]
pub struct Output {
    /// How to print it
    #[arg(short, long = "output", value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

impl Output {
    /// Whether programs read it.
    pub fn json(&self) -> bool {
        self.output == Format::Json
    }
}

/// Prints to stdout.
pub fn print(text: &str) -> Result<()> {
    write_all(text.as_bytes())
}

/// Writes bytes to stdout as they are.
pub fn write_all(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Error::io("write to stdout"))
}

/// Prints a value as JSON, indented.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::io("print JSON")(std::io::Error::other(error)))?;
    text.push('\n');
    print(&text)
}

/// The beginning of an id or digest, without its algorithm.
pub fn short_id(id: &str) -> &str {
    let id = id.rsplit_once(':').map_or(id, |(_, hex)| hex);
    id.get(..SHORT_ID_CHARS).unwrap_or(id)
}

/// Bytes in the largest unit that leaves a number below 1000: `7.47 MB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = match value {
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// `127.0.0.1:8080->80/tcp`.
pub fn port(mapping: &PortMapping) -> String {
    let address = match mapping.host_ip.as_str() {
        "" => String::new(),
        ip if ip.contains(':') => format!("[{ip}]:"),
        ip => format!("{ip}:"),
    };
    let (host, container) = (mapping.host_port, mapping.container_port);
    format!("{address}{host}->{container}/{}", protocol(mapping.protocol()))
}

/// The name of a protocol.
pub fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Unspecified | Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// Text on one line, without what would steer a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The same for text that may have several lines.
pub fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

/// At most so many characters, the last one `…` where some are missing.
pub fn shortened(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        None => text.to_owned(),
        Some(_) => {
            let kept: String = text.chars().take(chars.saturating_sub(1)).collect();
            format!("{}…", kept.trim_end())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (7_468_211, "7.47 MB"),
            (77_800_000, "77.8 MB"),
            (187_694_648, "188 MB"),
            (999_700, "1.00 MB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn ids_are_short() {
        assert_eq!(short_id("sha256:0123456789abcdef0123"), "0123456789abc");
        assert_eq!(short_id("0123456789abcdef"), "0123456789abc");
        assert_eq!(short_id("01"), "01");
    }

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
        assert_eq!(printable_lines("a\nb\x07"), "a\nb\u{fffd}");
    }

    #[test]
    fn long_text_is_cut() {
        assert_eq!(shortened("abcdef", 6), "abcdef");
        assert_eq!(shortened("äbcdefg", 6), "äbcde…");
    }
}
