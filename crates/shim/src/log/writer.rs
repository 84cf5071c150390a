//! The log thread: lines of the CRI log format, into files.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::time::Duration;

use corten_base::limits::LOG_LINE_BYTES_MAX;
use corten_kernel::stream;

use super::queue::{Batch, LogId, News, Queue, Stream, Task};
use super::stamp::{STAMP_BYTES, stamp};

/// Formatted bytes that are collected for one write.
const OUTPUT_BYTES: usize = 32 << 10;
/// A buffer that has become larger than this is given back after its use.
const KEPT_BYTES: usize = 4096;

/// Stamp and name of the stream: how each line of a piece of output begins.
type Prefix = [u8; STAMP_BYTES + 8];

/// Writes until nothing has come for so long.
pub fn run(queue: &Queue, linger: Duration) {
    let mut batch = Batch::default();
    let mut logs = queue.logs();
    let mut writer = Writer { queue, logs: &mut logs, output: Vec::new(), current: None };
    while queue.next(&mut batch, linger) {
        writer.perform(&mut batch);
    }
}

struct Writer<'a> {
    queue: &'a Queue,
    logs: &'a mut Vec<Log>,
    /// Whole lines, not yet written, of the log `current`.
    output: Vec<u8>,
    current: Option<LogId>,
}

/// What is known of a log between one log thread and the next.
pub struct Log {
    id: LogId,
    file: File,
    /// Unfinished lines of stdout and stderr.
    tails: [Vec<u8>; 2],
    /// The rest of a line of which the disk took only a part. It must come
    /// before anything else, so that lines stay whole.
    owed: Vec<u8>,
    /// The last write failed, and that was told.
    broken: bool,
}

impl Writer<'_> {
    fn perform(&mut self, batch: &mut Batch) {
        let mut rest = batch.data.as_slice();
        for task in batch.tasks.drain(..) {
            match task {
                Task::Data { log, stream, at_ns, length } => {
                    let (data, after) = rest.split_at(length.min(rest.len()));
                    rest = after;
                    self.data(log, stream, at_ns, data);
                }
                Task::Open { log, file } => self.open(log, file),
                Task::End { log, stream } => self.end(log, stream),
                Task::Mark { log } => {
                    self.flush();
                    self.queue.tell(News::Written(log));
                }
                Task::Close { log } => {
                    self.flush();
                    self.logs.retain(|other| other.id != log);
                }
                Task::CloseUnused { file } => drop(file),
            }
        }
        self.flush();
        if self.output.capacity() > KEPT_BYTES {
            self.output = Vec::new();
        }
    }

    fn open(&mut self, id: LogId, file: File) {
        self.flush();
        match self.logs.iter_mut().find(|log| log.id == id) {
            Some(log) => {
                // The old file gets the end of its last line if it can.
                let owed = std::mem::take(&mut log.owed);
                let _ = write(&log.file, &owed);
                log.file = file;
            }
            None => {
                let tails = [Vec::new(), Vec::new()];
                self.logs.push(Log { id, file, tails, owed: Vec::new(), broken: false });
            }
        }
    }

    fn data(&mut self, id: LogId, stream: Stream, at_ns: i64, mut data: &[u8]) {
        self.turn_to(id);
        let prefix = prefix(at_ns, stream);
        while let Some(end) = stream::find(b'\n', data) {
            self.piece(id, stream, &prefix, &data[..end], true);
            data = &data[end + 1..];
        }
        if !data.is_empty() {
            self.piece(id, stream, &prefix, data, false);
        }
    }

    fn end(&mut self, id: LogId, stream: Stream) {
        let Some(log) = self.logs.iter().find(|log| log.id == id) else { return };
        if !log.tails[stream as usize].is_empty() {
            self.turn_to(id);
            let at_ns = corten_kernel::process::realtime_ns();
            self.piece(id, stream, &prefix(at_ns, stream), b"", true);
        }
    }

    /// Goes on with a stream's line. A line that becomes longer than
    /// `LOG_LINE_BYTES_MAX` is written in parts, all but the last as partial.
    fn piece(&mut self, id: LogId, stream: Stream, prefix: &Prefix, mut part: &[u8], ends: bool) {
        let Some(index) = self.logs.iter().position(|log| log.id == id) else { return };
        loop {
            let tail = &mut self.logs[index].tails[stream as usize];
            let room = LOG_LINE_BYTES_MAX.saturating_sub(tail.len());
            if part.len() <= room {
                if ends {
                    line(&mut self.output, prefix, b'F', [tail, part]);
                    give_back(tail);
                } else {
                    tail.extend_from_slice(part);
                }
                return self.flush_if_full();
            }
            let (now, later) = part.split_at(room);
            line(&mut self.output, prefix, b'P', [tail, now]);
            give_back(tail);
            part = later;
            self.flush_if_full();
        }
    }

    fn turn_to(&mut self, id: LogId) {
        if self.current != Some(id) {
            self.flush();
            self.current = Some(id);
        }
    }

    fn flush_if_full(&mut self) {
        if self.output.len() >= OUTPUT_BYTES {
            self.flush();
        }
    }

    /// Writes the collected lines. Lines that cannot be written are dropped,
    /// so that the container goes on.
    fn flush(&mut self) {
        if self.output.is_empty() {
            return;
        }
        let current = self.current;
        if let Some(log) = self.logs.iter_mut().find(|log| Some(log.id) == current) {
            match log.write(&self.output) {
                Ok(()) => log.broken = false,
                Err(errno) if !log.broken => {
                    log.broken = true;
                    self.queue.tell(News::Broken(log.id, errno));
                }
                Err(_) => {}
            }
        }
        self.output.clear();
    }
}

impl Log {
    fn write(&mut self, lines: &[u8]) -> Result<(), i32> {
        if !self.owed.is_empty() {
            let (written, result) = write(&self.file, &self.owed);
            self.owed.drain(..written);
            result?;
            self.owed = Vec::new();
        }
        let (written, result) = write(&self.file, lines);
        if result.is_err() && written > 0 && lines[written - 1] != b'\n' {
            let end =
                stream::find(b'\n', &lines[written..]).map_or(lines.len(), |end| written + end + 1);
            self.owed.extend_from_slice(&lines[written..end]);
        }
        result
    }
}

/// How many bytes were written, and the errno that stopped it.
fn write(mut file: &File, bytes: &[u8]) -> (usize, Result<(), i32>) {
    const EIO: i32 = 5;
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Err(EIO)),
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => stream::wait_writable(file),
            Err(error) => return (written, Err(error.raw_os_error().unwrap_or(EIO))),
        }
    }
    (written, Ok(()))
}

fn prefix(at_ns: i64, stream: Stream) -> Prefix {
    let mut prefix = [b' '; STAMP_BYTES + 8];
    prefix[..STAMP_BYTES].copy_from_slice(&stamp(at_ns));
    prefix[STAMP_BYTES + 1..STAMP_BYTES + 7].copy_from_slice(match stream {
        Stream::Out => b"stdout",
        Stream::Error => b"stderr",
    });
    prefix
}

fn line(output: &mut Vec<u8>, prefix: &Prefix, tag: u8, parts: [&[u8]; 2]) {
    output.extend_from_slice(prefix);
    output.extend_from_slice(&[tag, b' ']);
    for part in parts {
        output.extend_from_slice(part);
    }
    output.push(b'\n');
}

fn give_back(buffer: &mut Vec<u8>) {
    if buffer.capacity() > KEPT_BYTES {
        *buffer = Vec::new();
    }
    buffer.clear();
}
