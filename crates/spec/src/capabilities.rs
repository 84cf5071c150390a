//! Capability names and numbers, and the sets of a container.

use crate::error::{Error, Result};
use crate::oci::LinuxCapabilities;
use crate::request::Security;

/// Names by number (`linux/capability.h`); the index is the number.
pub const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What a container has when nothing is said: the set that Docker, containerd
/// and CRI-O settled on.
pub const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// All capabilities that we know by name.
pub const ALL: u64 = (1 << NAMES.len()) - 1;

/// The bit of `CAP_SYS_ADMIN`.
pub const SYS_ADMIN: u64 = 1 << 21;

/// The bit of a capability, with or without `CAP_`, in any case.
pub fn bit(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| known.strip_prefix("CAP_") == Some(bare)).map(|at| 1 << at)
}

/// The bits of a list of names. Names that we do not know have none.
pub fn bits<S: AsRef<str>>(names: &[S]) -> u64 {
    names.iter().filter_map(|name| bit(name.as_ref())).fold(0, |set, bit| set | bit)
}

/// The names of a set, by rising number.
pub fn names(set: u64) -> Vec<String> {
    let has = |at: &usize| set & (1 << at) != 0;
    (0..NAMES.len()).filter(has).map(|at| NAMES[at].to_owned()).collect()
}

/// The sets of a container: defaults, then `ALL`, then single additions, then
/// single drops, cut to what the machine has.
///
/// Inheritable stays empty but for ambient ones: a program with inheritable
/// file capabilities must not gain by it (CVE-2022-24769).
pub fn of_container(
    security: &Security,
    defaults: &[String],
    machine: u64,
) -> Result<LinuxCapabilities> {
    let mut set = if security.privileged { machine } else { bits(defaults) };
    let is_all = |name: &&String| name.eq_ignore_ascii_case("ALL");
    if security.add_capabilities.iter().any(|name| is_all(&name)) {
        set = ALL;
    }
    if security.drop_capabilities.iter().any(|name| is_all(&name)) {
        set = 0;
    }
    set |= named(&security.add_capabilities)?;
    let ambient = named(&security.add_ambient_capabilities)?;
    set |= ambient;
    set &= !named(&security.drop_capabilities)?;
    set &= machine;
    let ambient = ambient & set;
    Ok(LinuxCapabilities {
        bounding: names(set),
        effective: names(set),
        permitted: names(set),
        inheritable: names(ambient),
        ambient: names(ambient),
    })
}

fn named(list: &[String]) -> Result<u64> {
    let mut set = 0;
    for name in list.iter().filter(|name| !name.eq_ignore_ascii_case("ALL")) {
        set |= bit(name).ok_or_else(|| {
            Error::invalid("capability", name.as_str(), "there is no such capability")
        })?;
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn set_of(security: &Security, machine: u64) -> Vec<String> {
        of_container(security, &strings(&DEFAULT), machine).unwrap().effective
    }

    #[test]
    fn names_and_numbers_agree_with_the_kernel() {
        assert_eq!(bit("CAP_SYS_ADMIN"), Some(SYS_ADMIN));
        assert_eq!(bit("sys_admin"), Some(SYS_ADMIN));
        assert_eq!(bit("CAP_CHECKPOINT_RESTORE"), Some(1 << 40));
        assert_eq!(bit("CAP_NOTHING"), None);
    }

    #[test]
    fn all_then_single_ones() {
        let drop_all = Security {
            drop_capabilities: strings(&["all"]),
            add_capabilities: strings(&["NET_ADMIN"]),
            ..Security::default()
        };
        assert_eq!(set_of(&drop_all, ALL), ["CAP_NET_ADMIN"]);
        let add_all = Security {
            add_capabilities: strings(&["ALL"]),
            drop_capabilities: strings(&["CAP_SYS_ADMIN"]),
            ..Security::default()
        };
        assert_eq!(bits(&set_of(&add_all, ALL)), ALL & !SYS_ADMIN);
    }

    #[test]
    fn what_the_machine_lacks_is_left_out() {
        let privileged = Security { privileged: true, ..Security::default() };
        let machine = ALL & !bit("SYS_RESOURCE").unwrap();
        assert_eq!(bits(&set_of(&privileged, machine)), machine);
    }

    #[test]
    fn ambient_ones_are_inheritable_too() {
        let security =
            Security { add_ambient_capabilities: strings(&["NET_ADMIN"]), ..Security::default() };
        let sets = of_container(&security, &[], ALL).unwrap();
        assert_eq!(sets.ambient, ["CAP_NET_ADMIN"]);
        assert_eq!(sets.inheritable, sets.ambient);
        assert_eq!(sets.permitted, sets.ambient);
    }

    #[test]
    fn unknown_names_are_refused() {
        let security =
            Security { add_capabilities: strings(&["SYS_ADMNI"]), ..Security::default() };
        assert!(of_container(&security, &[], ALL).is_err());
    }
}
