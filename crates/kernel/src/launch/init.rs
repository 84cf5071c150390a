//! The init of a pod's shared PID namespace: a few lines that reap.

use rustix::io::Errno;

use super::walk::Walk;
use crate::sys;

const SIGNALS: [libc::c_int; 3] = [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT];

impl Walk<'_> {
    /// Reaps until SIGTERM or SIGINT. Does not come back, unless to fail
    /// before it has begun.
    pub(super) fn be_init(&mut self) -> Result<(), Errno> {
        let set = SIGNALS.iter().fold(0u64, |set, signal| set | 1 << (signal - 1));
        block(set)?;
        rustix::thread::set_name(c"corten-init")?;
        rustix::process::chdir(c"/")?;
        self.leave()?;
        // The socket goes last: its end tells the parent that init runs.
        sys::close_range(self.first_own, u32::MAX)?;
        loop {
            match wait(set) {
                Ok(libc::SIGCHLD) | Err(_) => reap(),
                Ok(_) => sys::exit(0),
            }
        }
    }
}

fn block(set: u64) -> Result<(), Errno> {
    let none = std::ptr::null_mut::<u64>();
    // SAFETY: the kernel's signal set has 64 bits, and `set` is one.
    sys::check(unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const set, none, 8usize)
    })
    .map(drop)
}

/// The next of the blocked signals.
fn wait(set: u64) -> Result<libc::c_int, Errno> {
    let none = std::ptr::null_mut::<u64>();
    // SAFETY: as above; no information and no timeout are asked for.
    sys::check(unsafe {
        libc::syscall(libc::SYS_rt_sigtimedwait, &raw const set, none, none, 8usize)
    })
    .map(|signal| signal as libc::c_int)
}

fn reap() {
    while let Ok(1..) = reap_one() {}
}

/// The pid of an ended child, 0 if none has ended.
fn reap_one() -> Result<usize, Errno> {
    let none = std::ptr::null_mut::<u64>();
    let any = -1;
    // SAFETY: neither status nor usage are asked for.
    sys::check(unsafe { libc::syscall(libc::SYS_wait4, any, none, libc::WNOHANG, none) })
}
