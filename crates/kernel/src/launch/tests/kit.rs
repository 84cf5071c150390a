//! A root filesystem to launch into, and what a test says of its container.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::launch::*;
use crate::mount;

/// A directory with busybox in it.
pub struct Image {
    pub dir: tempfile::TempDir,
}

impl Image {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        for name in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
            std::fs::create_dir(path.join(name)).expect("mkdir");
        }
        std::fs::copy("/bin/busybox", path.join("bin/busybox")).expect("busybox-static");
        for name in ["sh", "cat", "id", "ls", "true", "grep", "stty", "tty", "sleep", "wc", "env"] {
            symlink("busybox", path.join("bin").join(name)).expect("symlink");
        }
        Self { dir }
    }

    pub fn script(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("write");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    }

    pub fn mount(&self) -> OwnedFd {
        mount::open_tree(self.dir.path(), false).expect("open_tree")
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// A list of strings for steps.
pub struct List {
    count: u32,
    bytes: Vec<u8>,
}

impl List {
    pub fn new<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Self {
        let mut list = Self { count: 0, bytes: Vec::new() };
        for text in texts {
            list.count += 1;
            list.bytes.extend(CString::new(text.as_ref()).expect("text").as_bytes_with_nul());
        }
        list
    }

    pub fn get(&self) -> CStrList<'_> {
        CStrList { count: self.count, bytes: &self.bytes }
    }
}

pub const DEV: MountAttributes =
    MountAttributes { set: mount::MOUNT_ATTR_NOSUID, clear: 0, recursive: false };

/// The usual steps of a container before its command.
pub fn usual_mounts() -> Vec<Step<'static>> {
    fn new(
        fstype: &'static str,
        target: &'static str,
        options: CStrList<'static>,
    ) -> Step<'static> {
        let leak = |text: &str| -> &'static std::ffi::CStr {
            Box::leak(CString::new(text).expect("text").into_boxed_c_str())
        };
        Step::MountNew {
            fstype: leak(fstype),
            source: leak(fstype),
            options,
            target: leak(target),
            attributes: DEV,
            copy_up: false,
        }
    }
    const PTS: CStrList<'static> =
        CStrList { count: 3, bytes: b"newinstance\0ptmxmode=0666\0mode=0620\0" };
    const TMP: CStrList<'static> = CStrList { count: 2, bytes: b"mode=755\0size=65536k\0" };
    vec![
        new("proc", "/proc", CStrList::EMPTY),
        new("tmpfs", "/dev", TMP),
        new("devpts", "/dev/pts", PTS),
        new("mqueue", "/dev/mqueue", CStrList::EMPTY),
    ]
}

pub fn device(path: &'static std::ffi::CStr, minor: u32) -> Step<'static> {
    Step::Device { path, mode: libc::S_IFCHR | 0o666, major: 1, minor, uid: 0, gid: 0 }
}

/// The last step, for `sh -c text`.
pub struct Shell {
    args: List,
    env: List,
    candidates: List,
}

impl Shell {
    pub fn new(text: &str) -> Self {
        Self {
            args: List::new(["sh", "-c", text]),
            env: List::new(["PATH=/bin", "A=1"]),
            candidates: List::new(["/usr/bin/sh", "/bin/sh"]),
        }
    }

    pub fn step(&self) -> Step<'_> {
        Step::Exec { candidates: self.candidates.get(), args: self.args.get(), env: self.env.get() }
    }
}

/// A command that was launched, with its output.
pub struct Running {
    pub child: Child,
    output: File,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub output: String,
    pub code: i32,
    pub failed: Option<(u32, i32)>,
    pub warnings: Vec<(u32, i32)>,
}

pub fn null() -> OwnedFd {
    // A memory file: a test may stand in a mount namespace that has no /dev.
    rustix::fs::memfd_create("null", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd")
}

pub fn run_with<'a>(
    steps: &[Step<'a>],
    new_namespaces: &[NamespaceKind],
    join: Join<'_>,
    fds: &[BorrowedFd<'_>],
) -> Running {
    run_in(Memory::Copied, steps, new_namespaces, join, fds)
}

/// One that walks in the memory of the test.
pub fn run_lent<'a>(steps: &[Step<'a>], fds: &[BorrowedFd<'_>]) -> Running {
    run_in(Memory::Lent, steps, &[], Join::Parents, fds)
}

fn run_in<'a>(
    memory: Memory,
    steps: &[Step<'a>],
    new_namespaces: &[NamespaceKind],
    join: Join<'_>,
    fds: &[BorrowedFd<'_>],
) -> Running {
    let (reader, writer) = std::io::pipe().expect("pipe");
    let null = null();
    let launch = Launch {
        steps: steps.iter().copied(),
        new_namespaces,
        join,
        fds,
        stdio: [null.as_fd(), writer.as_fd(), writer.as_fd()],
        inherit: &[],
        memory,
        cgroup: None,
        tasks: &[],
    };
    let child = spawn(&launch).expect("spawn");
    Running { child, output: File::from(OwnedFd::from(reader)) }
}

impl Running {
    /// Lets it run, reads its output to the end, reaps it.
    pub fn finish(mut self) -> Outcome {
        let (mut failed, mut warnings) = (None, Vec::new());
        loop {
            match self.child.wait_message().expect("message") {
                Message::Created | Message::HookPoint { .. } => {
                    self.child.release().expect("release");
                }
                Message::Warning { step, errno } => warnings.push((step, errno)),
                Message::Failed { step, errno } => failed = Some((step, errno)),
                Message::ConsoleMaster(_) => {}
                Message::Closed => break,
            }
        }
        let mut output = String::new();
        self.output.read_to_string(&mut output).expect("output");
        Outcome { output, code: reap(&self.child), failed, warnings }
    }
}

/// Waits for its end: the exit code, or 128 + signal.
pub fn reap(child: &Child) -> i32 {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let status = waitid(WaitId::PidFd(child.pidfd()), WaitIdOptions::EXITED)
        .expect("waitid")
        .expect("status");
    status
        .exit_status()
        .or_else(|| status.terminating_signal().map(|signal| 128 + signal))
        .expect("exit or signal")
}

pub const OWN: &[NamespaceKind] = &[NamespaceKind::Mount, NamespaceKind::Pid];

pub fn private() -> Step<'static> {
    Step::RootPropagation { propagation: Propagation::Private }
}

/// Root, usual mounts, devices, the switch; then the given steps and a shell.
pub fn container(image: &Image, more: &[Step<'_>], shell: &str) -> Outcome {
    start(image, more, shell).finish()
}

pub fn start(image: &Image, more: &[Step<'_>], shell: &str) -> Running {
    let root = image.mount();
    let shell = Shell::new(shell);
    let steps = container_steps(more, shell.step());
    run_with(&steps, OWN, Join::Parents, &[root.as_fd()])
}

pub fn container_steps<'a>(more: &[Step<'a>], last: Step<'a>) -> Vec<Step<'a>> {
    let mut steps = vec![private(), Step::EnterCgroups, Step::NewSession];
    steps.push(Step::NewNamespace { kind: NamespaceKind::Uts });
    steps.push(Step::NewNamespace { kind: NamespaceKind::Ipc });
    steps.push(Step::NewNamespace { kind: NamespaceKind::Cgroup });
    steps.push(Step::Hostname { name: c"testpod" });
    steps.push(Step::Root { fd: FdIndex(0) });
    steps.extend(usual_mounts());
    steps.push(device(c"/dev/null", 3));
    steps.push(device(c"/dev/zero", 5));
    steps.push(Step::Symlink { target: c"/proc/self/fd", path: c"/dev/fd" });
    steps.push(Step::SwitchRoot);
    steps.extend_from_slice(more);
    steps.push(last);
    steps
}
