//! What is inside the virtual machine: busybox, an init of ours, the files
//! asked for and the libraries that they need.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result};

use super::initramfs::Archive;
use super::modules::Module;
use crate::shell;

/// The line of the console that ends a run; the exit code follows.
pub const RESULT: &str = "corten-vm: exit ";

/// The kernel's first root cannot be pivoted away from, so that no container
/// could be made in it: the system moves to a tmpfs first.
const FIRST: &str = "\
#!/bin/busybox sh
/bin/busybox mkdir /new
/bin/busybox mount -t tmpfs -o mode=755,size=80% root /new
/bin/busybox mv /system/* /new/
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
/bin/busybox --install -s /bin
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
hostname corten-vm
ip link set lo up
while read module; do insmod $module || echo \"unable to load $module\"; done < /vm/modules
cd /root
sh /vm/command < /dev/null
code=$?
echo
echo \"corten-vm: exit $code\"
poweroff -f
";

/// Makes the archive that the kernel boots into.
pub fn image(files: &[(PathBuf, String)], modules: &[Module], command: &str) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    let busybox = read(Path::new("/bin/busybox"))
        .context("the virtual machine needs busybox-static (cargo xtask setup)")?;
    archive.file("/init", 0o755, FIRST.as_bytes());
    archive.file("/bin/busybox", 0o755, &busybox);
    archive.device("/dev/console", 5, 1);
    let mut system = System { archive, present: BTreeSet::new() };
    system.file("/bin/busybox", 0o755, &busybox);
    system.file("/sbin/init", 0o755, INIT.as_bytes());
    system.file("/vm/command", 0o755, command.as_bytes());
    system.file("/etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n");
    system.file("/etc/group", 0o644, b"root:x:0:\n");
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

/// The files below `/system`.
struct System {
    archive: Archive,
    present: BTreeSet<String>,
}

impl System {
    fn file(&mut self, guest: &str, mode: u32, content: &[u8]) {
        if self.present.insert(guest.to_owned()) {
            self.archive.file(&format!("/system{guest}"), mode, content);
        }
    }

    /// A file, a link, or a directory with all that is in it.
    fn add(&mut self, host: &Path, guest: &str) -> Result<()> {
        let what = || format!("unable to read {}", host.display());
        let kind = fs::metadata(host).with_context(what)?;
        if kind.is_dir() {
            self.archive.directory(&format!("/system{guest}"));
            for entry in fs::read_dir(host).with_context(what)? {
                let entry = entry.with_context(what)?;
                let name = entry.file_name();
                let guest = format!("{}/{}", guest.trim_end_matches('/'), name.to_string_lossy());
                if entry.file_type().with_context(what)?.is_symlink() {
                    let target = fs::read_link(entry.path()).with_context(what)?;
                    self.archive.link(&format!("/system{guest}"), &target.to_string_lossy());
                } else {
                    self.add(&entry.path(), &guest)?;
                }
            }
            return Ok(());
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
