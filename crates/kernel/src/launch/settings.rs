//! Steps that set something of the process itself.

use std::ffi::CStr;
use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::step::Capabilities;
use super::walk::Walk;
use crate::sys;

/// The most supplementary groups that the kernel takes (`NGROUPS_MAX`).
const GROUPS_MAX: usize = 65536;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Limit {
    soft: u64,
    hard: u64,
}

/// `prlimit64` of this process; returns what was before.
fn prlimit(resource: u32, new: Option<Limit>) -> Result<Limit, Errno> {
    let mut old = Limit::default();
    let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both pointers lead to limits, or `new` nowhere.
    sys::check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, new, &raw mut old) })?;
    Ok(old)
}

/// Raises a hard limit as far as `hard`, if it may: in a user namespace it may
/// not any more.
pub(super) fn raise_limit(resource: u32, hard: u64) {
    if let Ok(present) = prlimit(resource, None)
        && hard > present.hard
    {
        // Refused: then the step itself is refused, too, and says so.
        let _ = prlimit(resource, Some(Limit { soft: present.soft, hard }));
    }
}

impl Walk<'_> {
    pub(super) fn become_namespace_root(&self) -> Result<(), Errno> {
        match set_groups(&[]) {
            // Where setgroups is denied, there is nothing to drop.
            Ok(()) | Err(Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
        set_ids(0, 0)
    }

    pub(super) fn sysctl(&self, path: &CStr, value: &CStr) -> Result<(), Errno> {
        let proc = self.proc.as_ref().ok_or(Errno::NOENT)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let sys = rustix::fs::openat(proc, c"sys", flags, Mode::empty())?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat2(&sys, path, flags, Mode::empty(), resolve)?;
        rustix::io::write(&file, value.to_bytes()).map(drop)
    }

    pub(super) fn oom_score_adj(&self, index: u32, value: i32) -> Result<(), Errno> {
        let proc = self.proc.as_ref().ok_or(Errno::NOENT)?;
        match write_oom_score_adj(proc.as_fd(), value) {
            Err(errno @ (Errno::ACCESS | Errno::PERM)) => self.warn(index, errno),
            other => other,
        }
    }

    pub(super) fn rlimit(
        &self,
        index: u32,
        resource: u32,
        soft: u64,
        hard: u64,
    ) -> Result<(), Errno> {
        match prlimit(resource, Some(Limit { soft, hard })) {
            Ok(_) => Ok(()),
            Err(Errno::PERM) => {
                let hard = hard.min(prlimit(resource, None)?.hard);
                prlimit(resource, Some(Limit { soft: soft.min(hard), hard }))?;
                self.warn(index, Errno::PERM)
            }
            Err(errno) => Err(errno),
        }
    }

    pub(super) fn groups(&self, list: &[u8]) -> Result<(), Errno> {
        if list.is_empty() {
            return set_groups(&[]);
        }
        // The kernel reads aligned numbers; the plan's bytes may lie anywhere.
        let mut groups = [0u32; 1024];
        let count = list.len() / 4;
        if count > groups.len().min(GROUPS_MAX) {
            return Err(Errno::INVAL);
        }
        for (group, bytes) in groups.iter_mut().zip(list.as_chunks::<4>().0) {
            *group = u32::from_le_bytes(*bytes);
        }
        set_groups(groups.get(..count).unwrap_or(&[]))
    }

    pub(super) fn user(&self, uid: u32, gid: u32) -> Result<(), Errno> {
        sys::prctl(libc::PR_SET_KEEPCAPS, 1, 0)?;
        set_ids(uid, gid)?;
        // Leaving uid 0 empties the effective set; what follows needs it.
        let mut sets = cap_get()?;
        sets.effective = sets.permitted;
        cap_set(&sets)
    }

    pub(super) fn bounding_set(&mut self, bounding: u64) -> Result<(), Errno> {
        if self.bounding == Some(bounding) {
            return Ok(());
        }
        for number in (0..64usize).filter(|number| bounding & (1 << number) == 0) {
            match sys::prctl(libc::PR_CAPBSET_DROP, number, 0) {
                Ok(_) => {}
                Err(Errno::INVAL) => break, // beyond the last capability
                // Without the right to drop any: fine if it is not there.
                Err(Errno::PERM) if sys::prctl(libc::PR_CAPBSET_READ, number, 0) == Ok(0) => {}
                Err(errno) => return Err(errno),
            }
        }
        self.bounding = Some(bounding);
        Ok(())
    }

    pub(super) fn capabilities(&mut self, sets: &Capabilities) -> Result<(), Errno> {
        self.bounding_set(sets.bounding)?;
        let present = cap_get()?;
        let permitted = sets.permitted & present.permitted;
        let inheritable = sets.inheritable & (present.permitted | present.inheritable);
        cap_set(&Sets { effective: sets.effective & permitted, permitted, inheritable })?;
        sys::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as usize, 0)?;
        let ambient = sets.ambient & permitted & inheritable;
        for number in (0..64usize).filter(|number| ambient & (1 << number) != 0) {
            sys::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as usize, number)?;
        }
        Ok(())
    }

    pub(super) fn exec_label(&self, attribute: &CStr, label: &CStr) -> Result<(), Errno> {
        let proc = self.proc.as_ref().ok_or(Errno::NOENT)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let attributes = rustix::fs::openat(proc, c"thread-self/attr", flags, Mode::empty())?;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&attributes, attribute, flags, Mode::empty())?;
        rustix::io::write(&file, label.to_bytes()).map(drop)
    }
}

/// Writes `oom_score_adj` of this process. Where that may not be done, it may
/// have that value already.
pub(super) fn write_oom_score_adj(
    proc: std::os::fd::BorrowedFd<'_>,
    value: i32,
) -> Result<(), Errno> {
    let open = |flags| {
        rustix::fs::openat(proc, c"self/oom_score_adj", flags | OFlags::CLOEXEC, Mode::empty())
    };
    let mut digits = [0u8; 12];
    let wanted = decimal(&mut digits, i64::from(value));
    let mut buffer = [0u8; 16];
    let written = open(OFlags::WRONLY).and_then(|file| rustix::io::write(&file, wanted));
    if written.is_err()
        && let Ok(length) =
            open(OFlags::RDONLY).and_then(|file| rustix::io::read(&file, &mut buffer))
        && buffer.get(..length).unwrap_or(&[]).trim_ascii() == wanted
    {
        return Ok(());
    }
    written.map(drop)
}

/// A number as text at the end of a buffer.
pub(super) fn decimal(buffer: &mut [u8], value: i64) -> &[u8] {
    let mut rest = value.unsigned_abs();
    let mut start = buffer.len();
    loop {
        start = start.saturating_sub(1);
        if let Some(digit) = buffer.get_mut(start) {
            *digit = b'0' + (rest % 10) as u8;
        }
        rest /= 10;
        if rest == 0 || start == 0 {
            break;
        }
    }
    if value < 0 && start > 0 {
        start -= 1;
        if let Some(sign) = buffer.get_mut(start) {
            *sign = b'-';
        }
    }
    buffer.get(start..).unwrap_or(&[])
}

fn set_groups(groups: &[u32]) -> Result<(), Errno> {
    // SAFETY: the pointer leads to as many numbers as the count says.
    sys::check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })
        .map(drop)
}

/// All three ids of each; of this thread, which is the only one.
fn set_ids(uid: u32, gid: u32) -> Result<(), Errno> {
    // SAFETY: both take numbers.
    sys::check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: as above.
    sys::check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

struct Sets {
    effective: u64,
    permitted: u64,
    inheritable: u64,
}

/// `_LINUX_CAPABILITY_VERSION_3`, for this process.
const CAP_HEADER: [u32; 2] = [0x2008_0522, 0];

fn cap_get() -> Result<Sets, Errno> {
    let mut data = [[0u32; 3]; 2];
    // SAFETY: version 3 writes two structures of three numbers.
    sys::check(unsafe { libc::syscall(libc::SYS_capget, CAP_HEADER.as_ptr(), data.as_mut_ptr()) })?;
    let [low, high] = data;
    let join = |index: usize| {
        let (low, high) = (low.get(index), high.get(index));
        u64::from(low.copied().unwrap_or(0)) | u64::from(high.copied().unwrap_or(0)) << 32
    };
    Ok(Sets { effective: join(0), permitted: join(1), inheritable: join(2) })
}

fn cap_set(sets: &Sets) -> Result<(), Errno> {
    let part = |shift: u32| {
        [sets.effective, sets.permitted, sets.inheritable].map(|set| (set >> shift) as u32)
    };
    let data = [part(0), part(32)];
    // SAFETY: version 3 reads two structures of three numbers.
    sys::check(unsafe { libc::syscall(libc::SYS_capset, CAP_HEADER.as_ptr(), data.as_ptr()) })
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn numbers_as_text() {
        for value in [0, 7, -1, -1000, 4_194_304, i64::from(i32::MIN)] {
            assert_eq!(decimal(&mut [0; 24], value), value.to_string().as_bytes());
        }
    }
}
