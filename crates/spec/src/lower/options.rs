//! Mount options as of fstab, taken apart: attributes, propagation, and what
//! is left for the filesystem.

use corten_kernel::launch::{MountAttributes, Propagation};

// linux/mount.h
const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;
const ATIME_MASK: u64 = 0x70;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const NODIRATIME: u64 = 0x80;
const NOSYMFOLLOW: u64 = 0x20_0000;

/// Options of one mount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Of the mount itself.
    pub(super) attributes: MountAttributes,
    /// Of the mount and everything below.
    pub(super) recursive: MountAttributes,
    /// Propagation after mounting.
    pub(super) propagation: Option<Propagation>,
    /// A bind.
    pub(super) bind: bool,
    /// With everything below.
    pub(super) recursive_bind: bool,
    /// Idmap all below too.
    pub(super) recursive_idmap: bool,
    /// Copy what the image has there into a new tmpfs.
    pub(super) copy_up: bool,
    /// For the filesystem.
    pub(super) data: Vec<String>,
}

impl Options {
    pub(super) fn parse(options: &[String]) -> Self {
        let mut parsed = Self {
            recursive: MountAttributes { recursive: true, ..Default::default() },
            ..Default::default()
        };
        for option in options {
            if !parsed.known(option) {
                parsed.data.push(option.clone());
            }
        }
        parsed
    }

    pub(super) fn is_readonly(&self) -> bool {
        self.attributes.set & RDONLY != 0
    }

    /// The same, but writable: for what must be filled before it is closed.
    pub(super) fn writable(mut self) -> Self {
        self.attributes.set &= !RDONLY;
        self
    }

    fn known(&mut self, option: &str) -> bool {
        if let Some((set, clear)) = attribute(option) {
            self.attributes.set = self.attributes.set & !clear | set;
            self.attributes.clear = self.attributes.clear & !set | clear;
            return true;
        }
        // `rro`, `rnosuid` and so on: the same, for everything below too.
        if let Some((set, clear)) = option.strip_prefix('r').and_then(attribute) {
            self.recursive.set = self.recursive.set & !clear | set;
            self.recursive.clear = self.recursive.clear & !set | clear;
            return true;
        }
        match option {
            "bind" => self.bind = true,
            "rbind" => {
                self.bind = true;
                self.recursive_bind = true;
            }
            "private" | "rprivate" => self.propagation = Some(Propagation::Private),
            "slave" | "rslave" => self.propagation = Some(Propagation::Slave),
            "shared" | "rshared" => self.propagation = Some(Propagation::Shared),
            "unbindable" | "runbindable" => self.propagation = Some(Propagation::Unbindable),
            "tmpcopyup" => self.copy_up = true,
            "ridmap" => self.recursive_idmap = true,
            "idmap" | "defaults" => {}
            _ => return false,
        }
        true
    }
}

/// The same option for the mount alone: `ro` of `rro`.
pub(super) fn not_recursive(option: &str) -> &str {
    match option.strip_prefix('r') {
        Some(alone) if attribute(option).is_none() && attribute(alone).is_some() => alone,
        _ => option,
    }
}

/// Bits to set and to clear. One kind of access times excludes the others, so
/// their whole field is cleared first, as `mount_setattr` wants it.
fn attribute(option: &str) -> Option<(u64, u64)> {
    Some(match option {
        "ro" => (RDONLY, 0),
        "rw" => (0, RDONLY),
        "nosuid" => (NOSUID, 0),
        "suid" => (0, NOSUID),
        "nodev" => (NODEV, 0),
        "dev" => (0, NODEV),
        "noexec" => (NOEXEC, 0),
        "exec" => (0, NOEXEC),
        "noatime" => (NOATIME, ATIME_MASK),
        "strictatime" => (STRICTATIME, ATIME_MASK),
        "relatime" | "atime" | "nostrictatime" => (0, ATIME_MASK),
        "nodiratime" => (NODIRATIME, 0),
        "diratime" => (0, NODIRATIME),
        "nosymfollow" => (NOSYMFOLLOW, 0),
        "symfollow" => (0, NOSYMFOLLOW),
        // The kernel no longer knows these, or acts as if they were there.
        "async" | "noiversion" | "silent" | "loud" | "nomand" => (0, 0),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Options {
        Options::parse(&options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn flags_and_data_are_told_apart() {
        let options = parse(&["nosuid", "strictatime", "mode=755", "size=65536k", "ro", "rw"]);
        assert_eq!(options.attributes.set, NOSUID | STRICTATIME);
        // The kernel wants the whole field of access times cleared, or nothing of it.
        assert_eq!(options.attributes.clear, ATIME_MASK | RDONLY);
        assert_eq!(options.data, ["mode=755", "size=65536k"]);
    }

    #[test]
    fn recursive_ones_and_words_that_only_begin_alike() {
        let options = parse(&["rbind", "rro", "rslave", "relatime", "rnoexec"]);
        assert_eq!(options.recursive.set, RDONLY | NOEXEC);
        assert!(options.recursive.recursive && options.bind && options.recursive_bind);
        assert_eq!(options.propagation, Some(Propagation::Slave));
        assert_eq!(options.attributes.clear, ATIME_MASK);
        assert!(options.data.is_empty());
        let alone = ["rro", "rbind", "relatime", "rw", "rnosuid"].map(not_recursive);
        assert_eq!(alone, ["ro", "rbind", "relatime", "rw", "nosuid"]);
    }
}
