//! Addresses of pods, remembered in files for the next daemon.
//!
//! A lease is a symbolic link named after the address whose target is the
//! sandbox id: made in one step, never half written, refused where one exists.
//! A crash therefore leaves a lease that names its sandbox, and reconciling
//! frees it. The IPv4 and IPv6 address of a pod have the same number within
//! their subnets, so one lease stands for both.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use corten_base::SandboxId;
use corten_kernel::Errno;

use crate::error::FileContext;
use crate::{Error, IpNet, Result};

/// The first number that a pod may have: 0 is the network, 1 the gateway.
const FIRST: u32 = 2;
/// No subnet gives out more numbers than this.
const NUMBERS_MAX: u128 = 1 << 24;
/// Name of the file that says which number was given out last.
const CURSOR: &str = ".last";

/// The leases of one bridge.
#[derive(Debug)]
pub(super) struct Leases {
    directory: PathBuf,
    /// Names the files; the first subnet of the bridge.
    subnet: IpNet,
    /// One more than the highest number.
    end: u32,
    numbers: HashMap<SandboxId, u32>,
    owners: BTreeMap<u32, SandboxId>,
    /// Leases of sandboxes that were attached since this daemon began.
    fresh: HashSet<SandboxId>,
    last: u32,
}

impl Leases {
    /// Reads the leases in `directory`, which is made if need be.
    pub(super) fn load(directory: PathBuf, subnets: &[IpNet]) -> Result<Self> {
        std::fs::create_dir_all(&directory).file("make", &directory)?;
        let Some(subnet) = subnets.first().copied() else {
            return Err(Error::Settings("there is no subnet".to_owned()));
        };
        // The last number of an IPv4 subnet is its broadcast address.
        let size = subnets.iter().map(|subnet| subnet.size()).min().unwrap_or(0).min(NUMBERS_MAX);
        let end = (size as u32).saturating_sub(1);
        if end <= FIRST {
            return Err(Error::Settings(format!("the subnet {subnet} has no room for pods")));
        }
        let mut leases = Self {
            directory,
            subnet,
            end,
            numbers: HashMap::new(),
            owners: BTreeMap::new(),
            fresh: HashSet::new(),
            last: FIRST - 1,
        };
        leases.read()?;
        Ok(leases)
    }

    fn read(&mut self) -> Result<()> {
        let entries = std::fs::read_dir(&self.directory).file("list", &self.directory)?;
        for entry in entries {
            let entry = entry.file("list", &self.directory)?;
            let Some(number) = entry.file_name().to_str().and_then(|name| self.number_of(name))
            else {
                continue;
            };
            let owner = std::fs::read_link(entry.path())
                .ok()
                .and_then(|target| target.to_str()?.parse::<SandboxId>().ok());
            if let Some(owner) = owner {
                self.numbers.insert(owner.clone(), number);
                self.owners.insert(number, owner);
            }
        }
        let cursor = std::fs::read_link(self.directory.join(CURSOR)).ok();
        if let Some(number) = cursor.and_then(|name| self.number_of(name.to_str()?)) {
            self.last = number;
        }
        Ok(())
    }

    /// The number leased to a sandbox.
    pub(super) fn find(&self, sandbox: &SandboxId) -> Option<u32> {
        self.numbers.get(sandbox).copied()
    }

    /// The sandbox that has a number.
    pub(super) fn owner(&self, number: u32) -> Option<&SandboxId> {
        self.owners.get(&number)
    }

    /// Leases a number to a sandbox. Numbers are given out in turn, so that
    /// one that was just freed rests as long as possible.
    pub(super) fn take(&mut self, sandbox: &SandboxId) -> Result<u32> {
        if let Some(number) = self.find(sandbox) {
            self.fresh.insert(sandbox.clone());
            return Ok(number);
        }
        let turn = (self.last + 1).clamp(FIRST, self.end);
        for number in (turn..self.end).chain(FIRST..turn) {
            if self.owners.contains_key(&number) {
                continue;
            }
            let path = self.path(number);
            match rustix::fs::symlink(sandbox.as_str(), &path) {
                Ok(()) => {
                    self.numbers.insert(sandbox.clone(), number);
                    self.owners.insert(number, sandbox.clone());
                    self.fresh.insert(sandbox.clone());
                    self.remember(number);
                    return Ok(number);
                }
                // Something that is no lease of ours: leave it alone.
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno).file("lease the address", path),
            }
        }
        Err(Error::NoFreeAddress {
            subnet: self.subnet.to_string(),
            count: u64::from(self.end - FIRST),
        })
    }

    /// Frees the number of a sandbox.
    pub(super) fn release(&mut self, sandbox: &SandboxId) -> Result<()> {
        let Some(number) = self.find(sandbox) else { return Ok(()) };
        let path = self.path(number);
        match rustix::fs::unlink(&path) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno).file("free the address", path),
        }
        self.numbers.remove(sandbox);
        self.owners.remove(&number);
        self.fresh.remove(sandbox);
        Ok(())
    }

    /// The sandboxes that have leases from before this daemon and are not
    /// among those to keep.
    pub(super) fn abandoned(&self, keep: &HashSet<&SandboxId>) -> Vec<SandboxId> {
        let abandoned = |id: &&SandboxId| !keep.contains(*id) && !self.fresh.contains(*id);
        self.numbers.keys().filter(abandoned).cloned().collect()
    }

    /// Makes the next number known to the next daemon. Only a courtesy: losing
    /// it may make a number rest for less long.
    fn remember(&mut self, number: u32) {
        self.last = number;
        let path = self.directory.join(CURSOR);
        let fresh = self.directory.join(".next");
        let _ = rustix::fs::unlink(&fresh);
        let name = self.subnet.host(number.into()).to_string();
        if rustix::fs::symlink(name.as_str(), &fresh).is_ok() {
            let _ = rustix::fs::rename(&fresh, &path);
        }
    }

    fn path(&self, number: u32) -> PathBuf {
        self.directory.join(self.subnet.host(number.into()).to_string())
    }

    fn number_of(&self, name: &str) -> Option<u32> {
        let number = u32::try_from(self.subnet.index_of(name.parse().ok()?)?).ok()?;
        (FIRST..self.end).contains(&number).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> SandboxId {
        SandboxId::from_random([byte; 32])
    }

    #[test]
    fn leases_survive_and_rest() {
        let directory = tempfile::tempdir().unwrap();
        let subnets = ["10.1.0.0/29".parse().unwrap(), "fd00::/64".parse().unwrap()];
        let load = || Leases::load(directory.path().join("br"), &subnets).unwrap();
        let mut leases = load();
        assert_eq!(leases.take(&id(1)).unwrap(), 2);
        assert_eq!(leases.take(&id(1)).unwrap(), 2);
        assert_eq!(leases.take(&id(2)).unwrap(), 3);
        leases.release(&id(1)).unwrap();
        leases.release(&id(1)).unwrap();

        let mut leases = load();
        assert_eq!(leases.find(&id(2)), Some(3));
        assert_eq!(leases.find(&id(1)), None);
        for (byte, number) in [(3, 4), (4, 5), (5, 6), (6, 2)] {
            assert_eq!(leases.take(&id(byte)).unwrap(), number);
        }
        let full = leases.take(&id(7)).unwrap_err().to_string();
        assert!(full.contains("10.1.0.0/29: all 5 are in use"), "{full}");
        // What this daemon itself leased is never abandoned.
        assert_eq!(leases.abandoned(&HashSet::new()), [id(2)]);
        assert_eq!(leases.abandoned(&HashSet::from([&id(2)])), []);
        assert_eq!(load().abandoned(&HashSet::from([&id(2)])).len(), 4);
    }
}
