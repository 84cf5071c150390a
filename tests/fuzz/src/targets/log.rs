//! What containers write, as it comes out of the log.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

use corten_base::limits::LOG_LINE_BYTES_MAX;
use corten_shim::log::{Filled, Queue, Stream, Task};

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let long = vec![b'x'; 2 * LOG_LINE_BYTES_MAX + 5];
    vec![
        b"\x05one\ntwo\nthree".to_vec(),
        b"\xff\n\n\n".to_vec(),
        [b"\x90\n", &long[..], b"\nend"].concat(),
        [b"\x01", &long[..LOG_LINE_BYTES_MAX], b"\n"].concat(),
    ]
}

/// The first byte says in which pieces the rest is written, to which stream.
/// What a stream was given is what its lines amount to.
pub(super) fn read(bytes: &[u8]) {
    let Some((how, content)) = bytes.split_first() else { return };
    let step = 1 + usize::from(how & 0x3f) * 97;
    let queue = Arc::new(Queue::new().expect("a queue"));
    let memory = rustix::fs::memfd_create("log", rustix::fs::MemfdFlags::CLOEXEC);
    let mut log = File::from(memory.expect("a file in memory"));
    queue.push(Task::Open { log: 1, file: log.try_clone().expect("a duplicate") });
    let (from, to) = corten_kernel::stream::pipe().expect("a pipe");
    let mut to = File::from(to);
    let mut said = [Vec::new(), Vec::new()];
    for (number, piece) in content.chunks(step.max(content.len() / 500 + 1)).enumerate() {
        let error = how & 0x40 != 0 && number % 2 == 1;
        let stream = if error { Stream::Error } else { Stream::Out };
        to.write_all(piece).expect("room in the pipe");
        match queue.fill(1, stream, from.as_fd(), |copy| assert_eq!(copy, piece)) {
            Filled::Taken(count) => assert_eq!(count, piece.len()),
            other => panic!("{other:?}"),
        }
        said[usize::from(error)].extend_from_slice(piece);
    }
    for stream in [Stream::Out, Stream::Error] {
        queue.push(Task::End { log: 1, stream });
    }
    queue.close();
    while queue.is_attended() {
        std::thread::yield_now();
    }
    let mut text = Vec::new();
    log.seek(SeekFrom::Start(0)).expect("a place");
    log.read_to_end(&mut text).expect("the log");
    assert_eq!(unwritten(&text), said.map(finished));
}

/// An unfinished last line is finished at the end of its stream.
fn finished(mut said: Vec<u8>) -> Vec<u8> {
    if said.last().is_some_and(|byte| *byte != b'\n') {
        said.push(b'\n');
    }
    said
}

/// What both streams said, by the lines of a log.
fn unwritten(log: &[u8]) -> [Vec<u8>; 2] {
    let mut said = [Vec::new(), Vec::new()];
    for line in log.split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\n").expect("lines are whole");
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let stamp = fields.next().expect("a stamp");
        assert!(stamp.starts_with(b"20") && stamp.len() >= 30, "{line:?}");
        let stream = match fields.next() {
            Some(b"stdout") => 0,
            Some(b"stderr") => 1,
            other => panic!("{other:?}"),
        };
        let tag = fields.next().expect("a tag");
        let content = fields.next().expect("content, be it empty");
        assert!(content.len() <= LOG_LINE_BYTES_MAX);
        said[stream].extend_from_slice(content);
        match tag {
            b"F" => said[stream].push(b'\n'),
            b"P" => {}
            other => panic!("{other:?}"),
        }
    }
    said
}
