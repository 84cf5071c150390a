//! A system of Debian packages for the virtual machine: systemd, D-Bus, AppArmor
//! and CRIU with the libraries that they need, unpacked and not installed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// What is wanted for itself.
const WANTED: &[&str] = &[
    "systemd",
    "dbus",
    "dbus-bin",
    "dbus-daemon",
    "dbus-system-bus-common",
    "apparmor",
    "criu",
    "mount",
];

/// What makes a policy for SELinux.
const POLICY: &[&str] = &["selinux-policy-default", "policycoreutils", "selinux-utils"];

/// Says in an unpacked system what was wanted of it: when that changes, it is
/// fetched anew.
const RECORD: &str = "wanted";

/// Parts of packages that a machine without people and udev does without.
const LEFT_OUT: &[&str] = &[
    "usr/share/bash-completion",
    "usr/share/bug",
    "usr/share/doc",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/pam-configs",
    "usr/share/polkit-1",
    "usr/share/zsh",
    "usr/lib/systemd/catalog",
    "usr/lib/udev",
    "usr/lib/x86_64-linux-gnu/gconv",
];

/// Where it is unpacked.
pub fn directory() -> PathBuf {
    shell::target().join("vm/systemd")
}

/// Fetches and unpacks what is not there yet.
pub fn fetch() -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        return Ok(());
    }
    system(&directory(), WANTED, |_| Ok(()))
}

/// A policy for SELinux, below the directory that this returns: made when it
/// is first asked for, which takes some twenty seconds.
pub fn policy() -> Result<PathBuf> {
    let root = shell::target().join("vm/selinux");
    system(&root, POLICY, build_policy)?;
    Ok(root)
}

/// A system of packages, and what is to be done in it.
fn system(root: &Path, wanted: &[&str], finish: fn(&Path) -> Result<()>) -> Result<()> {
    let record = wanted.join("\n");
    if fs::read_to_string(root.join(RECORD)).is_ok_and(|found| found == record) {
        return Ok(());
    }
    let download = root.with_extension("download");
    let partial = root.with_extension("partial");
    for directory in [&download, &partial] {
        let _ = fs::remove_dir_all(directory);
        fs::create_dir_all(directory)
            .with_context(|| format!("unable to make {}", directory.display()))?;
    }
    let packages: Vec<String> = closure(wanted)?.into_iter().collect();
    println!("fetching {} packages for the virtual machine", packages.len());
    shell::apt_download(&packages, &download)?;
    for entry in fs::read_dir(&download)? {
        unpack(&entry?.path(), &partial)?;
    }
    for part in LEFT_OUT {
        let path = partial.join(part);
        if path.exists() {
            fs::remove_dir_all(&path)
                .with_context(|| format!("unable to remove {}", path.display()))?;
        }
    }
    finish(&partial)?;
    fs::write(partial.join(RECORD), record).context("unable to say what was fetched")?;
    // An interrupted run leaves no half of it.
    let _ = fs::remove_dir_all(root);
    fs::rename(&partial, root).context("unable to rename the unpacked packages")?;
    fs::remove_dir_all(&download).context("unable to remove the packages")
}

/// Compiles Debian's policy of all its modules, as its package would when it
/// is installed, and one of ours, in which there are containers.
fn build_policy(root: &Path) -> Result<()> {
    let modules = root.join("usr/share/selinux/default/.modules");
    let list = fs::read_to_string(&modules)
        .with_context(|| format!("unable to read {}", modules.display()))?;
    fs::copy(shell::root().join("tests/selinux/container.cil"), root.join("container.cil"))
        .context("unable to copy tests/selinux/container.cil")?;
    println!("compiling a policy for SELinux");
    let mut semodule = shell::program("chroot", [root]);
    semodule.args(["/usr/sbin/semodule", "-X", "100", "-n", "-s", "default", "-i/container.cil"]);
    semodule.args(
        list.split_whitespace().map(|name| format!("-i/usr/share/selinux/default/{name}.pp.bz2")),
    );
    shell::run(&mut semodule)
}

/// Unpacks a package. Older ones have files in `/lib` and `/bin`, which are
/// links in the machine: tar follows links that are there.
fn unpack(package: &Path, root: &Path) -> Result<()> {
    for name in ["bin", "sbin", "lib", "lib64"] {
        let link = root.join(name);
        if !link.is_symlink() {
            fs::create_dir_all(root.join("usr").join(name))?;
            std::os::unix::fs::symlink(format!("usr/{name}"), &link)?;
        }
    }
    let mut deb = shell::program("dpkg-deb", ["--fsys-tarfile"]);
    let mut deb = deb.arg(package).stdout(std::process::Stdio::piped()).spawn()?;
    let tar = deb.stdout.take().context("dpkg-deb without output")?;
    let mut untar = shell::program("tar", ["--extract", "--keep-directory-symlink", "-C"]);
    shell::run(untar.arg(root).stdin(tar))?;
    if !deb.wait()?.success() {
        bail!("unable to unpack {}", package.display());
    }
    Ok(())
}

/// The packages wanted, and all libraries that they and those need.
fn closure(wanted: &[&str]) -> Result<BTreeSet<String>> {
    let mut found: BTreeSet<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
    let mut fresh: Vec<String> = found.iter().cloned().collect();
    while !fresh.is_empty() {
        let without = ["recommends", "suggests", "conflicts", "breaks", "replaces", "enhances"];
        let mut apt = shell::program("apt-cache", ["depends"]);
        apt.args(without.map(|kind| format!("--no-{kind}"))).args(&fresh);
        let needed = dependencies(&shell::output(&mut apt)?);
        fresh = needed.into_iter().filter(|name| found.insert(name.clone())).collect();
    }
    Ok(found)
}

/// Libraries among what `apt-cache depends` says, the first of alternatives.
fn dependencies(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut alternative = false;
    for line in text.lines() {
        let Some((kind, name)) = line.trim().split_once("epends: ") else { continue };
        let library = name.starts_with("lib") || name.starts_with("zlib");
        if library && !alternative {
            found.push(name.to_owned());
        }
        alternative = kind.starts_with('|');
    }
    found
}

#[cfg(test)]
mod tests {
    use super::dependencies;

    #[test]
    fn what_a_package_needs() {
        let text = "dbus\n  PreDepends: init-system-helpers\n  Depends: libc6\n \
                    |Depends: libsystemd0\n  Depends: libelogind0\n    libx\n  Depends: zlib1g\n";
        assert_eq!(dependencies(text), ["libc6", "libsystemd0", "zlib1g"]);
    }
}
