//! AppArmor: the profile of containers that ask for no other, and the list of
//! what the kernel knows.

/// The name of our own profile.
pub const DEFAULT_NAME: &str = "corten-default";

/// Our own profile, as the parser takes it: no more than the kernel itself can
/// be asked for, so that it needs none of the files that distributions install.
///
/// What a container may do is decided by capabilities, namespaces and the
/// filter of system calls. This holds back what these let through: files of
/// /proc and /sys that change the machine for everybody, and mounts, where a
/// capability was granted that is wider than it sounds.
pub fn default_profile() -> String {
    let mut text = format!(
        "profile {DEFAULT_NAME} flags=(attach_disconnected,mediate_deleted) {{\n\
         \x20 file,\n  network,\n  capability,\n  umount,\n\
         \x20 # Its own processes; and whoever may signal it, may.\n\
         \x20 signal (receive),\n  signal (send) peer={DEFAULT_NAME},\n\
         \x20 ptrace (read,readby,trace,tracedby) peer={DEFAULT_NAME},\n\
         \x20 deny mount,\n"
    );
    for path in UNREADABLE {
        text += &format!("  deny {path} rwklx,\n");
    }
    for path in UNWRITABLE {
        text += &format!("  deny {path} wkl,\n");
    }
    text + "}\n"
}

/// What tells of memory and keys of the machine, or acts on it.
const UNREADABLE: [&str; 6] = [
    "/proc/kcore",
    "/proc/kmem",
    "/proc/mem",
    "/proc/sysrq-trigger",
    "/sys/kernel/security/**",
    "/sys/firmware/**",
];

/// What changes the machine; what a namespace has for itself stays open.
const UNWRITABLE: [&str; 7] = [
    "/proc/{acpi,bus,fs,irq,scsi,asound,driver}/**",
    "/proc/sys/{abi,debug,dev,vm}/**",
    "/proc/sys/fs/{[^m]**,m[^q]**}",
    "/proc/sys/kernel/{core_*,dmesg_*,hotplug,hung_task*,kexec_*,keys/**,kptr_*,modprobe}",
    "/proc/sys/kernel/{modules_*,nmi_*,panic*,perf_*,poweroff_cmd,print*,random*,sched_*}",
    "/proc/sys/kernel/{soft*,sysrq,tainted,threads-max,unprivileged_*,usermodehelper/**,yama/**}",
    "/sys/{block,bus,class,dev,devices,hypervisor,kernel,module,power,fs/[^c]**,fs/c[^g]**}/**",
];

/// Whether a profile is among those that the kernel lists, as `name (mode)`.
pub fn is_listed(list: &str, name: &str) -> bool {
    list.lines().any(|line| line.rsplit_once(" (").is_some_and(|(known, _)| known == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_found_by_their_whole_name() {
        let list = "docker-default (enforce)\n/usr/bin/man (complain)\na (b) (enforce)\n";
        for name in ["docker-default", "/usr/bin/man", "a (b)"] {
            assert!(is_listed(list, name), "{name}");
        }
        for name in ["docker", "a", "", "docker-default (enforce)"] {
            assert!(!is_listed(list, name), "{name}");
        }
    }

    #[test]
    fn every_rule_of_the_profile_ends() {
        let text = default_profile();
        let rules = text.lines().skip(1).filter(|line| line.starts_with("  "));
        for rule in rules.filter(|rule| !rule.trim().starts_with('#')) {
            assert!(rule.ends_with(','), "{rule}");
        }
        assert!(text.ends_with("}\n"));
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }

    /// Where the parser is installed, it takes our profile.
    #[test]
    fn the_parser_takes_it() {
        use std::io::Write;
        let parser = "/sbin/apparmor_parser";
        if !std::path::Path::new(parser).exists() {
            return;
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(default_profile().as_bytes()).unwrap();
        let output = std::process::Command::new(parser)
            .args(["--skip-kernel-load", "--skip-cache"])
            .arg(file.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
