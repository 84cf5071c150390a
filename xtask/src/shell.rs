//! Running programs, and where things lie.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// The workspace's root directory.
pub fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => root().join(directory),
        None => root().join("target"),
    }
}

/// A program that will run in the workspace's root.
pub fn program<S: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(name);
    command.args(arguments).current_dir(root());
    command
}

/// Cargo, the one that runs us.
pub fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let name = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = program(&name, arguments);
    // What a cargo around us says of the package that it runs: build scripts
    // (ring's) that look at it would run anew, and all that depends on them.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs a program, which must succeed; shows what it prints.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("unable to start {}", name(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", name(command));
    }
    Ok(())
}

/// Runs a program, which must succeed, and returns what it prints; its
/// messages are shown.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("unable to start {}", name(command)))?;
    if !output.status.success() {
        bail!("{} failed: {}", name(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} printed no text", name(command)))
}

/// Whether we are root, whose namespaces, mounts and cgroups are.
pub fn as_root(command: &str) -> Result<()> {
    if output(&mut program("id", ["-u"]))?.trim() != "0" {
        bail!("pods are root's to run: sudo {command}");
    }
    Ok(())
}

/// Pauses before something is fetched once more.
const FETCH_PAUSES: [Duration; 3] =
    [Duration::from_secs(3), Duration::from_secs(15), Duration::from_secs(45)];

/// Does what needs a server somewhere, and does it again when it fails: mirrors
/// and registries are away for a moment now and then.
pub fn fetch<T>(mut work: impl FnMut() -> Result<T>) -> Result<T> {
    for pause in FETCH_PAUSES {
        match work() {
            Ok(fetched) => return Ok(fetched),
            Err(error) => eprintln!("xtask: {error:#}; once more in {} s", pause.as_secs()),
        }
        std::thread::sleep(pause);
    }
    work()
}

/// `apt-get`, which asks its mirrors again itself, and waits for others who
/// install.
pub fn apt<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command =
        program("apt-get", ["-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=300"]);
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Brings the lists of Debian's packages up to date.
pub fn apt_update() -> Result<()> {
    fetch(|| run(&mut apt(["update", "--quiet=2"])))
}

/// Puts Debian packages into a directory, as files. Lists that are too old
/// name what mirrors have no more.
pub fn apt_download(packages: &[String], directory: &Path) -> Result<()> {
    let mut download = apt(["download", "--quiet=2"]);
    download.args(packages).current_dir(directory);
    match run(&mut download) {
        Ok(()) => Ok(()),
        Err(_) => apt_update().and_then(|()| fetch(|| run(&mut download))),
    }
}

/// Whether a program is to be had.
pub fn has(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).any(|directory| directory.join(name).is_file())
}

/// Whether the standard library of a target is installed.
pub fn has_target(target: &str) -> bool {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let asked = ["--print", "target-libdir", "--target", target];
    let printed = program(&rustc, asked).stderr(Stdio::null()).output();
    printed.is_ok_and(|output| {
        output.status.success()
            && Path::new(String::from_utf8_lossy(&output.stdout).trim()).exists()
    })
}

/// How a program is called, for messages.
pub(crate) fn name(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
