//! From the streams of containers to the log thread.

use std::os::fd::{AsFd, OwnedFd};

use corten_kernel::event::Interest;
use corten_kernel::stream::{resize_terminal, set_nonblocking};

use crate::attach::copy_to_all;
use crate::log::{Filled, Stream, Task};
use crate::process::{Output, Serial};
use crate::shim::{Shim, Source};

/// Reads from one stream before others have their turn.
const READS_AT_ONCE: usize = 4;
/// Reads from one stream that are enough to have all that was in it when its
/// process ended: the largest pipe that an unprivileged process can make
/// (`/proc/sys/fs/pipe-max-size`) is 1 MiB, and a read takes up to 64 KiB.
const READS_TO_DRAIN: usize = 64;

const STREAMS: [Stream; 2] = [Stream::Out, Stream::Error];

impl Shim {
    /// Takes charge of our end of an output stream.
    pub(crate) fn add_output(&mut self, serial: Serial, stream: Stream, fd: OwnedFd) {
        let Some(index) = self.position(serial) else { return };
        let logged = self.processes[index].stdio.log;
        // Without O_NONBLOCK a read could hang on a reader that was faster;
        // there is no other reader, so that a failure is not fatal.
        let watched = logged
            && set_nonblocking(&fd).is_ok()
            && self.poll.add(&fd, Source::Output(serial, stream).token(), Interest::READ).is_ok();
        let output = Output { fd, logged, watched };
        self.processes[index].streams.outputs[stream as usize] = Some(output);
    }

    /// The master of a process's terminal, which the child has made.
    pub(crate) fn take_terminal(&mut self, serial: Serial, master: OwnedFd) {
        let Some(index) = self.position(serial) else { return };
        let process = &mut self.processes[index];
        if let Some([rows, columns]) = process.streams.size.take() {
            // It keeps the size that it was made with.
            let _ = resize_terminal(&master, rows, columns);
        }
        let takes_input = process.stdio.log && process.stdio.stdin;
        if takes_input && !process.streams.stdin_closed {
            // Without a duplicate its clients are not heard; it is seen.
            process.streams.stdin = master.try_clone().ok();
        }
        self.add_output(serial, Stream::Out, master);
        self.relay(serial);
    }

    /// Something can be read.
    pub(crate) fn read_output(&mut self, serial: Serial, stream: Stream) {
        for _ in 0..READS_AT_ONCE {
            match self.read_once(serial, stream) {
                Filled::Taken(_) => {}
                Filled::Nothing | Filled::NoRoom => return,
                Filled::End => return self.drain_ending(serial),
            }
        }
    }

    fn read_once(&mut self, serial: Serial, stream: Stream) -> Filled {
        let Some(index) = self.position(serial) else { return Filled::Nothing };
        if self.is_held(index, stream) {
            self.unwatch(index, stream);
            return Filled::NoRoom;
        }
        let patience = self.patience();
        let Some(output) = self.processes[index].streams.output(stream) else {
            return Filled::End;
        };
        let fd = output.fd.as_fd();
        let (attachments, poll) = (&mut self.attachments, &self.poll);
        let filled = self.given.queue.fill(serial, stream, fd, |bytes| {
            copy_to_all(attachments, poll, patience, (serial, stream), bytes);
        });
        match filled {
            Filled::Taken(_) => self.drop_attachments(),
            Filled::Nothing => {}
            Filled::NoRoom => self.unwatch(index, stream),
            Filled::End => {
                self.unwatch(index, stream);
                self.processes[index].streams.outputs[stream as usize] = None;
                self.processes[index].streams.ended[stream as usize] = true;
                self.end_copies(serial, stream);
                self.drop_attachments();
                self.given.queue.push(Task::End { log: serial, stream });
                self.close_log_if_done(index);
            }
        }
        filled
    }

    /// A hang-up is told however little is asked for, so that a stream that is
    /// not to be read has to leave the set.
    fn unwatch(&mut self, index: usize, stream: Stream) {
        if let Some(output) = self.processes[index].streams.output(stream)
            && std::mem::take(&mut output.watched)
        {
            let _ = self.poll.remove(&output.fd);
        }
    }

    /// There is room in the queue again.
    pub(crate) fn resume_outputs(&mut self) {
        for index in 0..self.processes.len() {
            let serial = self.processes[index].serial;
            for stream in STREAMS {
                if self.is_held(index, stream) {
                    continue;
                }
                let process = &mut self.processes[index];
                let Some(output) = process.streams.output(stream) else { continue };
                if output.logged && !output.watched {
                    let token = Source::Output(serial, stream).token();
                    output.watched = self.poll.add(&output.fd, token, Interest::READ).is_ok();
                }
            }
            self.drain_ending(serial);
        }
    }

    /// After the end of a process: takes what it left in its pipes, and has
    /// the log thread say when that is written. What others write who still
    /// hold the pipes is read later like any output.
    pub(crate) fn drain_ending(&mut self, serial: Serial) {
        for stream in STREAMS {
            let Some(index) = self.position(serial) else { return };
            let process = &mut self.processes[index];
            let logged = process.streams.output(stream).is_some_and(|output| output.logged);
            let Some(ending) = &mut process.ending else { return };
            if !logged {
                ending.drained[stream as usize] = true;
            }
            if ending.drained[stream as usize] {
                continue;
            }
            let drained = self.drain(serial, stream);
            if let Some(ending) = &mut self.processes[index].ending {
                ending.drained[stream as usize] = drained;
            }
        }
        let Some(index) = self.position(serial) else { return };
        let process = &mut self.processes[index];
        let Some(ending) = &mut process.ending else { return };
        if ending.drained == [true; 2] && !ending.marked {
            if process.stdio.log {
                ending.marked = true;
                self.given.queue.push(Task::Mark { log: serial });
            } else {
                self.output_written(serial);
            }
        }
    }

    fn drain(&mut self, serial: Serial, stream: Stream) -> bool {
        for _ in 0..READS_TO_DRAIN {
            match self.read_once(serial, stream) {
                Filled::Taken(_) => {}
                Filled::Nothing | Filled::End => return true,
                Filled::NoRoom => return false,
            }
        }
        true
    }
}
