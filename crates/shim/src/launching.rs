//! From a plan to a child.

use std::fs::File;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use corten_base::limits::PLAN_BYTES_MAX;
use corten_kernel::event::Interest;
use corten_kernel::launch::{Child, FdIndex, Join, Launch, Memory, NamespaceKind, Step, spawn};
use corten_kernel::memfd::Mapped;
use corten_kernel::stream::{pipe, set_nonblocking};
use corten_protocol::frame::{CgroupFds, Refusal};
use corten_protocol::plan::{JoinTarget, PlanView, namespace_bit};

use crate::delegate::Delegation;
use crate::log::{Stream, Task};
use crate::process::{Cgroup, HookSource, Process, Serial, borrow};
use crate::shim::{Shim, Source};
use crate::table::State;

const KINDS: [NamespaceKind; 8] = [
    NamespaceKind::Mount,
    NamespaceKind::Net,
    NamespaceKind::Ipc,
    NamespaceKind::Uts,
    NamespaceKind::Pid,
    NamespaceKind::User,
    NamespaceKind::Cgroup,
    NamespaceKind::Time,
];

/// A plan, as it came.
pub enum Plan {
    /// As a descriptor.
    Mapped(Mapped),
    /// In the frame.
    Bytes(Vec<u8>),
}

impl Deref for Plan {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(plan) => plan,
            Self::Bytes(plan) => plan,
        }
    }
}

/// What comes with Create, Exec and Run, sorted.
pub struct Handed {
    /// The plan.
    pub plan: Plan,
    /// The log.
    pub log: Option<File>,
    /// The cgroup.
    pub cgroup: Cgroup,
    /// What the steps refer to.
    pub fds: Vec<OwnedFd>,
}

impl Handed {
    /// Sorts the descriptors; refuses if they are not what was announced, or
    /// if the plan is none. The first is the plan, unless that came in the frame.
    pub fn take(
        plan: Option<Vec<u8>>,
        fds: Vec<OwnedFd>,
        log: bool,
        counted: CgroupFds,
    ) -> Result<Self, Refusal> {
        let mut fds = fds.into_iter();
        let plan = match plan {
            Some(plan) => Plan::Bytes(plan),
            None => {
                let plan = fds.next().ok_or(Refusal::Malformed)?;
                let plan = Mapped::new(plan.as_fd(), PLAN_BYTES_MAX);
                Plan::Mapped(plan.map_err(|_| Refusal::Malformed)?)
            }
        };
        let log = if log { Some(File::from(fds.next().ok_or(Refusal::Malformed)?)) } else { None };
        let cgroup = Cgroup::take(counted, &mut fds).ok_or(Refusal::Malformed)?;
        let fds: Vec<OwnedFd> = fds.collect();
        let view = PlanView::parse(&plan).map_err(|_| Refusal::Malformed)?;
        if fds.len() != usize::from(view.header().fd_count) {
            return Err(Refusal::Malformed);
        }
        Ok(Self { plan, log, cgroup, fds })
    }

    /// The plan, which was found to be sound before.
    pub fn view(&self) -> Result<PlanView<'_>, Refusal> {
        PlanView::parse(&self.plan).map_err(|_| Refusal::Malformed)
    }
}

/// The child's ends of its streams; none is /dev/null.
#[derive(Default)]
struct Ends {
    streams: [Option<OwnedFd>; 3],
}

impl Shim {
    /// Whether what a plan wants to join is there.
    pub(crate) fn check_join(&self, handed: &Handed) -> Result<(), Refusal> {
        match handed.view()?.header().join {
            JoinTarget::Own | JoinTarget::Container => Ok(()),
            JoinTarget::PidOf(id) => match self.init_of(id) {
                Some(process) if process.state == State::Running => Ok(()),
                Some(process) => Err(Refusal::WrongPhase(process.state.phase())),
                None => Err(Refusal::Unknown),
            },
        }
    }

    pub(crate) fn init_of(&self, container: &str) -> Option<&Process> {
        let is_it = |process: &&Process| {
            process.target.exec.is_none() && process.target.container.as_str() == container
        };
        self.processes.iter().find(is_it)
    }

    /// Launches a process that was just added. What goes wrong from here on is
    /// a failed launch, not a refused request.
    pub(crate) fn launch(&mut self, serial: Serial, handed: Handed) {
        if let Err(error) = self.try_launch(serial, handed) {
            self.never_launched(serial, error);
        }
    }

    fn try_launch(&mut self, serial: Serial, handed: Handed) -> Result<(), i32> {
        const EINVAL: i32 = 22;
        let Some(index) = self.position(serial) else { return Ok(()) };
        let ends = self.make_streams(serial, index)?;
        let Handed { plan, log, cgroup, fds } = handed;
        if let Some(file) = log {
            self.given.queue.push(Task::Open { log: serial, file });
        }
        let view = PlanView::parse(&plan).map_err(|_| EINVAL)?;
        let header = view.header();
        let kinds: Vec<NamespaceKind> = KINDS
            .into_iter()
            .filter(|kind| header.new_namespaces & namespace_bit(*kind) != 0)
            .collect();
        let null = self.given.null.as_fd();
        let end = |number: usize| ends.streams[number].as_ref().map_or(null, AsFd::as_fd);
        let join = self.join(serial, &view)?;
        let inherit = header.delegate.and_then(|delegate| delegate.inherit);
        let inherit = inherit.and_then(|fd| fds.get(usize::from(fd.0)));
        let inherit: Vec<_> = inherit.iter().map(|fd| fd.as_fd()).collect();
        let child = spawn(&Launch {
            steps: view.steps(),
            new_namespaces: &kinds,
            join,
            fds: &borrow(&fds),
            stdio: [end(0), end(1), end(2)],
            inherit: inherit.as_slice(),
            memory: Memory::Copied,
            cgroup: cgroup.into.as_ref().map(AsFd::as_fd),
            tasks: &borrow(&cgroup.tasks),
        })
        .map_err(|errno| errno.raw_os_error())?;
        let watched = match self.processes[index].brief {
            Some(_) => Ok(()),
            None => self.watch_child(serial, &child),
        };
        if let Some(oom) = &cgroup.oom {
            // v1's file announces nothing: it is looked at in the end.
            let _ = self.poll.add(oom, Source::OutOfMemory(serial).token(), Interest::URGENT);
        }
        let awaits_start = view.steps().any(|step| matches!(step, Step::AwaitStart));
        let has_hooks = view.hooks().next().is_some();
        let mut fds: Vec<_> = fds.into_iter().map(Some).collect();
        let mut take = |fd: FdIndex| fds.get_mut(usize::from(fd.0)).and_then(Option::take);
        let mounts = header.hook_mounts.and_then(&mut take);
        let mut delegation =
            header.delegate.map(|delegate| Delegation::new(&delegate, take)).transpose()?;
        if let Some(delegation) = delegation.as_mut().filter(|_| !awaits_start) {
            delegation.begin();
        }
        let process = &mut self.processes[index];
        process.pid = child.pid();
        process.child = Some(child);
        process.awaits_start = awaits_start;
        // What was needed for the launch alone is closed here.
        process.cgroup = Cgroup { into: None, tasks: Vec::new(), ..cgroup };
        process.delegated = delegation.is_some();
        process.delegation = delegation;
        if has_hooks {
            process.hooks = Some(HookSource { plan, mounts });
        }
        if let Err(error) = watched {
            process.kill_all();
            return Err(error.errno.raw_os_error());
        }
        Ok(())
    }

    pub(crate) fn watch_child(&self, serial: Serial, child: &Child) -> corten_kernel::Result<()> {
        self.poll.add(child.sync(), Source::Child(serial).token(), Interest::READ)
    }

    fn join(&self, serial: Serial, view: &PlanView<'_>) -> Result<Join<'_>, i32> {
        const ESRCH: i32 = 3;
        const EINVAL: i32 = 22;
        let header = view.header();
        let user =
            if header.user_namespace { Some(self.user_namespace().ok_or(EINVAL)?) } else { None };
        Ok(match header.join {
            JoinTarget::Own if user.is_none() => Join::Parents,
            JoinTarget::Own => Join::Before { user, pid: None },
            JoinTarget::PidOf(id) => {
                let pid = self.init_of(id).and_then(Process::pidfd).ok_or(ESRCH)?;
                Join::Before { user, pid: Some(pid) }
            }
            JoinTarget::Container => {
                let own = self.position(serial).map(|index| &self.processes[index]);
                let container = own.and_then(|own| self.init_of(own.target.container.as_str()));
                let pidfd = container.and_then(Process::pidfd).ok_or(ESRCH)?;
                Join::Process { pidfd, user: header.user_namespace }
            }
        })
    }

    fn user_namespace(&self) -> Option<BorrowedFd<'_>> {
        let (there, fds) = self.namespaces.as_ref()?;
        if there.user { fds.first().map(AsFd::as_fd) } else { None }
    }

    /// Makes the pipes that are asked for: our ends are kept, the child's are
    /// returned. A terminal is made by the child.
    fn make_streams(&mut self, serial: Serial, index: usize) -> Result<Ends, i32> {
        let mut ends = Ends::default();
        let stdio = self.processes[index].stdio;
        if stdio.terminal {
            return Ok(ends);
        }
        let make = || pipe().map_err(|error| error.errno.raw_os_error());
        if stdio.stdin {
            let (read, write) = make()?;
            if stdio.log {
                set_nonblocking(&write).map_err(|error| error.errno.raw_os_error())?;
            }
            ends.streams[0] = Some(read);
            self.processes[index].streams.stdin = Some(write);
        }
        if stdio.log || stdio.hand_over {
            for (number, stream) in [(1, Stream::Out), (2, Stream::Error)] {
                let (read, write) = make()?;
                ends.streams[number] = Some(write);
                self.add_output(serial, stream, read);
            }
        }
        Ok(ends)
    }
}
