//! A log file, read from front to back as it grows.

use std::path::{Path, PathBuf};

use corten_api::corten::LogEntry;
use corten_base::limits::{LOG_BATCH_ENTRIES_MAX, LOG_LINE_BYTES_MAX};
use corten_pods::{Error, Result};
use std::os::unix::fs::MetadataExt;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader, SeekFrom};

use super::line::parse;

/// Bytes of a whole line: the content, and time, stream and tag before it.
const LINE_BYTES_MAX: u64 = LOG_LINE_BYTES_MAX as u64 + 128;
/// Bytes that are looked through at once for the tail.
const TAIL_BLOCK_BYTES: u64 = 64 << 10;

/// An open log. It stays readable when the file is removed, and goes on with
/// the next one when it is rotated.
pub struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    /// A line whose end is not written yet.
    begun: Vec<u8>,
}

impl Reader {
    /// Opens a log at its beginning.
    pub async fn open(path: PathBuf) -> Result<Self> {
        let file = BufReader::new(open(&path).await?);
        Ok(Self { path, file, begun: Vec::new() })
    }

    /// The next entries not older than `since_ns`: none when all that is
    /// written has been read.
    pub async fn next_entries(&mut self, since_ns: i64) -> Result<Vec<LogEntry>> {
        let mut entries = Vec::new();
        while entries.len() < LOG_BATCH_ENTRIES_MAX {
            if !self.next_line().await? && !self.next_line_after_rotation().await? {
                break;
            }
            let entry = parse(&self.begun).filter(|entry| entry.time_ns >= since_ns);
            self.begun.clear();
            entries.extend(entry);
        }
        Ok(entries)
    }

    /// Goes to where the last `lines` lines begin.
    pub async fn skip_to_tail(&mut self, lines: u32) -> Result<()> {
        let failed = |error| failed("read", &self.path, &error);
        let length = self.file.get_ref().metadata().await.map_err(failed)?.len();
        let mut start = length;
        // The newline at the very end closes the last line, and begins none.
        let mut wanted = u64::from(lines) + 1;
        let mut block = Vec::new();
        'search: while start > 0 && lines > 0 {
            let from = start.saturating_sub(TAIL_BLOCK_BYTES);
            self.file.seek(SeekFrom::Start(from)).await.map_err(failed)?;
            block.clear();
            (&mut self.file).take(start - from).read_to_end(&mut block).await.map_err(failed)?;
            for (index, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
                wanted -= 1;
                if wanted == 0 {
                    start = from + index as u64 + 1;
                    break 'search;
                }
            }
            start = from;
        }
        self.file.seek(SeekFrom::Start(start)).await.map_err(failed)?;
        Ok(())
    }

    /// Reads on until `begun` is a whole line; false at the end of the file.
    async fn next_line(&mut self) -> Result<bool> {
        let room = LINE_BYTES_MAX.saturating_sub(self.begun.len() as u64);
        let read = (&mut self.file)
            .take(room)
            .read_until(b'\n', &mut self.begun)
            .await
            .map_err(|error| failed("read", &self.path, &error))?;
        // What is longer than any line of ours is not one: it is passed on as
        // it is, and will not parse.
        Ok(self.begun.ends_with(b"\n") || (read == 0 && room == 0) || read as u64 == room)
    }

    /// Where another file is at the path now, reads on in that one.
    async fn next_line_after_rotation(&mut self) -> Result<bool> {
        let Ok(there) = tokio::fs::metadata(&self.path).await else { return Ok(false) };
        let ours = self
            .file
            .get_ref()
            .metadata()
            .await
            .map_err(|error| failed("look at", &self.path, &error))?;
        if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) {
            return Ok(false);
        }
        // The writer may have come between our last read and the rotation.
        if self.next_line().await? {
            return Ok(true);
        }
        let Ok(next) = open(&self.path).await else { return Ok(false) };
        self.file = BufReader::new(next);
        self.begun.clear();
        self.next_line().await
    }
}

async fn open(path: &Path) -> Result<File> {
    File::open(path).await.map_err(|error| failed("open", path, &error))
}

fn failed(verb: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::internal(format!("unable to {verb} the log {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn line(number: usize) -> String {
        format!("1970-01-01T00:00:{number:02}Z stdout F line {number}\n")
    }

    async fn all(reader: &mut Reader, since_ns: i64) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let entries = reader.next_entries(since_ns).await.unwrap();
            if entries.is_empty() {
                return lines;
            }
            for entry in entries {
                lines.push(String::from_utf8(entry.content.to_vec()).unwrap());
            }
        }
    }

    #[tokio::test]
    async fn a_log_is_read_as_it_grows_and_rotates() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut file = std::fs::File::create(&path).unwrap();
        write!(file, "{}{}", line(1), &line(2)[..10]).unwrap();
        let mut reader = Reader::open(path.clone()).await.unwrap();
        assert_eq!(all(&mut reader, 0).await, ["line 1\n"]);
        write!(file, "{}", &line(2)[10..]).unwrap();
        assert_eq!(all(&mut reader, 0).await, ["line 2\n"]);
        std::fs::rename(&path, dir.path().join("0.log.1")).unwrap();
        let mut next = std::fs::File::create(&path).unwrap();
        write!(file, "{}", line(3)).unwrap();
        write!(next, "garbage\n{}", line(4)).unwrap();
        assert_eq!(all(&mut reader, 0).await, ["line 3\n", "line 4\n"]);
        std::fs::remove_file(&path).unwrap();
        write!(next, "{}", line(5)).unwrap();
        assert_eq!(all(&mut reader, 0).await, ["line 5\n"]);
    }

    #[tokio::test]
    async fn tail_and_since_leave_out_what_is_old() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, (0..60).map(line).collect::<String>()).unwrap();
        for (tail, expected) in [(0, 0), (1, 1), (3, 3), (60, 60), (1000, 60)] {
            let mut reader = Reader::open(path.clone()).await.unwrap();
            reader.skip_to_tail(tail).await.unwrap();
            let lines = all(&mut reader, 0).await;
            assert_eq!(lines.len(), expected, "tail {tail}");
            assert!(lines.last().is_none_or(|last| last == "line 59\n"));
        }
        let mut reader = Reader::open(path.clone()).await.unwrap();
        assert_eq!(all(&mut reader, 58_000_000_000).await.len(), 2);
    }

    #[tokio::test]
    async fn the_tail_of_a_long_log_is_found_across_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, (0..20_000).map(|n| line(n % 60)).collect::<String>()).unwrap();
        let mut reader = Reader::open(path).await.unwrap();
        reader.skip_to_tail(9_000).await.unwrap();
        assert_eq!(all(&mut reader, 0).await.len(), 9_000);
    }
}
