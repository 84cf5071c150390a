//! Kernel settings of namespaces.
//!
//! What /proc/sys shows depends on who looks. The kernel remembers what it has
//! shown of each network namespace, all of it under one name in one table: where
//! there are a thousand pods, whoever opens such a file passes a thousand others.
//! So files are opened in a procfs of our own, and in a new one now and then.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{CWD, Mode, OFlags};

use crate::launch::MountAttributes;
use crate::{Context as _, Result, mount};

/// A new procfs costs as much as to pass a few hundred others.
const USES_MAX: u32 = 64;

/// Writes settings.
#[derive(Debug, Default)]
pub struct Sysctls {
    own: Mutex<Own>,
}

#[derive(Debug, Default)]
struct Own {
    /// The root of a procfs; none before the first use, and where the kernel
    /// makes none for us.
    directory: Option<Arc<OwnedFd>>,
    uses: u32,
}

impl Sysctls {
    /// Sets a setting of the namespaces of the calling thread; `path` is below
    /// /proc/sys.
    ///
    /// # Errors
    /// If there is no such setting, or the kernel does not take the value.
    pub fn write(&self, path: &str, value: &str) -> Result<()> {
        let object = || format!("/proc/sys/{path}");
        let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
        let opened = match self.directory() {
            Some(own) => rustix::fs::openat(&*own, format!("sys/{path}"), flags, Mode::empty()),
            None => rustix::fs::openat(CWD, object(), flags, Mode::empty()),
        };
        let file = opened.context("open", object)?;
        // The kernel takes a setting whole or not at all.
        rustix::io::write(&file, value.as_bytes()).context("write", object).map(drop)
    }

    fn directory(&self) -> Option<Arc<OwnedFd>> {
        let (due, known) = {
            let mut own = self.own();
            let due = own.uses.is_multiple_of(USES_MAX);
            own.uses = own.uses.wrapping_add(1);
            (due, own.directory.clone())
        };
        if !due {
            return known;
        }
        // Others go on with the old one meanwhile, whose end takes a moment.
        let made = mount::new_filesystem("proc", &[], MountAttributes::default());
        let new = made.ok().map(Arc::new);
        self.own().directory.clone_from(&new);
        new
    }

    /// What is in it is never half changed.
    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{in_network_namespace, make_namespace_set};
    use std::os::fd::AsFd as _;

    #[test]
    fn each_namespace_has_its_own() {
        const PATH: &str = "net/ipv4/ip_unprivileged_port_start";
        let sysctls = Sysctls::default();
        let sets: Vec<_> = (0..2).map(|_| make_namespace_set().unwrap()).collect();
        let inside = |set: usize, work: &(dyn Fn() -> Result<()> + Sync)| {
            in_network_namespace(sets[set].net.as_fd(), work)
        };
        for round in 0..USES_MAX {
            for set in 0..sets.len() {
                let value = (round + 100 * set as u32).to_string();
                inside(set, &|| sysctls.write(PATH, &value)).unwrap();
                inside(set, &|| {
                    let there = std::fs::read_to_string(format!("/proc/sys/{PATH}")).unwrap();
                    assert_eq!(there.trim(), value);
                    Ok(())
                })
                .unwrap();
            }
        }
        let refused = inside(0, &|| sysctls.write(PATH, "x")).unwrap_err();
        assert_eq!(refused.errno, crate::Errno::INVAL);
        let missing = inside(0, &|| sysctls.write("net/ipv4/none", "1")).unwrap_err();
        assert_eq!(missing.errno, crate::Errno::NOENT);
    }
}
