//! Programs that are in images of critest and that no Debian package brings as
//! its specs want them; built once, and kept in `target/tools`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::shell;
use crate::tools::{self, newer};

/// Debian 12's busybox, as its authors publish it: archive and digest.
const BUSYBOX: &str = "busybox_1.35.0.orig.tar.bz2";
const BUSYBOX_SHA256: &str = "faeeb244c35a348a334f4a59e44626ee870fb07b6884d68c10ae8bc19f83a694";
/// A package that lies beside it on every mirror of Debian.
const BUSYBOX_PACKAGE: &str = "busybox-static";
/// Where it lies.
const BUSYBOX_POOL: &str = "b/busybox";
/// Where to look when the machine's own mirror has no such file any more.
const DEBIAN: &str = "http://deb.debian.org/debian/pool/main";

/// A static busybox whose shell runs the files of its container, never applets
/// of its own, and which has all applets that critest runs.
///
/// # Errors
/// Without the archive, a C compiler, make or bzip2.
pub fn busybox() -> Result<PathBuf> {
    if let Some(given) = tools::given("busybox") {
        return Ok(given);
    }
    let config = shell::root().join("tests/images/busybox.config");
    let program = tools::directory().join("busybox");
    if newer(&program, &[&config]) {
        return Ok(program);
    }
    println!("building busybox for critest's images");
    let work = tools::directory().join("busybox.build");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work).context("unable to make a directory for busybox")?;
    fetch(&work, BUSYBOX_POOL, BUSYBOX, BUSYBOX_SHA256)?;
    let mut tar = shell::program("tar", ["--extract", "--bzip2", "--strip-components=1"]);
    shell::run(tar.arg("--file").arg(work.join(BUSYBOX)).arg("--directory").arg(&work))?;
    quietly(shell::program("make", ["allnoconfig"]).current_dir(&work))?;
    let wanted = fs::read_to_string(&config).context("unable to read tests/images")?;
    configure(&work.join(".config"), &wanted)?;
    // New questions, which follow from what was turned on, get their defaults.
    let questions = "yes '' 2>/dev/null | make oldconfig";
    quietly(shell::program("sh", ["-c", questions]).current_dir(&work))?;
    check(&work.join(".config"), &wanted)?;
    let jobs = format!("-j{}", std::thread::available_parallelism().map_or(1, usize::from));
    quietly(shell::program("make", [&jobs, "busybox"]).current_dir(&work))?;
    fs::rename(work.join("busybox"), &program).context("unable to put busybox in its place")?;
    fs::remove_dir_all(&work).context("unable to remove what busybox was built in")?;
    Ok(program)
}

/// The program of critest's image `nonewprivs`.
///
/// # Errors
/// Without a C compiler.
pub fn nonewprivs() -> Result<PathBuf> {
    compiled("nonewprivs")
}

/// The program of the image that keeps the pods of runtimes that need one.
///
/// # Errors
/// Without a C compiler.
pub fn pause() -> Result<PathBuf> {
    compiled("pause")
}

/// A program made of one file of `tests/images`, without libraries.
fn compiled(name: &str) -> Result<PathBuf> {
    if let Some(given) = tools::given(name) {
        return Ok(given);
    }
    let source = shell::root().join("tests/images").join(name).with_extension("c");
    let program = tools::directory().join(name);
    if !newer(&program, &[&source]) {
        fs::create_dir_all(tools::directory()).context("unable to make target/tools")?;
        let fresh = tools::fresh(&program);
        let mut cc = shell::program("cc", ["-static", "-O2", "-o"]);
        shell::run(cc.arg(&fresh).arg(&source))?;
        fs::rename(&fresh, &program)
            .with_context(|| format!("unable to put {name} in its place"))?;
    }
    Ok(program)
}

/// Fetches an archive of sources that lies in this directory of Debian's pool
/// (`b/busybox`), from the machine's mirror if that has it, by the machine's
/// proxies.
///
/// # Errors
/// If no mirror has it, or it is another file of that name.
pub(crate) fn fetch(directory: &Path, pool: &str, name: &str, sha256: &str) -> Result<()> {
    let mut mirrors = Vec::new();
    let asked = ["download", "--print-uris", BUSYBOX_PACKAGE];
    if let Ok(text) = shell::output(&mut shell::program("apt-get", asked)) {
        mirrors.extend(mirror(&text));
    }
    mirrors.push(DEBIAN.to_owned());
    shell::fetch(|| {
        for mirror in &mirrors {
            let mut helper = shell::program("/usr/lib/apt/apt-helper", ["download-file"]);
            helper
                .arg(format!("{mirror}/{pool}/{name}"))
                .arg(directory.join(name))
                .arg(format!("SHA256:{sha256}"));
            if quietly(&mut helper).is_ok() {
                return Ok(());
            }
        }
        bail!("unable to fetch {pool}/{name} from {}", mirrors.join(" or "))
    })
}

/// The pool that a package lies in, of `'http://…/name.deb' name.deb size digest`.
fn mirror(text: &str) -> Option<String> {
    let address = text.lines().last()?.strip_prefix('\'')?.split('\'').next()?;
    Some(address.split_once("/pool/main/")?.0.to_owned() + "/pool/main")
}

/// Names of options, without what is said of them.
fn options(wanted: &str) -> impl Iterator<Item = &str> {
    wanted.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace)
}

/// Turns options on.
fn configure(config: &Path, wanted: &str) -> Result<()> {
    let mut text = fs::read_to_string(config).context("busybox made no configuration")?;
    for option in options(wanted) {
        text = text
            .replace(&format!("# CONFIG_{option} is not set\n"), &format!("CONFIG_{option}=y\n"));
    }
    fs::write(config, text).context("unable to configure busybox")
}

/// That they are on: busybox passes over what it does not know.
fn check(config: &Path, wanted: &str) -> Result<()> {
    let text = fs::read_to_string(config).context("busybox lost its configuration")?;
    let is_on = |option: &&str| text.contains(&format!("\nCONFIG_{option}=y\n"));
    let off: Vec<&str> = options(wanted).filter(|option| !is_on(option)).collect();
    match off.is_empty() {
        true => Ok(()),
        false => bail!("busybox has no option {}", off.join(", ")),
    }
}

/// Runs a program, and shows what it printed only if it fails.
pub(crate) fn quietly(command: &mut std::process::Command) -> Result<()> {
    let output = command.stdin(std::process::Stdio::null()).output();
    let output = output.with_context(|| format!("unable to start {}", shell::name(command)))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{} failed: {}", shell::name(command), String::from_utf8_lossy(&said).trim_end());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{mirror, options};

    #[test]
    fn the_mirror_of_a_package() {
        let text = "'http://deb.debian.org/debian/pool/main/b/busybox/busybox-static_1_amd64.deb' \
            busybox-static_1_amd64.deb 928188 SHA256:3d3f\n";
        assert_eq!(mirror(text).as_deref(), Some("http://deb.debian.org/debian/pool/main"));
        assert_eq!(mirror(""), None);
    }

    #[test]
    fn options_among_remarks() {
        let found: Vec<_> = options("# about CAT\nCAT LS\n\nASH\n").collect();
        assert_eq!(found, ["CAT", "LS", "ASH"]);
    }
}
