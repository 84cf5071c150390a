//! Bare system calls that `rustix` does not have. None allocates, locks or
//! panics: the launched child uses them after its clone.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

/// `MOUNT_ATTR_RDONLY`
pub const MOUNT_ATTR_RDONLY: u64 = 0x1;
/// `MOUNT_ATTR_NOSUID`
pub const MOUNT_ATTR_NOSUID: u64 = 0x2;
/// `MOUNT_ATTR_NODEV`
pub const MOUNT_ATTR_NODEV: u64 = 0x4;
/// `MOUNT_ATTR_NOEXEC`
pub const MOUNT_ATTR_NOEXEC: u64 = 0x8;
/// `MOUNT_ATTR__ATIME`: the field of the access-time modes.
pub const MOUNT_ATTR_ATIME: u64 = 0x70;
/// `MOUNT_ATTR_IDMAP`
pub const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;

const AT_EMPTY_PATH: usize = 0x1000;
const AT_RECURSIVE: usize = 0x8000;

/// Turns what `libc::syscall` returns into a result.
pub fn check(returned: libc::c_long) -> Result<usize, Errno> {
    if returned == -1 {
        // SAFETY: errno is a thread-local of the C library, always there.
        Err(Errno::from_raw_os_error(unsafe { *libc::__errno_location() }))
    } else {
        Ok(returned as usize)
    }
}

/// Takes a descriptor that a system call has just returned.
pub(crate) fn own(fd: usize) -> OwnedFd {
    // SAFETY: the kernel returned it to us and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

/// `struct clone_args`, version 2 (88 bytes, Linux 5.7).
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct CloneArgs {
    /// `CLONE_*`
    pub flags: u64,
    /// Where to put the pidfd.
    pub pidfd: u64,
    /// Unused.
    pub child_tid: u64,
    /// Unused.
    pub parent_tid: u64,
    /// Signal at exit.
    pub exit_signal: u64,
    /// The lowest address of the child's stack; 0 for a copy of the caller's.
    pub stack: u64,
    /// Bytes of that stack.
    pub stack_size: u64,
    /// Unused.
    pub tls: u64,
    /// Unused.
    pub set_tid: u64,
    /// Unused.
    pub set_tid_size: u64,
    /// Descriptor of the cgroup directory, with `CLONE_INTO_CGROUP`.
    pub cgroup: u64,
}

/// `CLONE_CLEAR_SIGHAND` (Linux 5.5)
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
/// `CLONE_INTO_CGROUP` (Linux 5.7)
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

impl CloneArgs {
    /// For a child without signal handlers, whose pidfd goes to `pidfd`.
    pub fn new(
        flags: u64,
        exit_signal: i32,
        cgroup: Option<BorrowedFd<'_>>,
        pidfd: *mut RawFd,
    ) -> Self {
        let (into_cgroup, cgroup) = match cgroup {
            Some(cgroup) => (CLONE_INTO_CGROUP, cgroup.as_raw_fd() as u64),
            None => (0, 0),
        };
        Self {
            flags: flags | into_cgroup | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND,
            pidfd: pidfd as u64,
            exit_signal: exit_signal as u64,
            cgroup,
            ..Self::default()
        }
    }
}

/// Forks. In the child, which has no signal handlers: `Ok(None)`; in the
/// parent: its pid and pidfd.
///
/// # Safety
/// The child is a copy of one thread of maybe many: until it execs or exits it
/// must not allocate, lock or unwind.
pub unsafe fn fork(
    flags: u64,
    exit_signal: i32,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Option<(i32, OwnedFd)>, Errno> {
    let mut pidfd: RawFd = -1;
    let args = CloneArgs::new(flags, exit_signal, cgroup, &raw mut pidfd);
    // SAFETY: `args` is a valid `clone_args`, `pidfd` outlives the call; what
    // the child may do is the caller's promise.
    let pid =
        check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) })?;
    if pid == 0 {
        return Ok(None);
    }
    Ok(Some((pid as i32, own(pidfd as usize))))
}

/// `_exit` of the whole process.
pub fn exit(code: i32) -> ! {
    loop {
        // SAFETY: takes a number, does not return.
        unsafe { libc::syscall(libc::SYS_exit_group, code) };
    }
}

/// `setns`; `flags` are `CLONE_NEW*`, 0 for any kind.
pub fn setns(fd: BorrowedFd<'_>, flags: libc::c_int) -> Result<(), Errno> {
    // SAFETY: takes two numbers.
    check(unsafe { libc::syscall(libc::SYS_setns, fd.as_raw_fd(), flags) }).map(drop)
}

/// `unshare` of `CLONE_*` flags.
pub fn unshare(flags: libc::c_int) -> Result<(), Errno> {
    // SAFETY: takes a number.
    check(unsafe { libc::syscall(libc::SYS_unshare, flags) }).map(drop)
}

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// `mount_setattr` of the mount that `fd` is the root of. `propagation` is an
/// `MS_*` number or 0.
pub fn mount_setattr(
    fd: BorrowedFd<'_>,
    recursive: bool,
    set: u64,
    clear: u64,
    propagation: u64,
    userns: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let mut attr = MountAttr { attr_set: set, attr_clr: clear, propagation, userns_fd: 0 };
    // The kernel demands that the whole field of access-time modes is cleared
    // when one of them is chosen.
    if set & MOUNT_ATTR_ATIME != 0 {
        attr.attr_clr |= MOUNT_ATTR_ATIME;
    }
    if let Some(userns) = userns {
        attr.attr_set |= MOUNT_ATTR_IDMAP;
        attr.userns_fd = userns.as_raw_fd() as u64;
    }
    let flags = AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, `attr` a valid `mount_attr` of the
    // size given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// `pidfd_open`.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: takes two numbers.
    check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }).map(own)
}

/// `close_range` from `first` to `last`, both included.
pub fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    if first > last {
        return Ok(());
    }
    // SAFETY: takes numbers. That nobody uses those descriptors any more is
    // what a child that is about to exec may decide for itself.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// `prctl` with numbers alone.
pub fn prctl(option: libc::c_int, first: usize, second: usize) -> Result<usize, Errno> {
    // SAFETY: used with options that take numbers.
    check(unsafe { libc::syscall(libc::SYS_prctl, option, first, second, 0usize, 0usize) })
}

/// `execve`. Returns only when it failed.
///
/// # Safety
/// `argv` and `envp` must be arrays of C strings that end with a null pointer.
pub unsafe fn execve(
    path: &CStr,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
) -> Errno {
    // SAFETY: as the caller promises.
    match check(unsafe { libc::syscall(libc::SYS_execve, path.as_ptr(), argv, envp) }) {
        Err(errno) => errno,
        Ok(_) => Errno::IO,
    }
}

/// A copy of a descriptor, not below `first`, closed by execve.
pub fn dup_above(fd: RawFd, first: RawFd) -> Result<RawFd, Errno> {
    // SAFETY: takes numbers.
    check(unsafe { libc::syscall(libc::SYS_fcntl, fd, libc::F_DUPFD_CLOEXEC, first) })
        .map(|fd| fd as RawFd)
}

/// A copy of a descriptor at this very number, kept by execve.
pub fn dup_onto(fd: RawFd, place: RawFd) -> Result<(), Errno> {
    // SAFETY: takes numbers; what lay at `place` is the caller's to close.
    check(unsafe { libc::syscall(libc::SYS_dup3, fd, place, 0) }).map(drop)
}

/// Blocks every signal of this thread; returns the mask before.
pub fn block_signals() -> Result<u64, Errno> {
    let (all, mut before) = (u64::MAX, 0u64);
    // SAFETY: the kernel's signal sets have 64 bits.
    check(unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const all,
            &raw mut before,
            8usize,
        )
    })?;
    Ok(before)
}

/// Sets this thread's signal mask.
pub fn restore_signals(mask: u64) {
    let none = std::ptr::null_mut::<u64>();
    // SAFETY: as above. It cannot fail with valid pointers.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, none, 8usize)
    };
}

/// Gives these signals (bit 0 is signal 1) their default action, and unblocks
/// all. Handlers are gone since the clone: it is what was ignored that is left.
pub fn default_signals(ignored: u64) -> Result<(), Errno> {
    // Zeroes are SIG_DFL with no flags and an empty mask on every machine,
    // whatever the order of the fields.
    let action = [0u64; 8];
    let none = std::ptr::null_mut::<u64>();
    let is_ignored = |signal: &i32| ignored & (1 << (signal - 1)) != 0;
    let can_be_set = |signal: &i32| ![libc::SIGKILL, libc::SIGSTOP].contains(signal);
    for signal in (1..=64).filter(is_ignored).filter(can_be_set) {
        // SAFETY: `action` is at least as large as the kernel's `sigaction`.
        check(unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), none, 8usize)
        })?;
    }
    restore_signals(0);
    Ok(())
}
