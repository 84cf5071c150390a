//! Which tests run in the virtual machine: a short choice of them with every
//! `cargo xtask test`, all with `cargo xtask vm`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::{Init, MODULES, Vm};
use crate::shell;

/// One run of a test program in the machine.
struct Tests {
    package: &'static str,
    /// `--lib`, or `--test` and a name.
    which: &'static [&'static str],
    /// Names of tests; none runs all.
    only: &'static [&'static str],
}

/// Tests of whole pods, by the name of their program.
const fn pods(which: &'static [&'static str], only: &'static [&'static str]) -> Tests {
    Tests { package: "corten-tests", which, only }
}

const CGROUPS: Tests = Tests { package: "corten-kernel", which: &["--lib"], only: &["cgroup::"] };
const LIFE: Tests = pods(&["--test", "life"], &[]);
const SYSTEMD: Tests = pods(&["--test", "systemd"], &[]);
const RESOURCES: Tests = pods(&["--test", "resources"], &[]);
const UPDATE: Tests = pods(&["--test", "update"], &[]);
const RESTART: Tests = pods(&["--test", "restart"], &[]);
/// AppArmor, which this machine may not have.
const LSM: Tests = pods(&["--test", "lsm"], &[]);
/// Limits of each kind, OOM, and their change.
const LIMITS: Tests = pods(
    &["--test", "resources"],
    &["limits_are_the_kernels", "out_of_memory", "a_parent_of_the_wrong_kind_is_refused"],
);

/// When a machine that shares its processors with others is given up.
const SMOKE: Duration = Duration::from_secs(400);

/// Minutes, not more: on v2 alone, and with systemd.
pub fn smoke() -> Result<()> {
    run(Init::Busybox, SMOKE, &[CGROUPS, LIFE, LIMITS])?;
    run(Init::Systemd, SMOKE, &[SYSTEMD, LIMITS])
}

/// Everything.
pub fn full() -> Result<()> {
    let patience = Duration::from_secs(1200);
    run(Init::Busybox, patience, &[CGROUPS, LIFE, RESOURCES, UPDATE])?;
    run(Init::Systemd, patience, &[SYSTEMD, RESOURCES, UPDATE, RESTART, LSM])
}

fn run(init: Init, timeout: Duration, suite: &[Tests]) -> Result<()> {
    let mut vm = Vm::new("");
    vm.init = init;
    vm.timeout = timeout;
    vm.modules = MODULES.iter().map(ToString::to_string).collect();
    let mut command = String::from("export CORTEN_PROGRAMS=/programs\nset -e\n");
    for tests in suite {
        let program = test_program(tests.package, tests.which)?;
        let name = program.file_name().context("a test program has a name")?.to_string_lossy();
        let guest = format!("/tests/{name}");
        command.push_str(&format!("{guest} --test-threads 2 {}\n", tests.only.join(" ")));
        vm.files.push((program, guest));
    }
    vm.files.extend(daemon(init)?);
    if init == Init::Systemd {
        let links = "mkdir -p /programs; ln -s /usr/bin/cortend /usr/libexec/corten/corten-shim \
                     /programs/\n";
        command.insert_str(0, links);
    }
    vm.command = command;
    let (code, lines) = vm.run()?;
    if code != 0 {
        bail!("the tests ended with {code} in the virtual machine ({init:?})");
    }
    let green =
        |line: &&String| line.starts_with("test result: ok.") && !line.contains(" 0 passed");
    if lines.iter().filter(green).count() != suite.len() {
        bail!("not every test program ran its tests in the virtual machine ({init:?})");
    }
    Ok(())
}

/// The programs under test, with systemd as they are installed; and what the
/// tests make their images and their registry with.
fn daemon(init: Init) -> Result<Vec<(PathBuf, String)>> {
    let programs = crate::build::programs()?;
    let mut files = match init {
        Init::Busybox => vec![
            (programs.join("cortend"), "/programs/cortend".to_owned()),
            (programs.join("corten-shim"), "/programs/corten-shim".to_owned()),
        ],
        Init::Systemd => vec![
            (programs.join("cortend"), "/usr/bin/cortend".to_owned()),
            (programs.join("corten-shim"), "/usr/libexec/corten/corten-shim".to_owned()),
            (
                shell::root().join("dist/cortend.service"),
                "/usr/lib/systemd/system/cortend.service".to_owned(),
            ),
        ],
    };
    // busybox's own tar lacks what they need.
    files.push(("/bin/tar".into(), "/usr/local/bin/tar".into()));
    files.push(("/usr/bin/docker-registry".into(), "/usr/bin/docker-registry".into()));
    Ok(files)
}

/// Builds tests of a package (`--lib`, `--test NAME`) and returns the program.
fn test_program(package: &str, which: &[&str]) -> Result<PathBuf> {
    let mut cargo = shell::cargo(["test", "--package", package]);
    cargo.args(which).args(["--no-run", "--message-format=json"]);
    let text = shell::output(&mut cargo)?;
    let mut executables = text.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        // Programs of the package are built for its tests as well.
        let is_test = message.pointer("/profile/test")?.as_bool()?;
        message.get("executable")?.as_str().filter(|_| is_test).map(PathBuf::from)
    });
    executables.next_back().with_context(|| format!("cargo built no tests of {package}"))
}
