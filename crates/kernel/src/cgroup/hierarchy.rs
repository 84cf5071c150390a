//! Which hierarchies are mounted, and which controllers each has.

use std::path::PathBuf;

use rustix::io::Errno;

use super::file::Directory;
use crate::{Context as _, Error, Result};

/// A controller that Corten uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// Processor time.
    Cpu,
    /// Processor time used; part of [`Controller::Cpu`] on v2.
    Cpuacct,
    /// Processors and memory nodes.
    Cpuset,
    /// Memory and swap.
    Memory,
    /// Numbers of processes.
    Pids,
    /// Huge pages.
    Hugetlb,
    /// Disks (v1 calls it blkio).
    Io,
    /// RDMA handles.
    Rdma,
    /// Access to devices; a BPF program on v2.
    Devices,
    /// Stopping processes; part of every v2 group.
    Freezer,
}

impl Controller {
    const ALL: [Controller; 10] = [
        Controller::Cpu,
        Controller::Cpuacct,
        Controller::Cpuset,
        Controller::Memory,
        Controller::Pids,
        Controller::Hugetlb,
        Controller::Io,
        Controller::Rdma,
        Controller::Devices,
        Controller::Freezer,
    ];

    fn v1_name(self) -> &'static str {
        match self {
            Controller::Cpu => "cpu",
            Controller::Cpuacct => "cpuacct",
            Controller::Cpuset => "cpuset",
            Controller::Memory => "memory",
            Controller::Pids => "pids",
            Controller::Hugetlb => "hugetlb",
            Controller::Io => "blkio",
            Controller::Rdma => "rdma",
            Controller::Devices => "devices",
            Controller::Freezer => "freezer",
        }
    }

    /// `None` for what v2 does without a controller.
    fn v2_name(self) -> Option<&'static str> {
        match self {
            Controller::Io => Some("io"),
            Controller::Cpuacct | Controller::Devices | Controller::Freezer => None,
            other => Some(other.v1_name()),
        }
    }
}

/// One v1 hierarchy.
#[derive(Debug)]
pub(super) struct Old {
    pub mount: PathBuf,
    /// The options that choose it: `cpu,cpuacct`, `name=systemd`.
    pub options: String,
    pub controllers: Vec<Controller>,
}

/// The v2 hierarchy.
#[derive(Debug)]
pub(super) struct Unified {
    pub mount: PathBuf,
    /// The controllers that are not bound to a v1 hierarchy, among those that
    /// Corten knows.
    pub controllers: Vec<Controller>,
}

/// Everything that is mounted.
#[derive(Debug)]
pub(super) struct Hierarchies {
    pub v1: Vec<Old>,
    pub unified: Option<Unified>,
}

/// One line of mountinfo that is a cgroup mount.
struct Mount {
    point: PathBuf,
    from_root: bool,
    unified: bool,
    options: String,
}

impl Hierarchies {
    pub fn probe() -> Result<Self> {
        let mountinfo = "/proc/self/mountinfo";
        let text = std::fs::read_to_string(mountinfo).context("read", || mountinfo)?;
        let mut found = Self::from_mountinfo(&text);
        if let Some(unified) = &mut found.unified {
            let root = Directory::new(&unified.mount, "");
            unified.controllers = known(&root.read("cgroup.controllers")?);
        }
        if found.v1.is_empty() && found.unified.is_none() {
            return Err(Error::new(
                "find",
                "a cgroup hierarchy in /proc/self/mountinfo",
                Errno::NOENT,
            ));
        }
        Ok(found)
    }

    /// The hierarchies of a mountinfo text. A hierarchy may be mounted several
    /// times: a mount of its root is preferred, then the first.
    pub fn from_mountinfo(text: &str) -> Self {
        let mut mounts: Vec<Mount> = text.lines().filter_map(parse_line).collect();
        mounts.sort_by_key(|mount| !mount.from_root);
        let mut found = Self { v1: Vec::new(), unified: None };
        for mount in mounts {
            if mount.unified {
                found
                    .unified
                    .get_or_insert(Unified { mount: mount.point, controllers: Vec::new() });
            } else if !found.v1.iter().any(|old| old.options == mount.options) {
                let controllers = Controller::ALL
                    .into_iter()
                    .filter(|one| mount.options.split(',').any(|name| name == one.v1_name()))
                    .collect();
                found.v1.push(Old { mount: mount.point, options: mount.options, controllers });
            }
        }
        found
    }

    /// The v1 hierarchy that has a controller.
    pub fn old(&self, controller: Controller) -> Option<&Old> {
        self.v1.iter().find(|old| old.controllers.contains(&controller))
    }

    /// Whether v2 does this: it has the controller, or needs none for it and
    /// v1 does not have it either.
    pub fn unified_has(&self, controller: Controller) -> bool {
        self.unified.as_ref().is_some_and(|unified| match controller.v2_name() {
            Some(_) => unified.controllers.contains(&controller),
            None => self.old(controller).is_none(),
        })
    }

    pub fn directories(&self, path: &str) -> Vec<Directory> {
        let mounts = self.v1.iter().map(|old| &old.mount);
        let unified = self.unified.iter().map(|unified| &unified.mount);
        mounts.chain(unified).map(|mount| Directory::new(mount, path)).collect()
    }

    pub fn summary(&self) -> String {
        let names = |list: &[Controller]| {
            let names: Vec<_> = list.iter().map(|one| one.v1_name()).collect();
            if names.is_empty() { "no controllers".to_owned() } else { names.join(", ") }
        };
        let old: Vec<_> = self.v1.iter().flat_map(|old| old.controllers.iter().copied()).collect();
        match &self.unified {
            Some(unified) if self.v1.is_empty() => {
                format!("cgroup v2: {}", names(&unified.controllers))
            }
            Some(unified) => {
                format!("cgroup v1: {}; v2: {}", names(&old), names(&unified.controllers))
            }
            None => format!("cgroup v1: {}", names(&old)),
        }
    }
}

fn known(names: &str) -> Vec<Controller> {
    let names: Vec<&str> = names.split_whitespace().collect();
    Controller::ALL
        .into_iter()
        .filter(|one| one.v2_name().is_some_and(|name| names.contains(&name)))
        .collect()
}

/// The names of v2 controllers that are to be handed down to groups.
pub(super) fn delegated(unified: &Unified) -> impl Iterator<Item = &'static str> {
    unified.controllers.iter().filter_map(|one| one.v2_name())
}

/// `36 35 0:30 <root> <point> <options> <optional fields> - <type> <source> <super options>`
fn parse_line(line: &str) -> Option<Mount> {
    let (front, back) = line.split_once(" - ")?;
    let mut front = front.split(' ').skip(3);
    let (root, point) = (front.next()?, front.next()?);
    let mut back = back.split(' ');
    let unified = match back.next()? {
        "cgroup" => false,
        "cgroup2" => true,
        _ => return None,
    };
    let chooses = |option: &&str| {
        option.starts_with("name=")
            || !(matches!(*option, "rw" | "ro" | "none" | "xattr" | "noprefix" | "clone_children")
                || matches!(*option, "cpuset_v2_mode" | "favordynmods")
                || option.contains('='))
    };
    let options: Vec<&str> = back.nth(1)?.split(',').filter(chooses).collect();
    Some(Mount {
        point: unescape(point).into(),
        from_root: root == "/",
        unified,
        options: options.join(","),
    })
}

/// mountinfo writes blanks and backslashes in octal.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
36 31 0:33 /docker/1 /mnt/a\\040b rw,relatime - cgroup cgroup rw,devices
37 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";

    #[test]
    fn hybrid() {
        let found = Hierarchies::from_mountinfo(HYBRID);
        let options: Vec<_> = found.v1.iter().map(|old| old.options.as_str()).collect();
        assert_eq!(options, ["cpu,cpuacct", "devices", "name=systemd"]);
        assert_eq!(found.v1[0].controllers, [Controller::Cpu, Controller::Cpuacct]);
        assert_eq!(found.v1[1].mount, PathBuf::from("/sys/fs/cgroup/devices"));
        assert!(found.unified_has(Controller::Freezer));
        assert!(!found.unified_has(Controller::Devices));
        assert!(!found.unified_has(Controller::Hugetlb), "not read yet");
    }

    #[test]
    fn unified() {
        let line = "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,memory_recursiveprot";
        let mut found = Hierarchies::from_mountinfo(line);
        assert!(found.v1.is_empty());
        found.unified.as_mut().unwrap().controllers = known("cpuset cpu io memory misc");
        assert!(found.unified_has(Controller::Devices));
        assert!(found.unified_has(Controller::Io));
        assert!(!found.unified_has(Controller::Pids));
        assert_eq!(found.summary(), "cgroup v2: cpu, cpuset, memory, blkio");
    }
}
