//! What happens to processes: news of children on their way, ends, deadlines.

use std::io::Write;
use std::time::Duration;

use corten_base::limits::EXIT_RECORD_BYTES;
use corten_kernel::launch::Message;
use corten_kernel::process::{self, End};
use corten_protocol::exit_record::ExitRecord;
use corten_protocol::frame::{Event, Exit, LaunchFailure, OUTPUT_BYTES_MAX, Refusal, Reply};
use corten_protocol::plan::HookPoint;

use crate::log::Task;
use crate::process::{Brief, Cgroup, Ending, Process, Serial};
use crate::shim::Shim;
use crate::table::{self, Next, State};

/// How long the end of a process may wait for its last output to be written:
/// a log disk that hangs must not hide that a container has ended.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an exec of Run is left alone at a time.
const BRIEF_MAX: Duration = Duration::from_millis(40);

impl Shim {
    /// A child on its way has said something.
    pub(crate) fn hear(&mut self, serial: Serial) {
        while let Some(index) = self.position(serial) {
            let process = &mut self.processes[index];
            let Some(child) = &process.child else { return };
            match child.read_message() {
                Ok(None) => return,
                Ok(Some(Message::Created)) => self.reached_start(index),
                Ok(Some(Message::HookPoint { .. })) => {
                    self.run_hooks(index, HookPoint::CreateRuntime, 0, None);
                }
                Ok(Some(Message::Warning { step, errno })) => {
                    let target = process.target.clone();
                    self.tell(Event::Warning { target, step, errno });
                }
                Ok(Some(Message::Failed { step, errno })) => {
                    process.failure.get_or_insert(LaunchFailure { step, errno });
                }
                Ok(Some(Message::ConsoleMaster(master))) => {
                    self.take_terminal(serial, master);
                }
                Ok(Some(Message::Closed)) | Err(_) => self.fell_silent(index),
            }
        }
    }

    pub(crate) fn reached_start(&mut self, index: usize) {
        let process = &mut self.processes[index];
        let Next::Go(next) = process.state.on(table::Event::ReachedStart) else { return };
        process.state = next;
        let event =
            Event::Created { container: process.target.container.clone(), pid: process.pid };
        self.tell(event);
        if next == State::Starting {
            self.release(index);
        }
    }

    /// Lets a waiting child go on. If that cannot be said to it, it has died,
    /// which the reaper will see.
    pub(crate) fn release(&mut self, index: usize) {
        match &self.processes[index].child {
            Some(child) => {
                let _ = child.release();
                if let Some(delegation) = &mut self.processes[index].delegation {
                    delegation.begin();
                }
            }
            None if self.processes[index].delegated => {
                self.run_hooks(index, HookPoint::Start, 0, None);
            }
            None => {}
        }
    }

    /// Nothing more will come from a child: it has failed, it was killed, or
    /// its command runs.
    fn fell_silent(&mut self, index: usize) {
        let process = &mut self.processes[index];
        let Some(child) = process.child.take() else { return };
        if process.brief.is_none() {
            let _ = self.poll.remove(child.sync());
        }
        process.pidfd = Some(child.into_pidfd());
        let waiting = process.awaits_start
            && matches!(process.state, State::Creating | State::CreatingToStart | State::Created);
        // An OCI runtime runs; what it makes does not yet.
        if process.failure.is_some() || waiting || process.delegation.is_some() {
            return;
        }
        self.command_runs(index);
    }

    /// The command of a process runs.
    pub(crate) fn command_runs(&mut self, index: usize) {
        let process = &mut self.processes[index];
        if let Next::Go(next) = process.state.on(table::Event::CommandRuns) {
            process.state = next;
            process.started_ns = process::realtime_ns();
            self.run_hooks(index, HookPoint::PostStart, 0, None);
        }
    }

    /// The command runs, and its hooks are done: whoever asked for it is told.
    pub(crate) fn report_running(&mut self, index: usize) {
        let process = &mut self.processes[index];
        if process.brief.is_some() {
            return;
        }
        let Some(starter) = process.starter.take() else { return };
        let fds = if process.stdio.hand_over {
            process.streams.hand_over(process.stdio.terminal)
        } else {
            Ok(Vec::new())
        };
        let (pid, at_ns) = (process.pid, process.started_ns);
        match fds {
            Ok(fds) => self.reply(starter, Reply::Running { pid, at_ns }, fds),
            Err(errno) => {
                // Out of descriptors: nobody could ever read what it says.
                process.kill_all();
                self.refuse(starter, Refusal::System { errno: errno.raw_os_error() });
            }
        }
    }

    /// Takes all children that have ended. Orphans that we were given are
    /// among them; nobody asks about those, unless an OCI runtime is about to
    /// name one.
    pub(crate) fn reap(&mut self) {
        while let Ok(Some((pid, end))) = process::reap_any() {
            let by_pid = |process: &Process| process.pid == pid && process.pidfd().is_some();
            let found = self.processes.iter().find(|process| by_pid(process));
            match found.map(|process| process.serial) {
                Some(serial) => {
                    self.hear(serial);
                    self.first_process_ended(serial, end);
                }
                None if self.hook_ended(pid, end) => {}
                None => self.keep_stray(pid, end),
            }
        }
    }

    pub(crate) fn process_ended(&mut self, serial: Serial, end: End) {
        let Some(index) = self.position(serial) else { return };
        if self.processes[index].child.is_some() {
            // A descendant of the child still holds its socket.
            self.fell_silent(index);
        }
        let process = &mut self.processes[index];
        process.pidfd = None;
        if process.target.exec.is_none() {
            // In a PID namespace of the pod or the host, what it started would
            // live on. Where groups cannot be killed at once, the daemon does.
            process.cgroup.kill_all();
        }
        let Next::Go(next) = process.state.on(table::Event::ProcessEnded) else { return };
        process.state = next;
        if let Some(hook) = process.hook.as_ref().filter(|hook| hook.point != HookPoint::PostStop) {
            // What it was to prepare is gone; its end is seen by the reaper.
            let _ = process::pidfd_send_signal(hook.child.pidfd(), crate::process::SIGKILL);
        }
        self.look_for_oom(serial);
        let process = &mut self.processes[index];
        process.exit = Some(Exit {
            code: end.code(),
            oom_killed: process.cgroup.oom_killed,
            timed_out: process.timed_out,
            at_ns: process::realtime_ns(),
        });
        let deadline = process::monotonic() + OUTPUT_TIMEOUT;
        process.ending = Some(Ending { drained: [false; 2], marked: false, deadline });
        self.drain_ending(serial);
    }

    /// The last output is written (or will not be in time): the end is
    /// recorded and told.
    pub(crate) fn output_written(&mut self, serial: Serial) {
        let Some(index) = self.position(serial) else { return };
        let process = &mut self.processes[index];
        let Next::Go(next) = process.state.on(table::Event::OutputWritten) else { return };
        process.state = next;
        process.ending = None;
        if process.brief.take().is_some() && process.failure.is_none() {
            match process.streams.what_was_said(OUTPUT_BYTES_MAX) {
                Some(output) => return self.report_ended(index, output),
                None => self.report_running(index),
            }
        }
        let process = &mut self.processes[index];
        process.cgroup = Cgroup::default();
        for output in &mut process.streams.outputs {
            output.take_if(|output| !output.logged);
        }
        let exit = process.exit.unwrap_or(Exit {
            code: 0,
            oom_killed: false,
            timed_out: false,
            at_ns: process::realtime_ns(),
        });
        self.close_stdin(index);
        self.end_attachments(serial);
        let process = &mut self.processes[index];
        let (target, failure) = (process.target.clone(), process.failure);
        let starter = process.starter.take();
        let record =
            ExitRecord { target: target.clone(), started_ns: process.started_ns, exit, failure };
        self.write_down(&record);
        self.close_log_if_done(index);
        let is_exec = target.exec.is_some();
        match failure {
            Some(failure) => {
                if let Some(starter) = starter {
                    self.refuse(starter, Refusal::Launch(failure));
                }
                if is_exec {
                    // Nobody was told that it ever was.
                    self.processes.remove(index);
                } else {
                    self.tell(Event::Failed { target, failure });
                }
            }
            None => {
                if let Some(starter) = starter {
                    self.refuse(starter, Refusal::WrongPhase(State::Ended.phase()));
                }
                self.tell(Event::Exited { target, exit });
            }
        }
    }

    /// An exec of Run has ended before anybody was told that it runs. Nobody
    /// asks for it again, so that nothing of it is kept or written down.
    fn report_ended(&mut self, index: usize, output: [Vec<u8>; 2]) {
        let process = self.processes.remove(index);
        if let (Some(starter), Some(exit)) = (process.starter, process.exit) {
            self.reply(starter, Reply::Ended { exit, output }, Vec::new());
        }
    }

    /// An exec of Run takes its time. While there is no more output than an
    /// answer holds, which a pipe holds as well, it is left alone for a while
    /// yet: a busy machine needs that. Then it is an exec like others.
    fn take_long(&mut self, serial: Serial, now: Duration) {
        let Some(index) = self.position(serial) else { return };
        let process = &mut self.processes[index];
        let Some(brief) = process.brief.take() else { return };
        let waiting = process.streams.waiting();
        let pause = brief.pause * 2;
        if pause <= BRIEF_MAX
            && waiting.is_some_and(|waiting| waiting.iter().sum::<usize>() <= OUTPUT_BYTES_MAX)
        {
            return process.brief = Some(Brief { until: now + pause, pause });
        }
        let Some(child) = &self.processes[index].child else { return };
        if self.watch_child(serial, child).is_err() {
            // Nobody would learn that it runs.
            self.processes[index].kill_all();
        }
    }

    /// The file lies on tmpfs. If it is full, there is still the daemon; but a
    /// record cut off must not hide those that follow.
    fn write_down(&mut self, record: &ExitRecord) {
        let exits = &mut self.given.exits;
        if exits.write_all(&record.encode()).is_err()
            && let Ok(metadata) = exits.metadata()
        {
            let whole = metadata.len() - metadata.len() % EXIT_RECORD_BYTES as u64;
            let _ = exits.set_len(whole);
        }
    }

    /// The log of a container is closed when the container and its streams
    /// have ended.
    pub(crate) fn close_log_if_done(&mut self, index: usize) {
        let process = &mut self.processes[index];
        if process.state == State::Ended && process.stdio.log && !process.streams.is_logging() {
            self.given.queue.push(Task::Close { log: process.serial });
        }
    }

    /// The kernel may have killed something for want of memory.
    pub(crate) fn look_for_oom(&mut self, serial: Serial) {
        let Some(index) = self.position(serial) else { return };
        if self.processes[index].cgroup.look_for_oom() {
            let container = self.processes[index].target.container.clone();
            self.tell(Event::OutOfMemory { container });
        }
    }

    /// Kills what has run out of time, and stops waiting for hung log disks.
    pub(crate) fn act_on_deadlines(&mut self, now: Duration) {
        let (mut late, mut long) = (Vec::new(), Vec::new());
        for process in &mut self.processes {
            let passed =
                |deadline: Option<Duration>| deadline.is_some_and(|deadline| deadline <= now);
            if passed(process.deadline) && !process.timed_out && process.state.is_alive() {
                process.timed_out = true;
                process.kill_all();
            }
            if passed(process.brief.map(|brief| brief.until)) {
                long.push(process.serial);
            }
            if let Some(delegation) = &mut process.delegation
                && passed(delegation.deadline)
            {
                delegation.deadline = None;
                process.kill_all();
            }
            if let Some(hook) = &mut process.hook
                && passed(hook.deadline)
            {
                hook.deadline = None;
                let _ = process::pidfd_send_signal(hook.child.pidfd(), crate::process::SIGKILL);
            }
            if passed(process.ending.as_ref().map(|ending| ending.deadline)) {
                late.push(process.serial);
            }
        }
        for serial in long {
            self.take_long(serial, now);
        }
        for serial in late {
            self.output_written(serial);
        }
        self.lose_late_attachments(now);
    }

    /// A launch that did not even begin.
    pub(crate) fn never_launched(&mut self, serial: Serial, errno: i32) {
        let Some(index) = self.position(serial) else { return };
        let process = &mut self.processes[index];
        process.failure.get_or_insert(LaunchFailure { step: LaunchFailure::CLONE, errno });
        self.process_ended(serial, End::Killed(crate::process::SIGKILL));
    }
}
