//! What the daemon asks.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use corten_base::ContainerId;
use corten_base::limits::{POD_CONTAINERS_MAX, POD_EXECS_MAX};
use corten_kernel::launch::MountAttributes;
use corten_kernel::{Errno, mount, process, stream};
use corten_protocol::frame::{
    CgroupFds, PodNamespaces, Refusal, Reply, Request, Stdio, Target, VERSION,
};
use corten_protocol::plan::HookPoint;

use crate::daemon::Asker;
use crate::launching::Handed;
use crate::log::Task;
use crate::process::{Brief, Process, SIGKILL, errno_of};
use crate::shim::Shim;
use crate::table::{Event, Next, State};

/// Where the pod's /dev/shm lies in the shim's mount namespace.
const SHM: &str = "/shm";

/// How long a command of Run is left alone at first. Most end sooner, and are
/// spared to be looked at in between.
const BRIEF: Duration = Duration::from_millis(5);

type Answer = Result<Option<Reply>, Refusal>;

impl Shim {
    /// Takes one request of the daemon, or a frame that is none, and answers it
    /// now or later.
    pub(crate) fn take_request(
        &mut self,
        asker: Asker,
        request: Option<Request>,
        fds: Vec<OwnedFd>,
    ) {
        let outcome = match request {
            Some(request) => self.perform(asker, request, fds),
            None => Err(Refusal::Malformed),
        };
        match outcome {
            Ok(Some(reply)) => self.reply(asker, reply, Vec::new()),
            Ok(None) => {}
            Err(refusal) => self.refuse(asker, refusal),
        }
    }

    /// Done at once with this reply, or none when the reply comes later.
    fn perform(&mut self, asker: Asker, request: Request, fds: Vec<OwnedFd>) -> Answer {
        match request {
            Request::Hello { version } => Ok(Some(Reply::Hello { version: version.min(VERSION) })),
            Request::Sandbox { namespaces, shm_bytes, shm_uid, shm_gid, shm_label } => {
                self.set_up_pod(namespaces, fds, shm_bytes, [shm_uid, shm_gid], &shm_label)
            }
            Request::Namespaces => self.give_namespaces(asker),
            Request::Create { container, stdio, cgroup } => {
                self.create(asker, container, stdio, cgroup, fds)
            }
            Request::Start { container } => self.start(asker, &container),
            Request::Exec { container, exec, stdio, timeout_ms, cgroup } => {
                let timeout = (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms));
                let target = Target { container, exec: Some(exec) };
                let handed = Handed::take(None, fds, false, cgroup)?;
                self.exec(asker, Exec { target, stdio, timeout, brief: None }, handed)
            }
            Request::Run { container, exec, timeout_ms, cgroup, plan } => {
                let timeout = (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms));
                let target = Target { container, exec: Some(exec) };
                let stdio = Stdio { hand_over: true, ..Stdio::default() };
                let plan = (!plan.is_empty()).then_some(plan);
                let handed = Handed::take(plan, fds, false, cgroup)?;
                let brief = Some(BRIEF);
                self.exec(asker, Exec { target, stdio, timeout, brief }, handed)
            }
            Request::Kill { target, signal, all } => self.kill(&target, signal, all),
            Request::Resize { target, rows, columns } => self.resize(&target, rows, columns),
            Request::CloseStdin { target } => {
                let index = self.find(&target)?;
                self.close_stdin(index);
                Ok(Some(Reply::Done))
            }
            Request::HangUp { target } => {
                let index = self.find(&target)?;
                self.hang_up(index);
                Ok(Some(Reply::Done))
            }
            Request::Attach { container, streams } => self.attach(asker, &container, streams),
            Request::ReopenLog { container } => self.reopen_log(&container, fds),
            Request::List => {
                for index in 0..self.processes.len() {
                    let present = self.processes[index].present();
                    self.tell(present);
                }
                Ok(Some(Reply::Listed))
            }
            Request::Delete { target } => self.delete(asker, &target),
            Request::Shutdown => {
                self.shutdown = Some(asker);
                self.hurry_attachments();
                for process in &self.processes {
                    process.kill_all();
                }
                Ok(None)
            }
        }
    }

    fn set_up_pod(
        &mut self,
        namespaces: PodNamespaces,
        fds: Vec<OwnedFd>,
        shm_bytes: u64,
        owner: [u32; 2],
        label: &str,
    ) -> Answer {
        if self.namespaces.is_some() {
            return Err(Refusal::Exists);
        }
        if fds.len() != namespaces.count() {
            return Err(Refusal::Malformed);
        }
        if shm_bytes > 0 {
            mount_shm(shm_bytes, owner, label)
                .map_err(|error| Refusal::System { errno: error.errno.raw_os_error() })?;
        }
        self.namespaces = Some((namespaces, fds));
        Ok(Some(Reply::Done))
    }

    fn give_namespaces(&mut self, asker: Asker) -> Answer {
        let Some((there, fds)) = &self.namespaces else {
            return Ok(Some(Reply::Namespaces(PodNamespaces::default())));
        };
        let there = *there;
        let copies: Result<Vec<OwnedFd>, _> = fds.iter().map(OwnedFd::try_clone).collect();
        let copies = copies.map_err(|error| system(&error))?;
        self.reply(asker, Reply::Namespaces(there), copies);
        Ok(None)
    }

    fn create(
        &mut self,
        asker: Asker,
        container: ContainerId,
        stdio: Stdio,
        cgroup: CgroupFds,
        fds: Vec<OwnedFd>,
    ) -> Answer {
        let target = Target { container, exec: None };
        self.check_new(&target, POD_CONTAINERS_MAX)?;
        let handed = Handed::take(None, fds, stdio.log, cgroup)?;
        self.check_join(&handed)?;
        let serial = self.next_serial();
        let process = Process::new(serial, target, State::Creating, stdio);
        self.processes.push(process);
        self.reply(asker, Reply::Done, Vec::new());
        self.launch(serial, handed);
        Ok(None)
    }

    fn start(&mut self, asker: Asker, container: &ContainerId) -> Answer {
        let index = self.find_init(container)?;
        let process = &mut self.processes[index];
        match process.state.on(Event::StartAsked) {
            Next::Go(next) => {
                process.state = next;
                process.starter = Some(asker);
                if next == State::Starting {
                    self.release(index);
                }
                Ok(None)
            }
            Next::Stay | Next::Refuse => Err(match process.failure {
                Some(failure) => Refusal::Launch(failure),
                None => Refusal::WrongPhase(process.state.phase()),
            }),
        }
    }

    fn exec(&mut self, asker: Asker, exec: Exec, handed: Handed) -> Answer {
        let Exec { target, stdio, timeout, brief } = exec;
        let index = self.find_init(&target.container)?;
        let container = &self.processes[index];
        if container.state.on(Event::ExecAsked) == Next::Refuse {
            return Err(Refusal::WrongPhase(container.state.phase()));
        }
        self.check_new(&target, POD_EXECS_MAX)?;
        // A log belongs to a container; its execs have no part in it.
        if stdio.log {
            return Err(Refusal::Malformed);
        }
        self.check_join(&handed)?;
        let serial = self.next_serial();
        let mut process = Process::new(serial, target, State::Starting, stdio);
        process.starter = Some(asker);
        let now = process::monotonic();
        process.deadline = timeout.map(|timeout| now + timeout);
        process.brief = brief.map(|pause| Brief { until: now + pause, pause });
        self.processes.push(process);
        self.launch(serial, handed);
        Ok(None)
    }

    /// Not there yet, and not too many: those that have ended and were not
    /// deleted count like others, so that nothing grows without bound.
    fn check_new(&self, target: &Target, max: usize) -> Result<(), Refusal> {
        const ESHUTDOWN: i32 = 108;
        if self.shutdown.is_some() {
            return Err(Refusal::System { errno: ESHUTDOWN });
        }
        if self.find(target).is_ok() {
            return Err(Refusal::Exists);
        }
        let same_kind = |process: &&Process| process.target.exec.is_some() == target.exec.is_some();
        if self.processes.iter().filter(same_kind).count() >= max {
            return Err(Refusal::Full);
        }
        Ok(())
    }

    fn kill(&mut self, target: &Target, signal: i32, all: bool) -> Answer {
        let process = &self.processes[self.find(target)?];
        if process.state.on(Event::KillAsked) == Next::Refuse {
            return Err(Refusal::WrongPhase(process.state.phase()));
        }
        if all && signal == SIGKILL {
            process.kill_all();
            return Ok(Some(Reply::Done));
        }
        match process.signal(signal) {
            Ok(()) => Ok(Some(Reply::Done)),
            // It has ended, and will be reaped in a moment.
            Err(Errno::SRCH) => Err(Refusal::WrongPhase(State::Ended.phase())),
            Err(errno) => Err(Refusal::System { errno: errno.raw_os_error() }),
        }
    }

    fn resize(&mut self, target: &Target, rows: u16, columns: u16) -> Answer {
        const ENOTTY: i32 = 25;
        let index = self.find(target)?;
        let process = &mut self.processes[index];
        if !process.stdio.terminal {
            return Err(Refusal::System { errno: ENOTTY });
        }
        let Some(master) = &process.streams.outputs[0] else {
            process.streams.size = Some([rows, columns]);
            return Ok(Some(Reply::Done));
        };
        stream::resize_terminal(&master.fd, rows, columns)
            .map_err(|errno| Refusal::System { errno: errno.raw_os_error() })?;
        Ok(Some(Reply::Done))
    }

    fn hang_up(&mut self, index: usize) {
        self.close_stdin(index);
        for output in &mut self.processes[index].streams.outputs {
            output.take_if(|output| !output.logged);
        }
    }

    fn reopen_log(&mut self, container: &ContainerId, fds: Vec<OwnedFd>) -> Answer {
        let process = &self.processes[self.find_init(container)?];
        let file = fds.into_iter().next().map(File::from).ok_or(Refusal::Malformed)?;
        if !process.stdio.log {
            return Err(Refusal::Malformed);
        }
        if process.state == State::Ended && !process.streams.is_logging() {
            return Err(Refusal::WrongPhase(process.state.phase()));
        }
        self.given.queue.push(Task::Open { log: process.serial, file });
        Ok(Some(Reply::Done))
    }

    fn delete(&mut self, asker: Asker, target: &Target) -> Answer {
        let index = self.find(target)?;
        let process = &mut self.processes[index];
        if process.state.on(Event::DeleteAsked) == Next::Refuse || process.hook.is_some() {
            return Err(Refusal::WrongPhase(process.state.phase()));
        }
        if process.streams.is_logging() {
            // Somebody else still holds its pipes; nobody reads them any more.
            process.streams.outputs = [None, None];
            self.close_log_if_done(index);
        }
        self.run_hooks(index, HookPoint::PostStop, 0, Some(asker));
        Ok(None)
    }

    fn find(&self, target: &Target) -> Result<usize, Refusal> {
        let found = self.processes.iter().position(|process| process.target == *target);
        found.ok_or(Refusal::Unknown)
    }

    pub(crate) fn find_init(&self, container: &ContainerId) -> Result<usize, Refusal> {
        self.find(&Target { container: container.clone(), exec: None })
    }
}

/// What an exec asks for.
struct Exec {
    target: Target,
    stdio: Stdio,
    timeout: Option<Duration>,
    /// For how long it is not looked at.
    brief: Option<Duration>,
}

/// The pod's /dev/shm: a tmpfs that only the shim and the containers see.
fn mount_shm(bytes: u64, [uid, gid]: [u32; 2], label: &str) -> corten_kernel::Result<()> {
    let [size, uid, gid] = [bytes.to_string(), uid.to_string(), gid.to_string()];
    let options =
        [("source", "shm"), ("mode", "1777"), ("size", &size), ("uid", &uid), ("gid", &gid)];
    let options = options.into_iter().chain((!label.is_empty()).then_some(("context", label)));
    let options: Vec<(&str, &str)> = options.collect();
    let set = mount::MOUNT_ATTR_NOSUID | mount::MOUNT_ATTR_NODEV | mount::MOUNT_ATTR_NOEXEC;
    let attributes = MountAttributes { set, ..MountAttributes::default() };
    let shm = mount::new_filesystem("tmpfs", &options, attributes)?;
    mount::attach(shm.as_fd(), Path::new(SHM))
}

fn system(error: &std::io::Error) -> Refusal {
    Refusal::System { errno: errno_of(error).raw_os_error() }
}
