//! The child's walk through its steps.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::execute::Prepared;
use super::mounts::NewMount;
use super::step::{FdIndex, NamespaceKind, Step};
use super::sync::{self, Word};
use crate::sys;

/// Why the walk ended, if not at the step itself.
pub(super) struct Failure {
    /// The step that failed, if it is not the present one.
    pub step: Option<u32>,
    pub errno: Errno,
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self { step: None, errno }
    }
}

/// What a child on its way holds.
pub(super) struct Walk<'w> {
    /// Its end of the socket.
    pub sync: BorrowedFd<'w>,
    /// The descriptors that steps refer to.
    pub fds: &'w [RawFd],
    /// `tasks` of the v1 groups to enter.
    pub tasks: &'w [RawFd],
    /// First descriptor number that the command does not get.
    pub first_own: u32,
    /// The procfs of the parent's mount namespace: opened before the container
    /// could have put anything in its place.
    pub proc: Option<OwnedFd>,
    /// The new root, until it is the root.
    pub root: Option<OwnedFd>,
    /// The tmpfs behind which directories are hidden.
    pub empty: Option<OwnedFd>,
    /// The command, made ready before a seccomp filter was loaded.
    pub prepared: Option<Prepared>,
    /// Whether a `Umask` step was met.
    pub umask_set: bool,
    /// The bounding set that was put in force.
    pub bounding: Option<u64>,
}

/// The root as the walk sees it: before the switch the new root, afterwards /.
pub(super) enum Root<'r> {
    New(BorrowedFd<'r>),
    Present(OwnedFd),
}

impl AsFd for Root<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Root::New(fd) => *fd,
            Root::Present(fd) => fd.as_fd(),
        }
    }
}

impl<'w> Walk<'w> {
    pub(super) fn root(&self) -> Result<Root<'_>, Errno> {
        match &self.root {
            Some(root) => Ok(Root::New(root.as_fd())),
            None => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                rustix::fs::open(c"/", flags, Mode::empty()).map(Root::Present)
            }
        }
    }

    fn fd(&self, index: FdIndex) -> Result<BorrowedFd<'w>, Errno> {
        let fd = *self.fds.get(usize::from(index.0)).ok_or(Errno::BADF)?;
        // SAFETY: `fds` are open as long as the walk goes on; nobody closes
        // them before the command is executed.
        Ok(unsafe { BorrowedFd::borrow_raw(fd) })
    }

    /// Enters the v1 groups. The kernel moves a single thread that asks for
    /// itself without further ado; whoever moves another process, or a whole
    /// one by `cgroup.procs`, first waits for a grace period, which takes ten
    /// milliseconds and more.
    fn enter_cgroups(&self) -> Result<(), Errno> {
        for tasks in self.tasks {
            // SAFETY: as in `fd`.
            let tasks = unsafe { BorrowedFd::borrow_raw(*tasks) };
            rustix::io::pwrite(tasks, b"0", 0)?;
        }
        Ok(())
    }

    /// Tells the parent that a step did only part of its work.
    pub(super) fn warn(&self, step: u32, errno: Errno) -> Result<(), Errno> {
        sync::say(self.sync, Word::Warning { step, errno: errno.raw_os_error() })
    }

    /// Walks to the end, which is a command executed, or a report and an exit.
    pub(super) fn run<'a>(mut self, steps: impl Iterator<Item = Step<'a>> + Clone) -> ! {
        let mut rest = steps;
        let mut index = 0;
        while let Some(step) = rest.next() {
            if let Err(failure) = self.perform(index, &step, &rest) {
                self.fail(failure.step.unwrap_or(index), failure.errno);
            }
            index += 1;
        }
        self.fail(index, Errno::INVAL)
    }

    fn fail(&self, step: u32, errno: Errno) -> ! {
        // If nobody listens any more, nobody wants to know.
        let _ = sync::say(self.sync, Word::Failed { step, errno: errno.raw_os_error() });
        sys::exit(255)
    }

    fn perform<'a>(
        &mut self,
        index: u32,
        step: &Step<'a>,
        rest: &(impl Iterator<Item = Step<'a>> + Clone),
    ) -> Result<(), Failure> {
        match *step {
            Step::EnterCgroups => self.enter_cgroups()?,
            Step::AwaitStart => {
                sync::say(self.sync, Word::Created)?;
                sync::await_word(self.sync, sync::GO)?;
                sys::prctl(libc::PR_SET_PDEATHSIG, 0, 0)?;
            }
            Step::AwaitHooks { point } => {
                sync::say(self.sync, Word::HookPoint(point))?;
                sync::await_word(self.sync, sync::GO)?;
            }
            Step::JoinNamespace { fd, kind } => sys::setns(self.fd(fd)?, clone_flag(kind))?,
            Step::NewNamespace { kind } => sys::unshare(clone_flag(kind))?,
            Step::Hostname { name } => rustix::system::sethostname(name.to_bytes())?,
            Step::Domainname { name } => rustix::system::setdomainname(name.to_bytes())?,
            Step::NewSession => drop(rustix::process::setsid()?),
            Step::BecomeNamespaceRoot => self.become_namespace_root()?,
            Step::SwitchRoot => self.switch_root()?,
            Step::EnsureDirectory { path, uid, gid } => self.ensure_directory(path, uid, gid)?,
            Step::Sysctl { path, value } => self.sysctl(path, value)?,
            Step::OomScoreAdj { value } => self.oom_score_adj(index, value)?,
            Step::Rlimit { resource, soft, hard } => self.rlimit(index, resource, soft, hard)?,
            Step::Nice { value } => rustix::process::setpriority_process(None, value)?,
            Step::Umask { mask } => {
                rustix::process::umask(Mode::from_raw_mode(mask & 0o777));
                self.umask_set = true;
            }
            Step::Groups { list } => self.groups(list)?,
            Step::User { uid, gid } => self.user(uid, gid)?,
            Step::WorkingDirectory { path } => self.working_directory(path)?,
            Step::Capabilities { ref sets } => self.capabilities(sets)?,
            Step::BoundingSet { bounding } => self.bounding_set(bounding)?,
            Step::NoNewPrivileges => drop(sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?),
            Step::Seccomp { program, flags } => self.seccomp(index, program, flags, rest)?,
            Step::ExecLabel { attribute, label } => self.exec_label(attribute, label)?,
            Step::Hook { args, env, state_before_pid, state_after_pid, timeout_ms } => {
                self.hook(args, env, [state_before_pid, state_after_pid], timeout_ms)?;
            }
            Step::Exec { candidates, args, env } => self.execute(candidates, args, env)?,
            Step::Init => self.be_init()?,
            Step::RootPropagation { .. }
            | Step::Root { .. }
            | Step::MountFd { .. }
            | Step::MountOwn { .. }
            | Step::MountNew { .. }
            | Step::Remount { .. }
            | Step::Device { .. }
            | Step::Symlink { .. }
            | Step::Console { .. }
            | Step::ReadonlyRoot
            | Step::Mask { .. }
            | Step::ReadonlyPath { .. } => self.build(step)?,
        }
        Ok(())
    }

    /// The steps that build the root filesystem.
    fn build(&mut self, step: &Step<'_>) -> Result<(), Errno> {
        match *step {
            Step::RootPropagation { propagation } => self.root_propagation(propagation),
            Step::Root { fd } => self.attach_root(self.fd(fd)?),
            Step::MountFd { fd, target, kind, attributes, propagation } => {
                self.mount_fd(self.fd(fd)?, target, kind, attributes, propagation)
            }
            Step::MountOwn { source, target, attributes } => {
                self.mount_own(source, target, attributes)
            }
            Step::MountNew { fstype, source, options, target, attributes, copy_up } => {
                self.mount_new(&NewMount { fstype, source, options, target, attributes, copy_up })
            }
            Step::Remount { target, attributes } => self.remount(target, attributes),
            Step::Device { path, mode, major, minor, uid, gid } => {
                self.device(path, mode, rustix::fs::makedev(major, minor), uid, gid)
            }
            Step::Symlink { target, path } => self.symlink(target, path),
            Step::Console { uid, rows, columns } => self.console(uid, rows, columns),
            Step::ReadonlyRoot => self.readonly_root(),
            Step::Mask { path } => self.mask(path),
            Step::ReadonlyPath { path } => self.readonly_path(path),
            _ => Err(Errno::INVAL),
        }
    }
}

/// The `CLONE_NEW*` flag of a kind.
pub(crate) const fn clone_flag(kind: NamespaceKind) -> libc::c_int {
    match kind {
        NamespaceKind::Mount => libc::CLONE_NEWNS,
        NamespaceKind::Net => libc::CLONE_NEWNET,
        NamespaceKind::Ipc => libc::CLONE_NEWIPC,
        NamespaceKind::Uts => libc::CLONE_NEWUTS,
        NamespaceKind::Pid => libc::CLONE_NEWPID,
        NamespaceKind::User => libc::CLONE_NEWUSER,
        NamespaceKind::Cgroup => libc::CLONE_NEWCGROUP,
        NamespaceKind::Time => 0x80,
    }
}
