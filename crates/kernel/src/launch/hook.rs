//! A hook inside the container's namespaces: run, fed, waited for.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SeekFrom};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::execute::prepare;
use super::settings::decimal;
use super::step::CStrList;
use super::walk::Walk;
use crate::sys;

impl Walk<'_> {
    /// A hook that fails or is too slow fails the launch: ECHILD, ETIMEDOUT.
    pub(super) fn hook(
        &self,
        args: CStrList<'_>,
        env: CStrList<'_>,
        state: [&[u8]; 2],
        timeout_ms: u32,
    ) -> Result<(), Errno> {
        let path = args.iter().next().ok_or(Errno::INVAL)?;
        let stdin = state_document(state)?;
        let prepared = prepare(args, env)?;
        // SAFETY: the child goes straight to execve or exit.
        let Some((_, pidfd)) = (unsafe { sys::fork(0, libc::SIGCHLD, None)? }) else {
            let errno = match rustix::stdio::dup2_stdin(&stdin) {
                Ok(()) => prepared.execute(path),
                Err(errno) => errno,
            };
            sys::exit(if errno == Errno::NOENT { 127 } else { 126 })
        };
        await_hook(&pidfd, timeout_ms)
    }
}

/// A file and not a pipe: a hook that does not read cannot hold us up.
fn state_document([before, after]: [&[u8]; 2]) -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC;
    let file = match rustix::fs::memfd_create(c"state", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(c"state", flags)?, // before Linux 6.3
        other => other?,
    };
    let mut digits = [0u8; 24];
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    for mut part in [before, decimal(&mut digits, i64::from(pid)), after] {
        while !part.is_empty() {
            let written = rustix::io::write(&file, part)?;
            part = part.get(written..).unwrap_or(&[]);
        }
    }
    rustix::fs::seek(&file, SeekFrom::Start(0))?;
    Ok(file)
}

fn await_hook(pidfd: &OwnedFd, timeout_ms: u32) -> Result<(), Errno> {
    let timeout = Timespec {
        tv_sec: i64::from(timeout_ms / 1000),
        tv_nsec: i64::from(timeout_ms % 1000) * 1_000_000,
    };
    let timeout = (timeout_ms != 0).then_some(&timeout);
    let ended = loop {
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], timeout) {
            Err(Errno::INTR) => {} // all signals have their default action: a stop and a continue
            other => break other? > 0,
        }
    };
    if !ended {
        pidfd_send_signal(pidfd, Signal::KILL)?;
    }
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)?;
    if !ended {
        return Err(Errno::TIMEDOUT);
    }
    match status.and_then(|status| status.exit_status()) {
        Some(0) => Ok(()),
        Some(_) | None => Err(Errno::CHILD),
    }
}
