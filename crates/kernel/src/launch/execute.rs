//! The last steps: the seccomp filter and the command.

use std::ffi::CStr;
use std::os::fd::AsRawFd;

use rustix::fs::{Access, AtFlags, Mode};
use rustix::io::Errno;

use super::step::{CStrList, Step};
use super::walk::{Failure, Walk};
use crate::sys;

/// `argv` and `envp` of the command, as `execve` wants them.
pub(super) struct Prepared {
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
}

impl Prepared {
    /// Executes the program at `path`; comes back only to fail.
    pub(super) fn execute(&self, path: &CStr) -> Errno {
        // SAFETY: `prepare` made arrays that end with null pointers.
        unsafe { sys::execve(path, self.argv, self.envp) }
    }
}

/// Makes the pointer arrays, in pages of their own: a list may have any length.
pub(super) fn prepare(args: CStrList<'_>, env: CStrList<'_>) -> Result<Prepared, Errno> {
    let slots = args.count as usize + env.count as usize + 2;
    let length = slots.checked_mul(size_of::<usize>()).ok_or(Errno::NOMEM)?;
    // SAFETY: a new anonymous mapping touches nothing that exists.
    let pages = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if pages == libc::MAP_FAILED {
        return Err(Errno::NOMEM);
    }
    // SAFETY: the mapping has room for `slots` aligned pointers, is zeroed, and
    // stays until execve or exit.
    let slots: &mut [*const libc::c_char] =
        unsafe { std::slice::from_raw_parts_mut(pages.cast(), slots) };
    let (argv, envp) = slots.split_at_mut(args.count as usize + 1);
    for (slot, text) in argv.iter_mut().zip(args.iter()) {
        *slot = text.as_ptr();
    }
    for (slot, text) in envp.iter_mut().zip(env.iter()) {
        *slot = text.as_ptr();
    }
    Ok(Prepared { argv: argv.as_ptr(), envp: envp.as_ptr() })
}

impl Walk<'_> {
    /// Loads a filter. It may forbid everything but execve: what the command
    /// needs before that is done first.
    pub(super) fn seccomp<'a>(
        &mut self,
        index: u32,
        program: &[u8],
        flags: u32,
        rest: &(impl Iterator<Item = Step<'a>> + Clone),
    ) -> Result<(), Failure> {
        let mut later = rest.clone();
        // What comes in between, if it is not the command, has to be allowed by
        // the filter anyhow.
        if let Some(Step::Exec { candidates, args, env }) = later.next() {
            let failure = |errno| Failure { step: Some(index + 1), errno };
            some_exists(candidates).map_err(failure)?;
            self.prepared = Some(prepare(args, env).map_err(failure)?);
            self.leave().map_err(failure)?;
        }
        load(program, flags).map_err(Failure::from)
    }

    /// Closes all but the socket, forgets what was kept for the way.
    pub(super) fn leave(&mut self) -> Result<(), Errno> {
        if !self.umask_set {
            rustix::process::umask(Mode::from_raw_mode(0o022));
        }
        sys::prctl(libc::PR_SET_PDEATHSIG, 0, 0)?;
        self.proc = None;
        self.root = None;
        self.empty = None;
        let sync = self.sync.as_raw_fd() as u32;
        if let Some(below) = sync.checked_sub(1) {
            sys::close_range(self.first_own, below)?;
        }
        sys::close_range(sync + 1, u32::MAX)
    }

    /// Executes the first candidate that can be; comes back only to fail.
    pub(super) fn execute(
        &mut self,
        candidates: CStrList<'_>,
        args: CStrList<'_>,
        env: CStrList<'_>,
    ) -> Result<(), Errno> {
        let prepared = match self.prepared.take() {
            Some(prepared) => prepared,
            None => {
                let prepared = prepare(args, env)?;
                self.leave()?;
                prepared
            }
        };
        let mut worst = Errno::NOENT;
        for candidate in candidates.iter() {
            match prepared.execute(candidate) {
                Errno::NOENT | Errno::NOTDIR => {}
                // As shells do: go on looking, but remember the better reason.
                Errno::ACCESS => worst = Errno::ACCESS,
                errno => return Err(errno),
            }
        }
        Err(worst)
    }
}

/// Fails early, with a reason, if nothing is there to be executed: under a
/// strict filter that could not be told.
fn some_exists(candidates: CStrList<'_>) -> Result<(), Errno> {
    let mut worst = Errno::NOENT;
    for candidate in candidates.iter() {
        match accessible(candidate) {
            Ok(()) => return Ok(()),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => worst = errno,
        }
    }
    Err(worst)
}

fn accessible(path: &CStr) -> Result<(), Errno> {
    rustix::fs::accessat(rustix::fs::CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

#[repr(C)]
struct FilterProgram {
    length: u16,
    filter: *const u8,
}

/// `SECCOMP_SET_MODE_FILTER`. The kernel copies from any alignment.
fn load(program: &[u8], flags: u32) -> Result<(), Errno> {
    const FILTER_BYTES: usize = 8;
    const SET_MODE_FILTER: libc::c_int = 1;
    let count = program.len() / FILTER_BYTES;
    let length = u16::try_from(count).map_err(|_| Errno::INVAL)?;
    if !program.len().is_multiple_of(FILTER_BYTES) {
        return Err(Errno::INVAL);
    }
    let program = FilterProgram { length, filter: program.as_ptr() };
    // SAFETY: `program` leads to as many instructions as it says.
    sys::check(unsafe {
        libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const program)
    })
    .map(drop)
}
