//! The log thread on its own: what goes in, what comes out.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use corten_base::limits::LOG_LINE_BYTES_MAX;

use super::*;

struct Bench {
    queue: Arc<Queue>,
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let queue = Arc::new(Queue::new().unwrap());
        let bench = Self { queue, directory: tempfile::tempdir().unwrap() };
        bench.open("log");
        bench
    }

    fn open(&self, name: &str) {
        let path = self.directory.path().join(name);
        let file = File::options().create(true).append(true).open(path).unwrap();
        self.queue.push(Task::Open { log: 1, file });
    }

    fn say(&self, stream: Stream, mut bytes: &[u8]) {
        let (read, write) = corten_kernel::stream::pipe().unwrap();
        let mut write = File::from(write);
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(16 << 10));
            write.write_all(now).unwrap();
            let mut left = now.len();
            while left > 0 {
                match self.queue.fill(1, stream, read.as_fd(), |_| ()) {
                    Filled::Taken(count) => left -= count,
                    Filled::NoRoom => std::thread::yield_now(),
                    other => panic!("{other:?}"),
                }
            }
            bytes = later;
        }
    }

    /// Ends the thread; stream, tag and content of each line.
    fn finish(&self, name: &str) -> Vec<(String, String, String)> {
        self.queue.close();
        while self.queue.is_attended() {
            std::thread::yield_now();
        }
        let text = std::fs::read_to_string(self.directory.path().join(name)).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines()
            .map(|line| {
                let mut parts = line.splitn(4, ' ').map(str::to_owned);
                assert_eq!(parts.next().unwrap().len(), 30);
                (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap())
            })
            .collect()
    }
}

fn owned(lines: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    lines.iter().map(|(a, b, c)| ((*a).into(), (*b).into(), (*c).into())).collect()
}

#[test]
fn lines_of_both_streams() {
    let bench = Bench::new();
    bench.say(Stream::Out, b"one\n\nun");
    bench.say(Stream::Error, b"bad\n");
    bench.say(Stream::Out, b"finished\nlast");
    bench.queue.push(Task::End { log: 1, stream: Stream::Out });
    bench.queue.push(Task::End { log: 1, stream: Stream::Error });
    assert_eq!(
        bench.finish("log"),
        owned(&[
            ("stdout", "F", "one"),
            ("stdout", "F", ""),
            ("stderr", "F", "bad"),
            ("stdout", "F", "unfinished"),
            ("stdout", "F", "last"),
        ])
    );
}

#[test]
fn long_lines_are_split() {
    let bench = Bench::new();
    let exact = "x".repeat(LOG_LINE_BYTES_MAX);
    let long = "y".repeat(LOG_LINE_BYTES_MAX * 2 + 1);
    bench.say(Stream::Out, format!("{exact}\n{long}\nshort\n").as_bytes());
    let half = "y".repeat(LOG_LINE_BYTES_MAX);
    assert_eq!(
        bench.finish("log"),
        owned(&[
            ("stdout", "F", &exact),
            ("stdout", "P", &half),
            ("stdout", "P", &half),
            ("stdout", "F", "y"),
            ("stdout", "F", "short"),
        ])
    );
}

#[test]
fn another_file_from_the_next_line_on() {
    let bench = Bench::new();
    bench.say(Stream::Out, b"old\nbegun ");
    bench.open("new");
    bench.say(Stream::Out, b"here\n");
    assert_eq!(bench.finish("log"), owned(&[("stdout", "F", "old")]));
    assert_eq!(bench.finish("new"), owned(&[("stdout", "F", "begun here")]));
}

#[test]
fn many_lines_stay_whole_and_in_order() {
    let bench = Bench::new();
    let text: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    bench.say(Stream::Out, text.as_bytes());
    let lines = bench.finish("log");
    assert_eq!(lines.len(), 20_000);
    for (n, line) in lines.iter().enumerate() {
        assert_eq!((line.1.as_str(), line.2.as_str()), ("F", format!("line {n}").as_str()));
    }
}

#[test]
fn a_broken_file_is_told_once_and_a_mark_still_answered() {
    let bench = Bench::new();
    let full = File::options().write(true).open("/dev/full").unwrap();
    bench.queue.push(Task::Open { log: 1, file: full });
    bench.say(Stream::Out, b"lost\n");
    bench.queue.push(Task::Mark { log: 1 });
    bench.say(Stream::Out, b"lost too\n");
    bench.open("log");
    bench.say(Stream::Out, b"kept\n");
    bench.queue.push(Task::Mark { log: 1 });
    assert_eq!(bench.finish("log"), owned(&[("stdout", "F", "kept")]));
    assert_eq!(bench.queue.take_news(), [News::Broken(1, 28), News::Written(1), News::Written(1)]);
}

#[test]
fn a_silent_log_needs_no_thread() {
    let bench = Bench::new();
    bench.open("log");
    bench.queue.push(Task::End { log: 1, stream: Stream::Out });
    bench.queue.push(Task::Mark { log: 1 });
    assert_eq!(bench.queue.take_news(), [News::Written(1)]);
    bench.queue.push(Task::Close { log: 1 });
    bench.queue.push(Task::Mark { log: 1 });
    assert_eq!(bench.queue.take_news(), [News::Written(1)]);
    assert!(!bench.queue.is_attended());
}

#[test]
fn unused_files_are_not_kept_for_ever() {
    let bench = Bench::new();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    for _ in 0..1000 {
        bench.open("another");
    }
    while bench.queue.is_attended() {
        std::thread::sleep(Duration::from_millis(5));
    }
    // Others of this program open files, too.
    assert!(open() < before + 200, "{before} and now {}", open());
}

#[test]
fn a_line_is_finished_by_another_thread_than_it_was_begun_by() {
    let bench = Bench::new();
    for piece in [&b"begun "[..], b"gone on with ", b"and finished\n"] {
        bench.say(Stream::Out, piece);
        while bench.queue.is_attended() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    assert_eq!(bench.finish("log"), owned(&[("stdout", "F", "begun gone on with and finished")]));
}
