//! Runtime hooks: programs of the host that the shim runs at three points of
//! a container's life, without waiting for them.

use std::os::fd::AsFd;
use std::time::Duration;

use corten_kernel::launch::{FdIndex, Join, Launch, Memory, Message, NamespaceKind, Step, spawn};
use corten_kernel::memfd;
use corten_kernel::process::{self, End};
use corten_protocol::frame::{Event, LaunchFailure, Reply};
use corten_protocol::plan::{Hook, HookPoint, PlanView};

use crate::daemon::Asker;
use crate::process::{HookSource, RunningHook};
use crate::shim::Shim;

/// Exit status of a hook that could not even be run, as shells say it.
const CANNOT_RUN: i32 = 126;

impl Shim {
    /// Runs the hooks of a point one after the other, from the one with this
    /// index on; then goes on with what waits for them.
    pub(crate) fn run_hooks(
        &mut self,
        index: usize,
        point: HookPoint,
        first: usize,
        deleter: Option<Asker>,
    ) {
        let process = &mut self.processes[index];
        let Some(source) = &process.hooks else { return self.hooks_done(index, point, deleter) };
        let Ok(plan) = PlanView::parse(&source.plan) else {
            return self.hooks_done(index, point, deleter);
        };
        let Some(hook) = plan.hooks().filter(|hook| hook.point == point).nth(first) else {
            return self.hooks_done(index, point, deleter);
        };
        let timeout = (hook.timeout_ms > 0).then(|| Duration::from_millis(hook.timeout_ms.into()));
        match start_hook(source, &hook, process.pid) {
            Ok(child) => {
                let deadline = timeout.map(|timeout| process::monotonic() + timeout);
                process.hook = Some(RunningHook { child, point, index: first, deadline, deleter });
            }
            Err(_) => self.hook_finished(index, point, first, deleter, CANNOT_RUN),
        }
    }

    /// A child that is no container's process has ended: whether it was a hook.
    pub(crate) fn hook_ended(&mut self, pid: i32, end: End) -> bool {
        let is_it = |hook: &RunningHook| hook.child.pid() == pid;
        let Some(index) =
            self.processes.iter().position(|process| process.hook.as_ref().is_some_and(is_it))
        else {
            return false;
        };
        let Some(hook) = self.processes[index].hook.take() else { return false };
        let mut status = end.code();
        while let Ok(Some(message)) = hook.child.read_message() {
            match message {
                Message::Failed { .. } => status = CANNOT_RUN,
                Message::Closed => break,
                Message::Created
                | Message::HookPoint { .. }
                | Message::Warning { .. }
                | Message::ConsoleMaster(_) => {}
            }
        }
        self.hook_finished(index, hook.point, hook.index, hook.deleter, status);
        true
    }

    fn hook_finished(
        &mut self,
        index: usize,
        point: HookPoint,
        which: usize,
        deleter: Option<Asker>,
        status: i32,
    ) {
        if status != 0 {
            let process = &mut self.processes[index];
            let failure = LaunchFailure { step: LaunchFailure::HOOK, errno: status };
            match point {
                HookPoint::CreateRuntime => {
                    process.failure.get_or_insert(failure);
                    return process.kill_all();
                }
                HookPoint::Start => return self.start_refused(index, status),
                // The OCI specification: a warning, and the life goes on.
                HookPoint::PostStart | HookPoint::PostStop => {
                    let target = process.target.clone();
                    self.tell(Event::Warning { target, step: LaunchFailure::HOOK, errno: status });
                }
            }
        }
        self.run_hooks(index, point, which + 1, deleter);
    }

    fn hooks_done(&mut self, index: usize, point: HookPoint, deleter: Option<Asker>) {
        match point {
            HookPoint::CreateRuntime => self.release(index),
            HookPoint::Start => self.started_by_runtime(index),
            HookPoint::PostStart => self.report_running(index),
            HookPoint::PostStop => {
                self.processes.remove(index);
                if let Some(deleter) = deleter {
                    self.reply(deleter, Reply::Done, Vec::new());
                }
            }
        }
    }
}

fn start_hook(
    source: &HookSource,
    hook: &Hook<'_>,
    pid: i32,
) -> Result<corten_kernel::launch::Child, corten_kernel::Errno> {
    let mut state = hook.state_before_pid.to_vec();
    state.extend_from_slice(pid.to_string().as_bytes());
    state.extend_from_slice(hook.state_after_pid);
    let state = memfd::sealed("state", &state).map_err(|error| error.errno)?;
    let join = Step::JoinNamespace { fd: FdIndex(0), kind: NamespaceKind::Mount };
    let run = Step::Exec { candidates: first_of(hook), args: hook.args, env: hook.env };
    let steps = [join, run];
    let mounts = source.mounts.as_ref().map(AsFd::as_fd);
    let fds: Vec<_> = mounts.into_iter().collect();
    // Without a mount namespace of its own it runs in the shim's.
    let steps = if fds.is_empty() { &steps[1..] } else { &steps[..] };
    let error = std::io::stderr();
    spawn(&Launch {
        steps: steps.iter().copied(),
        new_namespaces: &[],
        join: Join::Parents,
        fds: &fds,
        stdio: [state.as_fd(), error.as_fd(), error.as_fd()],
        inherit: &[],
        memory: Memory::Copied,
        cgroup: None,
        tasks: &[],
    })
}

/// The program of a hook is its first argument.
fn first_of<'a>(hook: &Hook<'a>) -> corten_kernel::launch::CStrList<'a> {
    let bytes = hook.args.bytes;
    let end = bytes.iter().position(|byte| *byte == 0).map_or(bytes.len(), |end| end + 1);
    corten_kernel::launch::CStrList { count: hook.args.count.min(1), bytes: &bytes[..end] }
}
