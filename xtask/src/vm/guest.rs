//! What is inside the virtual machine: busybox, an init of ours or systemd,
//! the files asked for and the libraries that they need.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result};

use super::initramfs::Archive;
use super::modules::Module;
use super::packages;
use crate::shell;

/// Who is PID 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Init {
    /// A script of busybox.
    #[default]
    Busybox,
    /// Debian's systemd, with D-Bus beside it.
    Systemd,
}

/// The line of the console that ends a run; the exit code follows.
pub const RESULT: &str = "corten-vm: exit ";

/// The kernel's first root cannot be pivoted away from, so that no container
/// could be made in it: the system moves to a tmpfs first.
const FIRST: &str = "\
#!/bin/busybox sh
/bin/busybox mkdir /new
/bin/busybox mount -t tmpfs -o mode=755,size=80% root /new
/bin/busybox mv /system/* /new/
/bin/busybox chroot /new /bin/busybox --install -s /bin 2>/dev/null
exec /bin/busybox switch_root /new /sbin/init
";

const INIT: &str = "\
#!/bin/busybox sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /root /etc /var/lib
/bin/busybox chmod 1777 /tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
hostname corten-vm
ip link set lo up
while read module; do insmod $module || echo \"unable to load $module\"; done < /vm/modules
exec sh /vm/run
";

/// The command, its result, and the end of the machine.
const RUN: &str = "\
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
cd /root
sh /vm/command < /dev/null
code=$?
echo
echo \"corten-vm: exit $code\"
poweroff -f
";

/// Modules come first: systemd looks at what there is.
const INIT_SYSTEMD: &str = "\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /root /etc /var/lib /var/log
/bin/busybox chmod 1777 /tmp
while read module; do /bin/busybox insmod $module; done < /vm/modules
exec /usr/lib/systemd/systemd
";

/// The machine is there for its command.
const TARGET: &str = "\
[Unit]
Description=The command, and nothing else
Requires=corten-vm.service
";

/// Runs the command when the bus can be spoken to.
const UNIT: &str = "\
[Unit]
Description=The command of the virtual machine
Requires=basic.target dbus.socket
After=basic.target dbus.socket
[Service]
Type=oneshot
ExecStart=/bin/sh /vm/run
TimeoutStartSec=infinity
LimitNOFILE=1048576
TasksMax=infinity
StandardOutput=file:/dev/console
StandardError=file:/dev/console
";

/// What systemd would do at a first boot, or for people; our machine has
/// neither.
const MASKED: &[&str] = &[
    "apparmor.service",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "getty.target",
    "ldconfig.service",
    "proc-sys-fs-binfmt_misc.automount",
    "modprobe@configfs.service",
    "modprobe@drm.service",
    "modprobe@fuse.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "systemd-boot-system-token.service",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-initctl.socket",
    "systemd-journal-catalog-update.service",
    "systemd-journal-flush.service",
    "systemd-machine-id-commit.service",
    "systemd-pcrphase-sysinit.service",
    "systemd-modules-load.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-repart.service",
    "systemd-sysusers.service",
    "systemd-update-done.service",
    "systemd-update-utmp.service",
    "systemd-tmpfiles-clean.timer",
];

/// Makes the archive that the kernel boots into.
pub fn image(
    init: Init,
    files: &[(PathBuf, String)],
    modules: &[Module],
    command: &str,
) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    let busybox = read(Path::new("/bin/busybox"))
        .context("the virtual machine needs busybox-static (cargo xtask setup)")?;
    archive.file("/init", 0o755, FIRST.as_bytes());
    archive.file("/bin/busybox", 0o755, &busybox);
    archive.device("/dev/console", 5, 1);
    let mut system = System { archive, present: BTreeSet::new() };
    for name in MERGED {
        system.archive.link(&format!("/system/{name}"), &format!("usr/{name}"));
    }
    system.file("/bin/busybox", 0o755, &busybox);
    system.file("/vm/command", 0o755, command.as_bytes());
    system.file("/vm/run", 0o755, RUN.as_bytes());
    system.file("/etc/passwd", 0o644, PASSWD);
    system.file("/etc/group", 0o644, GROUP);
    match init {
        Init::Busybox => system.file("/sbin/init", 0o755, INIT.as_bytes()),
        Init::Systemd => system.with_systemd()?,
    }
    let mut list = String::new();
    for module in modules {
        let place = format!("/vm/{}.ko", module.name);
        system.file(&place, 0o644, &module.content);
        list.push_str(&place);
        list.push('\n');
    }
    system.file("/vm/modules", 0o644, list.as_bytes());
    for (host, guest) in files {
        system.add(host, guest)?;
    }
    Ok(system.archive.finish())
}

/// Directories that are links into `/usr`.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
    messagebus:x:100:100::/nonexistent:/bin/false\n\
    nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUP: &[u8] = b"root:x:0:\ntty:x:5:\nsystemd-journal:x:101:\nutmp:x:43:\n\
    messagebus:x:100:\nnogroup:x:65534:\n";

/// The files below `/system`.
struct System {
    archive: Archive,
    present: BTreeSet<String>,
}

impl System {
    /// A place that is taken already stays as it is.
    fn file(&mut self, guest: &str, mode: u32, content: &[u8]) {
        let place = merged(guest);
        if self.present.insert(place.clone()) {
            self.archive.file(&format!("/system{place}"), mode, content);
        }
    }

    fn link(&mut self, guest: &str, target: &str) {
        let place = merged(guest);
        if self.present.insert(place.clone()) {
            self.archive.link(&format!("/system{place}"), target);
        }
    }

    fn with_systemd(&mut self) -> Result<()> {
        let units = "/etc/systemd/system";
        self.file("/sbin/init", 0o755, INIT_SYSTEMD.as_bytes());
        self.file("/etc/machine-id", 0o444, b"c0ffee00c0ffee00c0ffee00c0ffee00\n");
        self.file("/etc/hostname", 0o644, b"corten-vm\n");
        self.file(&format!("{units}/corten-vm.service"), 0o644, UNIT.as_bytes());
        self.file(&format!("{units}/corten-vm.target"), 0o644, TARGET.as_bytes());
        self.link(&format!("{units}/default.target"), "corten-vm.target");
        for name in MASKED {
            self.link(&format!("{units}/{name}"), "/dev/null");
        }
        let packages = packages::directory();
        self.tree(&packages.join("usr"), "/usr", false)
            .and_then(|()| self.tree(&packages.join("etc"), "/etc", false))
            .context("the virtual machine needs Debian's systemd (cargo xtask setup)")
    }

    /// All of a directory, with its links as they are; with the libraries of
    /// its programs, if it does not hold them itself.
    fn tree(&mut self, host: &Path, guest: &str, libraries: bool) -> Result<()> {
        let what = || format!("unable to read {}", host.display());
        self.archive.directory(&format!("/system{guest}"));
        for entry in fs::read_dir(host).with_context(what)? {
            let entry = entry.with_context(what)?;
            let (path, kind) = (entry.path(), entry.file_type().with_context(what)?);
            let guest = format!("{guest}/{}", entry.file_name().to_string_lossy());
            if kind.is_symlink() {
                let target = fs::read_link(&path).with_context(what)?;
                self.link(&guest, &target.to_string_lossy());
            } else if kind.is_dir() {
                self.tree(&path, &guest, libraries)?;
            } else if libraries {
                self.add(&path, &guest)?;
            } else {
                let mode = entry.metadata().with_context(what)?.permissions().mode();
                self.file(&guest, mode, &read(&path)?);
            }
        }
        Ok(())
    }

    /// A file, a link, or a directory with all that is in it.
    fn add(&mut self, host: &Path, guest: &str) -> Result<()> {
        let what = || format!("unable to read {}", host.display());
        let kind = fs::metadata(host).with_context(what)?;
        if kind.is_dir() {
            return self.tree(host, guest, true);
        }
        let content = read(host)?;
        self.file(guest, kind.permissions().mode(), &content);
        if content.starts_with(b"\x7fELF") {
            for library in libraries(host) {
                let content = read(&library)?;
                self.file(&library.to_string_lossy(), 0o755, &content);
            }
        }
        Ok(())
    }
}

/// `/lib/x` lies in `/usr/lib/x`.
fn merged(guest: &str) -> String {
    let first = guest.trim_start_matches('/').split('/').next().unwrap_or_default();
    if MERGED.contains(&first) { format!("/usr{guest}") } else { guest.to_owned() }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("unable to read {}", path.display()))
}

/// The shared libraries of a program, the loader included; none for a static
/// one (which ldd takes for a failure).
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = shell::program("ldd", [program]).stderr(Stdio::null()).output();
    let Ok(output) = output else { return Vec::new() };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}
