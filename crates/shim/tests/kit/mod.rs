//! A real shim with a directory of busybox as image, driven by frames.
#![allow(dead_code)]

use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use corten_base::limits::{FRAME_BYTES_MAX, FRAME_FDS_MAX};
use corten_base::{ContainerId, ExecId, SandboxId};
use corten_kernel::launch::*;
use corten_kernel::{Errno, fdpass, memfd, mount, process};
use corten_protocol::frame::*;
use corten_protocol::plan::{CStrings, Header, JoinTarget, PlanBuilder, namespace_bit};

/// Only a test that fails waits so long: a busy machine is ten times slower.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Pod {
    pub dir: tempfile::TempDir,
    pub client: Client,
    pub shim: Child,
    next_exec: u64,
    next_container: u8,
    reaped: bool,
}

pub struct Client {
    socket: OwnedFd,
    next: u32,
    pub events: VecDeque<Event>,
    /// Replies that came before somebody waited for them.
    replies: HashMap<u32, (Reply, Vec<OwnedFd>)>,
}

pub fn list<T: AsRef<[u8]>>(texts: impl IntoIterator<Item = T>) -> CStrings {
    CStrings::new(texts).unwrap()
}

fn leak(text: &str) -> &'static CStr {
    Box::leak(CString::new(text).unwrap().into_boxed_c_str())
}

fn leak_list(texts: &[&str]) -> CStrList<'static> {
    Box::leak(Box::new(list(texts))).as_list()
}

/// A root for the shim (with the host's libraries, for a dynamic build), and
/// an image for containers.
fn make_roots(dir: &Path) {
    let shim = dir.join("shim");
    for name in ["shm", "usr", "proc", "sys", "dev"] {
        std::fs::create_dir_all(shim.join(name)).unwrap();
    }
    for name in ["lib", "lib64"] {
        symlink(format!("usr/{name}"), shim.join(name)).unwrap();
    }
    let image = dir.join("image");
    for name in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
        std::fs::create_dir_all(image.join(name)).unwrap();
    }
    std::fs::copy("/bin/busybox", image.join("bin/busybox")).unwrap();
    for name in [
        "sh", "cat", "ls", "true", "sleep", "setsid", "seq", "tty", "stty", "yes", "head", "kill",
        "echo", "df", "touch",
    ] {
        symlink("busybox", image.join("bin").join(name)).unwrap();
    }
}

impl Pod {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        make_roots(dir.path());
        let listener = fdpass::listen(&dir.path().join("shim.sock")).unwrap();
        let exits =
            File::options().create(true).append(true).open(dir.path().join("exits")).unwrap();
        let program =
            std::env::var("CORTEN_SHIM").unwrap_or(env!("CARGO_BIN_EXE_corten-shim").into());
        let fds = [
            mount::open_tree(&dir.path().join("shim"), false).unwrap(),
            mount::open_tree(Path::new("/usr"), false).unwrap(),
            mount::open_tree(Path::new("/proc"), false).unwrap(),
            mount::open_tree(Path::new("/sys"), false).unwrap(),
            mount::open_tree(Path::new(&program), false).unwrap(),
        ];
        let place = |fd, target, kind| Step::MountFd {
            fd: FdIndex(fd),
            target,
            kind,
            attributes: MountAttributes::default(),
            propagation: None,
        };
        let sandbox = SandboxId::from_random([7; 32]);
        let steps = [
            Step::NewNamespace { kind: NamespaceKind::Mount },
            Step::RootPropagation { propagation: Propagation::Private },
            Step::Root { fd: FdIndex(0) },
            place(1, c"/usr", TargetKind::Directory),
            place(2, c"/proc", TargetKind::Directory),
            place(3, c"/sys", TargetKind::Directory),
            place(4, c"/corten-shim", TargetKind::File),
            Step::SwitchRoot,
            Step::NewSession,
            Step::Exec {
                candidates: leak_list(&["/corten-shim"]),
                args: leak_list(&["corten-shim", sandbox.as_str()]),
                env: CStrList { count: 0, bytes: b"" },
            },
        ];
        let null = File::options().read(true).write(true).open("/dev/null").unwrap();
        let error = std::io::stderr();
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let shim = spawn(&Launch {
            steps: steps.iter().copied(),
            new_namespaces: &[],
            join: Join::Parents,
            fds: &fds,
            stdio: [null.as_fd(), null.as_fd(), error.as_fd()],
            inherit: &[listener.as_fd(), exits.as_fd()],
            memory: Memory::Copied,
            cgroup: None,
            tasks: &[],
        })
        .unwrap();
        assert!(matches!(shim.wait_message().unwrap(), Message::Closed));
        let client = Client::connect(&dir.path().join("shim.sock"));
        let mut pod = Self { dir, client, shim, next_exec: 1, next_container: 1, reaped: false };
        let namespaces = PodNamespaces::default();
        let sandbox = Request::Sandbox {
            namespaces,
            shm_bytes: 1 << 20,
            shm_uid: 0,
            shm_gid: 0,
            shm_label: String::new(),
        };
        assert_eq!(pod.client.call(&sandbox, &[]).0, Reply::Done);
        pod
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn reconnect(&mut self) {
        self.client = Client::connect(&self.path("shim.sock"));
    }

    /// A container that runs `sh -c script`, created and started.
    pub fn run(&mut self, script: &str, options: Options) -> ContainerId {
        let id = self.create(script, options);
        let (reply, _) = self.client.call(&Request::Start { container: id.clone() }, &[]);
        assert!(matches!(reply, Reply::Running { .. }), "{reply:?}");
        id
    }

    pub fn create(&mut self, script: &str, options: Options) -> ContainerId {
        let (id, reply) = self.try_create(script, options);
        assert_eq!(reply, Reply::Done);
        id
    }

    pub fn try_create(&mut self, script: &str, options: Options) -> (ContainerId, Reply) {
        let id = ContainerId::from_random([self.next_container; 32]);
        self.next_container += 1;
        let kinds = [NamespaceKind::Mount, NamespaceKind::Pid, NamespaceKind::Ipc];
        let kinds = if options.host_pid { vec![NamespaceKind::Mount] } else { kinds.to_vec() };
        let mut plan = PlanBuilder::new(&Header {
            new_namespaces: kinds.iter().fold(0, |bits, kind| bits | namespace_bit(*kind)),
            console: options.terminal,
            fd_count: 1 + u16::from(options.hooks),
            hook_mounts: options.hooks.then_some(FdIndex(1)),
            ..Header::default()
        });
        for step in container_steps(options.terminal) {
            plan.step(&step);
        }
        if options.hooks {
            self.add_hooks(&mut plan);
        }
        plan.step(&Step::AwaitStart);
        push_shell(&mut plan, script);
        let plan = memfd::sealed("plan", &plan.finish().unwrap()).unwrap();
        let log = options.log.unwrap_or_else(|| self.open_log("log"));
        let root = mount::open_tree(&self.path("image"), false).unwrap();
        let host = corten_kernel::ns::own(NamespaceKind::Mount).unwrap();
        let mut fds = vec![plan.as_fd(), log.as_fd(), root.as_fd()];
        if options.hooks {
            fds.push(host.as_fd());
        }
        let stdio = Stdio { log: true, terminal: options.terminal, ..options.stdio };
        let cgroup = CgroupFds::default();
        let create = Request::Create { container: id.clone(), stdio, cgroup };
        let reply = self.client.call(&create, &fds).0;
        (id, reply)
    }

    fn add_hooks(&self, plan: &mut PlanBuilder) {
        use corten_protocol::plan::{Hook, HookPoint};
        plan.step(&Step::AwaitHooks { point: 0 });
        let out = self.path("hooks");
        for (point, name) in [
            (HookPoint::CreateRuntime, "create"),
            (HookPoint::PostStart, "start"),
            (HookPoint::PostStop, "stop"),
        ] {
            let script = format!("(echo {name}; cat; echo) >> {}", out.display());
            plan.hook(&Hook {
                point,
                args: list(["/bin/sh", "-c", &script]).as_list(),
                env: list(["PATH=/usr/bin:/bin"]).as_list(),
                state_before_pid: b"{\"pid\":",
                state_after_pid: b"}",
                timeout_ms: 20_000,
            });
        }
    }

    pub fn open_log(&self, name: &str) -> File {
        File::options().create(true).append(true).open(self.path(name)).unwrap()
    }

    /// Stream, tag and content of each line of a log.
    pub fn log(&self, name: &str) -> Vec<(String, String, String)> {
        let text = std::fs::read(self.path(name)).unwrap();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(text.is_empty() || text.ends_with('\n'), "{text}");
        text.split_terminator('\n')
            .map(|line| {
                let mut parts = line.splitn(4, ' ').map(str::to_owned);
                assert_eq!(parts.next().unwrap().len(), 30, "{line}");
                (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap())
            })
            .collect()
    }

    pub fn log_text(&self, name: &str) -> Vec<String> {
        self.log(name).into_iter().map(|(_, _, content)| content).collect()
    }

    /// An exec of `sh -c script` with its streams handed over; its number, and
    /// the reply with the streams.
    pub fn exec(
        &mut self,
        container: &ContainerId,
        script: &str,
        options: ExecOptions<'_>,
    ) -> Exec {
        let exec = ExecId(self.next_exec);
        self.next_exec += 1;
        let number = self.client.send_exec(container, exec, script, options);
        let (reply, streams) = self.client.reply(number);
        let target = Target { container: container.clone(), exec: Some(exec) };
        Exec { target, reply, streams: streams.into_iter().map(File::from).collect() }
    }

    pub fn exit_of(&mut self, target: &Target) -> Exit {
        let target = target.clone();
        match self
            .client
            .event(|event| matches!(event, Event::Exited { target: who, .. } if *who == target))
        {
            Event::Exited { exit, .. } => exit,
            other => panic!("{other:?}"),
        }
    }

    pub fn delete(&mut self, target: Target) {
        assert_eq!(self.client.call(&Request::Delete { target }, &[]).0, Reply::Done);
    }

    pub fn kill(&mut self, target: Target, signal: i32) -> Reply {
        self.client.call(&Request::Kill { target, signal, all: false }, &[]).0
    }

    /// Ends the shim, and sees that it is gone.
    pub fn shut_down(mut self) {
        assert_eq!(self.client.call(&Request::Shutdown, &[]).0, Reply::Done);
        assert_eq!(process::reap(self.shim.pid()).unwrap(), process::End::Exited(0));
        self.reaped = true;
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if !self.reaped {
            // A test that failed: containers die with their init at the latest
            // when the shim's connection of the launch is gone.
            let _ = self.client.try_send(&Request::Shutdown.encode(0), &[]);
            let end = Instant::now() + Duration::from_secs(10);
            while Instant::now() < end {
                if !Path::new(&format!("/proc/{}/exe", self.shim.pid())).exists() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = process::pidfd_send_signal(self.shim.pidfd(), 9);
            let _ = process::reap(self.shim.pid());
        }
    }
}

pub struct Exec {
    pub target: Target,
    pub reply: Reply,
    pub streams: Vec<File>,
}

#[derive(Default)]
pub struct Options {
    pub terminal: bool,
    pub host_pid: bool,
    pub hooks: bool,
    pub log: Option<File>,
    pub stdio: Stdio,
}

#[derive(Default, Clone, Copy)]
pub struct ExecOptions<'a> {
    pub terminal: bool,
    pub stdin: bool,
    pub timeout_ms: u64,
    /// `into` and `kill` of a v2 group.
    pub group: Option<[BorrowedFd<'a>; 2]>,
}

pub fn init(container: &ContainerId) -> Target {
    Target { container: container.clone(), exec: None }
}

fn container_steps(terminal: bool) -> Vec<Step<'static>> {
    let new = |fstype: &str, target: &str, options: &[&str]| Step::MountNew {
        fstype: leak(fstype),
        source: leak(fstype),
        options: leak_list(options),
        target: leak(target),
        attributes: MountAttributes::default(),
        copy_up: false,
    };
    let mut steps = vec![
        Step::EnterCgroups,
        Step::NewSession,
        Step::RootPropagation { propagation: Propagation::Private },
        Step::Root { fd: FdIndex(0) },
        new("proc", "/proc", &[]),
        new("tmpfs", "/dev", &["mode=755", "size=65536k"]),
        new("devpts", "/dev/pts", &["newinstance", "ptmxmode=0666", "mode=0620"]),
        Step::Device { path: c"/dev/null", mode: 0o20666, major: 1, minor: 3, uid: 0, gid: 0 },
        Step::Symlink { target: c"pts/ptmx", path: c"/dev/ptmx" },
        Step::MountOwn {
            source: c"/shm",
            target: c"/dev/shm",
            attributes: MountAttributes::default(),
        },
    ];
    if terminal {
        steps.push(Step::Console { uid: 0, rows: 24, columns: 80 });
    }
    steps.push(Step::SwitchRoot);
    steps
}

fn push_shell(plan: &mut PlanBuilder, script: &str) {
    plan.step(&Step::Exec {
        candidates: list(["/bin/sh"]).as_list(),
        args: list(["sh", "-c", script]).as_list(),
        env: list(["PATH=/bin"]).as_list(),
    });
}

impl Client {
    pub fn connect(path: &Path) -> Self {
        let socket = fdpass::connect(path).unwrap();
        let mut client = Self { socket, next: 1, events: VecDeque::new(), replies: HashMap::new() };
        let hello = Request::Hello { version: VERSION };
        assert_eq!(client.call(&hello, &[]).0, Reply::Hello { version: VERSION });
        client
    }

    pub fn call(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> (Reply, Vec<OwnedFd>) {
        let number = self.send(request, fds);
        self.reply(number)
    }

    pub fn send(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> u32 {
        let number = self.next;
        self.next += 1;
        self.try_send(&request.encode(number), fds).unwrap();
        number
    }

    pub fn try_send(&self, frame: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        loop {
            match fdpass::send(self.socket.as_fd(), frame, fds) {
                Err(Errno::AGAIN) => corten_kernel::stream::wait_writable(&self.socket),
                other => return other,
            }
        }
    }

    pub fn send_exec(
        &mut self,
        container: &ContainerId,
        exec: ExecId,
        script: &str,
        options: ExecOptions<'_>,
    ) -> u32 {
        let mut plan = PlanBuilder::new(&Header {
            join: JoinTarget::Container,
            console: options.terminal,
            ..Header::default()
        });
        plan.step(&Step::EnterCgroups);
        plan.step(&Step::NewSession);
        if options.terminal {
            plan.step(&Step::Console { uid: 0, rows: 10, columns: 20 });
        }
        push_shell(&mut plan, script);
        let plan = memfd::sealed("plan", &plan.finish().unwrap()).unwrap();
        let stdio = Stdio {
            terminal: options.terminal,
            stdin: options.stdin,
            hand_over: true,
            ..Stdio::default()
        };
        let own = options.group.is_some();
        let request = Request::Exec {
            container: container.clone(),
            exec,
            stdio,
            timeout_ms: options.timeout_ms,
            cgroup: CgroupFds { into: own, kill: own, tasks: 0, oom: false },
        };
        let mut fds = vec![plan.as_fd()];
        fds.extend(options.group.into_iter().flatten());
        self.send(&request, &fds)
    }

    /// `sh -c script` by Run, its plan in the frame or beside it; the number of
    /// the request.
    pub fn send_run(&mut self, run: &Target, script: &str, timeout_ms: u64, beside: bool) -> u32 {
        let mut plan =
            PlanBuilder::new(&Header { join: JoinTarget::Container, ..Header::default() });
        plan.step(&Step::EnterCgroups);
        plan.step(&Step::NewSession);
        push_shell(&mut plan, script);
        let plan = plan.finish().unwrap();
        let sealed = beside.then(|| memfd::sealed("plan", &plan).unwrap());
        let request = Request::Run {
            container: run.container.clone(),
            exec: run.exec.unwrap(),
            timeout_ms,
            cgroup: CgroupFds::default(),
            plan: if beside { Vec::new() } else { plan },
        };
        let fds: Vec<_> = sealed.iter().map(AsFd::as_fd).collect();
        self.send(&request, &fds)
    }

    /// The reply with this number. What comes before is kept.
    pub fn reply(&mut self, number: u32) -> (Reply, Vec<OwnedFd>) {
        loop {
            if let Some(reply) = self.replies.remove(&number) {
                return reply;
            }
            self.keep_one();
        }
    }

    fn keep_one(&mut self) {
        match self.message() {
            (FromShim::Reply(of, reply), fds) => drop(self.replies.insert(of, (reply, fds))),
            (FromShim::Event(event), _) => self.events.push_back(event),
        }
    }

    /// The first event that is looked for, kept or still to come.
    pub fn event(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        loop {
            if let Some(at) = self.events.iter().position(&wanted) {
                return self.events.remove(at).unwrap();
            }
            self.keep_one();
        }
    }

    pub fn message(&mut self) -> (FromShim, Vec<OwnedFd>) {
        let end = Instant::now() + PATIENCE;
        let mut frame = [0; FRAME_BYTES_MAX];
        loop {
            let mut fds = Vec::new();
            match fdpass::recv(self.socket.as_fd(), &mut frame, &mut fds, FRAME_FDS_MAX) {
                Ok(0) => panic!("the shim is gone"),
                Ok(length) => return (FromShim::decode(&frame[..length]).unwrap(), fds),
                Err(Errno::AGAIN) => {}
                Err(errno) => panic!("{errno}"),
            }
            assert!(Instant::now() < end, "the shim said nothing for too long");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Waits until something is so.
pub fn eventually(what: &str, so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
