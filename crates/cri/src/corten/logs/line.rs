//! One line of a CRI log.

use corten_api::corten::{LogEntry, LogStream};

use crate::time::parse_time;

/// Takes a line apart, its newline included. None for what is no CRI log line
/// (a torn one after a power cut): it is left out.
pub fn parse(line: &[u8]) -> Option<LogEntry> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = parse_time(std::str::from_utf8(parts.next()?).ok()?)?;
    let stream = match parts.next()? {
        b"stdout" => LogStream::Stdout,
        b"stderr" => LogStream::Stderr,
        _ => return None,
    };
    // Tags may grow more letters after a colon.
    let partial = match parts.next()?.split(|byte| *byte == b':').next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    let mut content = parts.next().unwrap_or_default().to_vec();
    if !partial {
        content.push(b'\n');
    }
    Some(LogEntry { stream: stream.into(), time_ns: time, content: content.into(), partial })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let entry = parse(b"1970-01-01T00:00:01Z stdout F hello  world\n").unwrap();
        assert_eq!(entry.stream(), LogStream::Stdout);
        assert_eq!((entry.time_ns, entry.partial), (1_000_000_000, false));
        assert_eq!(&entry.content[..], b"hello  world\n");
        let piece = parse(b"1970-01-01T00:00:01Z stderr P \xffx\n").unwrap();
        assert_eq!(piece.stream(), LogStream::Stderr);
        assert!(piece.partial);
        assert_eq!(&piece.content[..], b"\xffx");
        assert_eq!(&parse(b"1970-01-01T00:00:01Z stdout F \n").unwrap().content[..], b"\n");
        for torn in [&b""[..], b"garbage\n", b"1970-01-01T00:00:01Z stdin F x\n", b"\0\0\0"] {
            assert!(parse(torn).is_none());
        }
    }
}
