//! SELinux on this node: whether it confines containers, which categories are
//! taken, and labels put on files of the host.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use corten_base::limits::{RELABEL_DEPTH_MAX, RELABEL_ENTRIES_MAX, SELINUX_LABEL_BYTES_MAX};
use corten_spec::container::Labels;
use corten_spec::selinux::{self, Defaults};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, XattrFlags, getxattr, openat, setxattr};
use rustix::io::Errno;

use super::Inner;
use crate::error::{Error, Kind, Result};
use crate::table::{Container, Sandbox};

/// Where the kernel is asked whether a label means something.
const CHECK: &str = "/sys/fs/selinux/context";
const ATTRIBUTE: &str = "security.selinux";
/// Tries to find categories that no other pod has, of half a million pairs.
const TRIES: usize = 1000;
/// Directories of the host that must keep their labels, or nothing runs there.
const SYSTEM: [&str; 14] = [
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/proc", "/root", "/sbin",
    "/sys", "/usr", "/var",
];

/// What SELinux means to this node; none where it is off.
pub struct Selinux {
    defaults: Defaults,
    /// Levels of pods that are there.
    taken: Mutex<BTreeSet<String>>,
}

impl Selinux {
    /// Looks. A policy that knows no containers cannot confine any.
    pub fn probe() -> Option<Self> {
        if !Path::new("/sys/fs/selinux/enforce").exists() {
            return None;
        }
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let config = read("/etc/selinux/config");
        let name = config.lines().find_map(|line| line.strip_prefix("SELINUXTYPE="));
        let name = name.map_or("targeted", str::trim);
        let defaults = Defaults::read(&read(&format!("/etc/selinux/{name}/contexts/lxc_contexts")));
        let Labels { process, mount } = defaults.labels("s0");
        if !(is_known(&process) && is_known(&mount)) {
            tracing::warn!(
                process,
                "SELinux is on, but its policy knows no containers: they are not confined by it (install container-selinux)"
            );
            return None;
        }
        Some(Self { defaults, taken: Mutex::default() })
    }

    fn taken(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A level that no other pod has.
    fn choose(&self) -> Result<String> {
        let mut taken = self.taken();
        for _ in 0..TRIES {
            let [a, b, c, d, ..] = corten_kernel::random::bytes();
            let level = selinux::level(selinux::categories([a, b, c, d]));
            if taken.insert(level.clone()) {
                return Ok(level);
            }
        }
        let message = "no pair of SELinux categories is free: too many pods on this node";
        Err(Error::new(Kind::ResourceExhausted, message))
    }
}

/// Whether the policy that is loaded takes a label.
fn is_known(label: &str) -> bool {
    std::fs::write(CHECK, label).is_ok()
}

impl Inner {
    /// The level of a new pod: the one it asks for, or its own.
    pub(super) fn choose_level(&self, sandbox: &Sandbox) -> Result<String> {
        let Some(selinux) = &self.selinux else { return Ok(String::new()) };
        match sandbox.config.selinux.as_ref().map(|options| options.level.as_str()) {
            Some(level) if !level.is_empty() => Ok(level.to_owned()),
            Some(_) | None => selinux.choose(),
        }
    }

    /// The level of a pod that an earlier daemon made.
    pub(super) fn keep_level(&self, level: &str) {
        if let Some(selinux) = self.selinux.as_ref().filter(|_| !level.is_empty()) {
            selinux.taken().insert(level.to_owned());
        }
    }

    /// Another pod may have it. (One that was asked for may be shared by pods,
    /// and then goes from the list early: it is only asked for once more.)
    pub(super) fn release_level(&self, level: &str) {
        if let Some(selinux) = &self.selinux {
            selinux.taken().remove(level);
        }
    }

    /// The label of what a pod's containers share; empty where SELinux is off.
    pub(super) fn shared_label(&self, sandbox: &Sandbox) -> String {
        let level = sandbox.record.borrow().selinux_level.clone();
        match &self.selinux {
            Some(selinux) if !level.is_empty() => selinux.defaults.labels(&level).mount,
            Some(_) | None => String::new(),
        }
    }

    /// The labels of a container; none where SELinux is off.
    pub(super) fn labels(&self, container: &Container) -> Result<Option<Labels>> {
        let Some(selinux) = &self.selinux else { return Ok(None) };
        let level = container.sandbox.record.borrow().selinux_level.clone();
        // A pod from before SELinux was switched on.
        let level = if level.is_empty() { "s0" } else { &level };
        let security = &container.config.security;
        let labels = selinux.defaults.of_container(
            level,
            container.sandbox.config.selinux.as_ref(),
            security.selinux.as_ref(),
            security.privileged,
        );
        let labels = labels.map_err(|error| Error::invalid(error.to_string()))?;
        for label in [&labels.process, &labels.mount] {
            if !is_known(label) {
                return Err(Error::invalid(format!(
                    "unable to label the container {label:?}: this node's SELinux policy does not know that"
                )));
            }
        }
        Ok(Some(labels))
    }

    /// Gives the host's files below the mounts that ask for it the label of
    /// the container's own.
    pub(super) fn relabel(&self, container: &Container, labels: Option<&Labels>) -> Result<()> {
        let Some(labels) = labels else { return Ok(()) };
        let mounts = container.config.mounts.iter();
        for mount in mounts.filter(|mount| mount.selinux_relabel && mount.image.is_none()) {
            relabel(Path::new(&mount.host_path), &labels.mount)?;
        }
        Ok(())
    }
}

/// Labels a file or a tree. Its top comes last: a tree whose top has the label
/// was labelled to its end, and is not walked again (that can take minutes).
pub fn relabel(path: &Path, label: &str) -> Result<()> {
    let failed = |why: String| {
        Error::invalid(format!("unable to label {} for SELinux: {why}", path.display()))
    };
    let real = std::fs::canonicalize(path).map_err(|error| failed(error.to_string()))?;
    if SYSTEM.iter().any(|system| Path::new(system) == real) {
        return Err(failed("it is the system's; mount a directory below it".into()));
    }
    let top = openat(CWD, &real, ANY, Mode::empty()).map_err(|errno| failed(errno.to_string()))?;
    if label_of(&top).is_ok_and(|there| there == label) {
        return Ok(());
    }
    let mut left = RELABEL_ENTRIES_MAX;
    let work = walk(&top, label, &mut left, 0).and_then(|()| set_label(&top, label));
    match work {
        // A filesystem without labels has its own by the policy.
        Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(Errno::TOOBIG) => {
            Err(failed(format!("it has more than {RELABEL_ENTRIES_MAX} files, or is too deep")))
        }
        Err(errno) => Err(failed(errno.to_string())),
    }
}

const ANY: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What is below a directory; of a file nothing.
fn walk(at: &OwnedFd, label: &str, left: &mut u64, depth: usize) -> std::result::Result<(), Errno> {
    if FileType::from_raw_mode(rustix::fs::fstat(at)?.st_mode) != FileType::Directory {
        return Ok(());
    }
    let listing = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = Dir::new(openat(at, c".", listing, Mode::empty())?)?;
    for entry in directory {
        let entry = entry?;
        let name: &CStr = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        *left = left.checked_sub(1).filter(|_| depth < RELABEL_DEPTH_MAX).ok_or(Errno::TOOBIG)?;
        let below = match openat(at, name, ANY, Mode::empty()) {
            Err(Errno::NOENT) => continue,
            opened => opened?,
        };
        walk(&below, label, left, depth + 1)?;
        set_label(&below, label)?;
    }
    Ok(())
}

/// By the descriptor's name in /proc, since one that is good for paths alone
/// takes no attributes itself; so that no link leads elsewhere meanwhile.
fn by_fd(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

fn set_label(fd: &OwnedFd, label: &str) -> std::result::Result<(), Errno> {
    setxattr(by_fd(fd), ATTRIBUTE, label.as_bytes(), XattrFlags::empty())
}

fn label_of(fd: &OwnedFd) -> std::result::Result<String, Errno> {
    let mut bytes = [0; SELINUX_LABEL_BYTES_MAX];
    let length = getxattr(by_fd(fd), ATTRIBUTE, &mut bytes[..])?;
    Ok(String::from_utf8_lossy(&bytes[..length]).trim_end_matches('\0').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where SELinux is off the attribute is one like others.
    #[test]
    fn trees_are_labelled_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        std::fs::write(tree.join("a/b/file"), "").unwrap();
        std::fs::write(&outside, "").unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("link")).unwrap();
        let label = "system_u:object_r:container_file_t:s0:c1,c2";
        let get = |path: &Path| label_of(&openat(CWD, path, ANY, Mode::empty()).unwrap());
        if Path::new("/sys/fs/selinux/enforce").exists() {
            return;
        }
        relabel(&tree, label).unwrap();
        for name in ["", "a", "a/b", "a/b/file"] {
            assert_eq!(get(&tree.join(name)).as_deref(), Ok(label), "{name}");
        }
        assert!(get(&outside).is_err());
        // A tree that has it already is left alone.
        std::fs::write(tree.join("new"), "").unwrap();
        relabel(&tree, label).unwrap();
        assert!(get(&tree.join("new")).is_err());
        relabel(&tree, "system_u:object_r:container_file_t:s0:c3,c4").unwrap();
        assert!(get(&tree.join("new")).is_ok());
        assert!(relabel(Path::new("/usr/../etc"), label).is_err());
    }

    #[test]
    fn no_two_pods_have_the_same_categories() {
        let selinux = Selinux { defaults: Defaults::default(), taken: Mutex::default() };
        let levels: BTreeSet<_> = (0..500).map(|_| selinux.choose().unwrap()).collect();
        assert_eq!(levels.len(), 500);
    }
}
