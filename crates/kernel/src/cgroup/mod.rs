//! Control groups, each controller where this machine has it: in the unified
//! (v2) hierarchy or in one of the old (v1) ones.
//!
//! A group has one path, `/kubepods/besteffort/pod7/c1`, that is the same in
//! every hierarchy. [`Cgroups`] knows the hierarchies, [`Group`] is one path
//! in all of them.

mod bpf;
mod devices;
mod file;
mod gate;
mod group;
mod hierarchy;
mod program;
mod remove;
mod resources;
mod stats;
mod undo;
mod v1;
mod v2;

use std::sync::Arc;

use corten_base::limits::PATH_BYTES_MAX;
use rustix::io::Errno;

pub use devices::{DeviceKind, DeviceRule};
pub use gate::{Gate, Pass, Surplus};
pub use group::{Entry, Group};
pub use hierarchy::Controller;
pub use resources::{HugepageLimit, IoLimit, IoLimitKind, Resources};
pub use stats::{Cpu, Hugepages, Io, Memory, Pids, Pressure, PressureLine, Stats};
pub use undo::Undo;

use crate::{Error, Result};
use file::Directory;
use hierarchy::Hierarchies;

/// The hierarchies of this machine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cgroups {
    hierarchies: Arc<Hierarchies>,
}

impl Cgroups {
    /// Finds the mounted hierarchies and which controllers each has.
    pub fn probe() -> Result<Self> {
        let hierarchies = Hierarchies::probe()?;
        Ok(Self { hierarchies: Arc::new(hierarchies) })
    }

    /// Whether there is nothing but the unified hierarchy.
    pub fn is_unified(&self) -> bool {
        self.hierarchies.v1.is_empty()
    }

    /// The names of the v1 hierarchies below /sys/fs/cgroup, `cpu,cpuacct` or
    /// `systemd`. Empty on a unified machine.
    pub fn v1_hierarchies(&self) -> Vec<String> {
        let name = |options: &str| options.strip_prefix("name=").unwrap_or(options).to_owned();
        self.hierarchies.v1.iter().map(|hierarchy| name(&hierarchy.options)).collect()
    }

    /// Whether this machine can control the thing at all, v1 or v2.
    pub fn has(&self, controller: Controller) -> bool {
        self.hierarchies.unified_has(controller) || self.hierarchies.old(controller).is_some()
    }

    /// One line for people: which controllers lie where.
    pub fn summary(&self) -> String {
        self.hierarchies.summary()
    }

    /// Makes the group in every hierarchy, with its parents, and sets its
    /// limits. A group that is there already is taken and set. When a limit
    /// cannot be set, what this call made is left to [`Cgroups::remove`].
    pub fn create(&self, path: &str, resources: &Resources) -> Result<Group> {
        let path = checked(path)?;
        for hierarchy in &self.hierarchies.v1 {
            v1::make(hierarchy, path)?;
        }
        if let Some(unified) = &self.hierarchies.unified {
            v2::make(unified, path)?;
        }
        let group = self.group(path);
        group.set(resources)?;
        Ok(group)
    }

    /// The group at a path, without looking whether it is there.
    pub fn open(&self, path: &str) -> Result<Group> {
        checked(path).map(|path| self.group(path))
    }

    /// Whether the group is there in any hierarchy.
    pub fn exists(&self, path: &str) -> Result<bool> {
        let path = checked(path)?;
        Ok(self.directories(path).iter().any(Directory::exists))
    }

    /// The names of the groups right below this one, in any hierarchy, sorted.
    /// Here `/` is allowed.
    pub fn children(&self, path: &str) -> Result<Vec<String>> {
        let path = if path == "/" { "" } else { checked(path)? };
        let mut names = Vec::new();
        for directory in self.directories(path) {
            names.extend(directory.children()?);
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Removes the group and everything below it from every hierarchy. What is
    /// gone already is no error. Processes must have left: nothing is killed.
    pub fn remove(&self, path: &str) -> Result<()> {
        let path = checked(path)?;
        remove::trees(&self.directories(path))
    }

    /// As [`Cgroups::remove`], but what still runs in it is killed. Mostly
    /// nothing does, and then nobody is looked for.
    pub fn clear(&self, path: &str) -> Result<()> {
        let path = checked(path)?;
        let directories = self.directories(path);
        if remove::all_empty(&directories) {
            return Ok(());
        }
        self.group(path).kill(rustix::process::Signal::KILL)?;
        remove::trees(&directories)
    }

    fn group(&self, path: &str) -> Group {
        Group::new(Arc::clone(&self.hierarchies), path)
    }

    fn directories(&self, path: &str) -> Vec<Directory> {
        self.hierarchies.directories(path)
    }
}

/// A path of a group: absolute, not the root, without `.`, `..` or empty parts.
fn checked(path: &str) -> Result<&str> {
    let plain = |part: &str| {
        !part.is_empty() && part != "." && part != ".." && !part.contains(['\0', '\n'])
    };
    match path.strip_prefix('/') {
        Some(rest) if path.len() < PATH_BYTES_MAX && rest.split('/').all(plain) => Ok(path),
        _ => Err(Error::new("use", format!("cgroup path {path:?}"), Errno::INVAL)),
    }
}

#[cfg(test)]
mod tests;
