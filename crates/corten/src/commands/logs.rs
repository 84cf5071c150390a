//! `corten logs`: what a container wrote.

use bytes::{Bytes, BytesMut};
use corten_api::corten::{LogEntry, LogStream, LogsRequest};

use crate::client::Place;
use crate::error::{Doing, Error, Result};
use crate::output::{now_ns, rfc3339};
use crate::parse::duration;
use crate::writer::Writer;

/// Show what a container wrote
///
/// What it wrote to stderr goes to our stderr.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Go on until the container has ended
    #[arg(short, long)]
    follow: bool,
    /// Only so many lines from the end ("all" for all)
    #[arg(long, value_name = "LINES", value_parser = tail)]
    tail: Option<Tail>,
    /// Put the time before each line
    #[arg(short, long)]
    timestamps: bool,
    /// Only what was written since then: 10m, 2h30m
    #[arg(long, value_name = "LONG-AGO", value_parser = |text: &str| duration::since(text, now_ns()))]
    since: Option<i64>,
    /// The container's name or id
    container: String,
}

/// How many lines from the end: none for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tail(Option<u32>);

fn tail(text: &str) -> std::result::Result<Tail, String> {
    match text {
        "all" | "-1" => Ok(Tail(None)),
        text => text
            .parse()
            .map(|lines| Tail(Some(lines)))
            .map_err(|_| format!("{text:?} is no number of lines, nor is it \"all\"")),
    }
}

impl Arguments {
    /// Shows it.
    pub async fn run(self, place: &Place) -> Result<u8> {
        let daemon = place.connect().await?;
        let doing = format!("read the log of {}", self.container);
        let request = LogsRequest {
            namespace: daemon.space(),
            container: self.container,
            follow: self.follow,
            tail: self.tail.and_then(|tail| tail.0),
            since_ns: self.since.unwrap_or_default(),
        };
        let mut messages = daemon.calls().logs(request).await.doing(&doing)?.into_inner();
        let writer = Writer::start();
        let mut lines = Lines { timestamps: self.timestamps, ..Lines::default() };
        let outcome = loop {
            match messages.message().await.doing(&doing) {
                Ok(Some(message)) => {
                    if !write(&writer, &mut lines, message.entries).await {
                        break Ok(());
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        writer.finish().await?;
        outcome.map_err(|error: Error| error).map(|()| 0)
    }
}

/// False where nobody reads any more.
async fn write(writer: &Writer, lines: &mut Lines, entries: Vec<LogEntry>) -> bool {
    for entry in entries {
        let stream = LogStream::try_from(entry.stream).unwrap_or(LogStream::Stdout);
        if !writer.write(stream, lines.text(stream, entry)).await {
            return false;
        }
    }
    true
}

/// Where the lines of both streams are.
#[derive(Debug, Default)]
struct Lines {
    timestamps: bool,
    /// Whether the last entry of stdout, and that of stderr, left its line open.
    open: [bool; 2],
}

impl Lines {
    /// What to print for an entry. A long line comes in pieces, and has its
    /// time once.
    fn text(&mut self, stream: LogStream, entry: LogEntry) -> Bytes {
        let open = &mut self.open[usize::from(stream == LogStream::Stderr)];
        let begins = !std::mem::replace(open, entry.partial);
        if !self.timestamps || !begins {
            return entry.content;
        }
        let mut text = BytesMut::from(rfc3339(entry.time_ns).as_bytes());
        text.extend_from_slice(b" ");
        text.extend_from_slice(&entry.content);
        text.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(content: &'static str, partial: bool) -> LogEntry {
        LogEntry { content: content.into(), partial, ..Default::default() }
    }

    #[test]
    fn a_long_line_has_its_time_once() {
        let mut lines = Lines { timestamps: true, ..Lines::default() };
        let mut text = String::new();
        for (stream, entry) in [
            (LogStream::Stdout, entry("be", true)),
            (LogStream::Stderr, entry("error\n", false)),
            (LogStream::Stdout, entry("gin\n", false)),
            (LogStream::Stdout, entry("end\n", false)),
        ] {
            text.push_str(std::str::from_utf8(&lines.text(stream, entry)).unwrap());
        }
        let time = "1970-01-01T00:00:00.000000000Z";
        assert_eq!(text, format!("{time} be{time} error\ngin\n{time} end\n"));
        let mut plain = Lines::default();
        assert_eq!(&plain.text(LogStream::Stdout, entry("x\n", false))[..], b"x\n");
    }

    #[test]
    fn a_tail_is_a_number_or_all() {
        assert_eq!(tail("10"), Ok(Tail(Some(10))));
        assert_eq!(tail("0"), Ok(Tail(Some(0))));
        assert_eq!(tail("all"), Ok(Tail(None)));
        assert!(tail("-5").is_err());
    }
}
