//! Steps that make nodes, links and directories, and the terminal.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::MoveMountFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::path::{Make, ensure, ensure_parent, open_in};
use super::sync;
use super::walk::Walk;
use crate::mount::clone_fd;

/// `DEVPTS_SUPER_MAGIC`
const DEVPTS_MAGIC: u64 = 0x1cd1;
/// `TIOCSPTLCK`, the same on x86-64 and aarch64.
const TIOCSPTLCK: libc::c_ulong = 0x4004_5431;

impl Walk<'_> {
    pub(super) fn device(
        &self,
        path: &CStr,
        mode: u32,
        number: u64,
        uid: u32,
        gid: u32,
    ) -> Result<(), Errno> {
        let (parent, name) = ensure_parent(self.root()?.as_fd(), path)?;
        let name = name.as_c_str()?;
        let kind = FileType::from_raw_mode(mode);
        let permissions = Mode::from_raw_mode(mode & 0o7777);
        match rustix::fs::mknodat(&parent, name, kind, permissions, number) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
                let same = FileType::from_raw_mode(stat.st_mode) == kind;
                if !same || (kind != FileType::Fifo && stat.st_rdev != number) {
                    return Err(Errno::EXIST);
                }
            }
            Err(errno) => return Err(errno),
        }
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(&parent, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
        // The umask took bits away, and chown may have, too.
        rustix::fs::chmodat(&parent, name, permissions, AtFlags::empty())
    }

    pub(super) fn symlink(&self, target: &CStr, path: &CStr) -> Result<(), Errno> {
        let (parent, name) = ensure_parent(self.root()?.as_fd(), path)?;
        match rustix::fs::symlinkat(target, &parent, name.as_c_str()?) {
            Err(Errno::EXIST) => Ok(()),
            other => other,
        }
    }

    pub(super) fn ensure_directory(&self, path: &CStr, uid: u32, gid: u32) -> Result<(), Errno> {
        let root = self.root()?;
        match open_in(root.as_fd(), path, OFlags::PATH) {
            Err(Errno::NOENT) => {}
            other => return other.map(drop),
        }
        let made = ensure(root.as_fd(), path, Make::Directory)?;
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(&made, c"", owner.0, owner.1, AtFlags::EMPTY_PATH)
    }

    pub(super) fn working_directory(&self, path: &CStr) -> Result<(), Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        rustix::process::fchdir(open_in(self.root()?.as_fd(), path, flags)?)
    }

    /// The terminal is the container's own: its slave has a name in there.
    pub(super) fn console(&mut self, uid: u32, rows: u16, columns: u16) -> Result<(), Errno> {
        let root = self.root()?;
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let master = open_in(root.as_fd(), c"/dev/pts/ptmx", flags)?;
        // In a running container anything might lie there by now.
        if rustix::fs::fstatfs(&master)?.f_type as u64 != DEVPTS_MAGIC {
            return Err(Errno::NODEV);
        }
        unlock(master.as_fd())?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
        rustix::fs::fchown(&slave, Some(Uid::from_raw(uid)), None)?;
        rustix::fs::fchmod(&slave, Mode::from_raw_mode(0o620))?;
        if rows != 0 && columns != 0 {
            let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            rustix::termios::tcsetwinsize(&master, size)?;
        }
        if self.root.is_some() {
            let at = ensure(root.as_fd(), c"/dev/console", Make::File)?;
            let mount = clone_fd(slave.as_fd(), false)?;
            let flags =
                MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            rustix::mount::move_mount(&mount, c"", &at, c"", flags)?;
        }
        // A process that leads a session already keeps it.
        match rustix::process::setsid() {
            Ok(_) | Err(Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
        rustix::process::ioctl_tiocsctty(&slave)?;
        rustix::stdio::dup2_stdin(&slave)?;
        rustix::stdio::dup2_stdout(&slave)?;
        rustix::stdio::dup2_stderr(&slave)?;
        sync::send_master(self.sync, master.as_fd())
    }
}

fn unlock(master: BorrowedFd<'_>) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    let unlocked: libc::c_int = 0;
    // SAFETY: the ioctl reads one int from where the pointer leads.
    crate::sys::check(unsafe {
        libc::syscall(libc::SYS_ioctl, master.as_raw_fd(), TIOCSPTLCK, &raw const unlocked)
    })
    .map(drop)
}
