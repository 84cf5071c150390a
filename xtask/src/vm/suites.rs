//! Which tests run in the virtual machine: a short choice of them with every
//! `cargo xtask test`, all with `cargo xtask vm`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::{Init, MODULES, Security, Vm, packages};
use crate::{conformance, images, shell, tools};

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
const CUT_OFF: Tests = pods(&["--test", "cut_off"], &[]);
/// AppArmor, which this machine may not have.
const LSM: Tests = pods(&["--test", "lsm"], &[]);
/// Frozen and restored, by Debian's CRIU.
const CHECKPOINT: Tests = pods(&["--test", "checkpoint"], &[]);
/// Limits of each kind, OOM, and their change.
const LIMITS: Tests = pods(
    &["--test", "resources"],
    &["limits_are_the_kernels", "out_of_memory", "a_parent_of_the_wrong_kind_is_refused"],
);

/// What CRIU holds up the packets with of what it captures.
const FIREWALL: [&str; 3] = [
    "/usr/sbin/iptables-restore",
    "/usr/sbin/ip6tables-restore",
    "/usr/lib/x86_64-linux-gnu/xtables/libxt_mark.so",
];

/// When a machine that shares its processors with others is given up.
const SMOKE: Duration = Duration::from_secs(900);

/// Specs whose outcome hangs on the kernel, on systemd's cgroups, or on
/// AppArmor; the others are the same everywhere.
const SPECS: &str = "AppArmor|Container OOM|Security Context|PodSandbox runtime|SELinux|Mount";

/// When all of a part is given up.
const PATIENCE: Duration = Duration::from_secs(1200);
/// When critest is given up: it takes a minute where nothing is emulated.
const CRITEST: Duration = Duration::from_secs(5400);

/// Minutes, not more: on v2 alone, and with systemd.
pub fn smoke() -> Result<()> {
    run(Init::Busybox, SMOKE, &[CGROUPS, LIFE, LIMITS])?;
    run(Init::Systemd, SMOKE, &[SYSTEMD, LIMITS])
}

/// What can be run by its name.
struct Part {
    name: &'static str,
    /// Whether it belongs to the whole. What has not been seen green from end
    /// to end does not, until it has (SPECIFICATION.md says which).
    settled: bool,
    run: fn() -> Result<()>,
}

const PARTS: [Part; 5] = [
    Part {
        name: "v2",
        settled: true,
        run: || run(Init::Busybox, PATIENCE, &[CGROUPS, LIFE, RESOURCES, UPDATE]),
    },
    Part {
        name: "systemd",
        settled: true,
        run: || run(Init::Systemd, PATIENCE, &[SYSTEMD, RESOURCES, UPDATE, RESTART, CUT_OFF, LSM]),
    },
    Part { name: "selinux", settled: false, run: selinux },
    Part {
        name: "checkpoint",
        settled: false,
        run: || run(Init::Systemd, PATIENCE, &[CHECKPOINT]),
    },
    Part { name: "critest", settled: true, run: critest },
];

/// Everything.
pub fn full() -> Result<()> {
    PARTS.iter().filter(|part| part.settled).try_for_each(Part::run)
}

/// One part by its name.
pub fn only(name: &str) -> Result<()> {
    let names = PARTS.map(|part| part.name).join(", ");
    let part = PARTS.iter().find(|part| part.name == name);
    part.with_context(|| format!("there is no part {name} of {names}"))?.run()
}

impl Part {
    fn run(&self) -> Result<()> {
        println!("== {}", self.name);
        (self.run)().with_context(|| format!("the part {} is not well", self.name))
    }
}

fn run(init: Init, timeout: Duration, suite: &[Tests]) -> Result<()> {
    let (vm, command) = machine(init, timeout)?;
    run_in(vm, command, suite)
}

/// Under a policy that knows containers.
fn selinux() -> Result<()> {
    let (mut vm, mut command) = machine(Init::Busybox, PATIENCE)?;
    vm.security = Security::Selinux;
    let etc = packages::policy()?.join("etc/selinux/default");
    let found = std::fs::read_dir(etc.join("policy")).context("semodule made no policy")?;
    let policy = found.flatten().next().context("semodule made no policy")?.path();
    vm.files.push((policy, "/etc/selinux/policy".into()));
    let contexts = "contexts/lxc_contexts";
    vm.files.push((etc.join(contexts), format!("/etc/selinux/default/{contexts}")));
    // The kernel takes a policy in one piece.
    command.push_str(
        "echo SELINUXTYPE=default > /etc/selinux/config\nmount -t selinuxfs none /sys/fs/selinux\n\
         dd if=/etc/selinux/policy of=/sys/fs/selinux/load bs=64M\n",
    );
    run_in(vm, command, &[LSM])
}

fn run_in(mut vm: Vm, mut command: String, suite: &[Tests]) -> Result<()> {
    for tests in suite {
        let program = test_program(tests.package, tests.which)?;
        let name = program.file_name().context("a test program has a name")?.to_string_lossy();
        let guest = format!("/tests/{name}");
        command.push_str(&format!("{guest} --test-threads 2 {}\n", tests.only.join(" ")));
        vm.files.push((slim(&program)?, guest));
    }
    vm.command = command;
    let what = format!("{:?}, {:?}", vm.init, vm.security);
    let (code, lines) = vm.run()?;
    if code != 0 {
        bail!("the tests ended with {code} in the virtual machine ({what})");
    }
    let green =
        |line: &&String| line.starts_with("test result: ok.") && !line.contains(" 0 passed");
    if lines.iter().filter(green).count() != suite.len() {
        bail!("not every test program ran its tests in the virtual machine ({what})");
    }
    Ok(())
}

/// critest, against the daemon as a service. Specs that cannot run are listed
/// in `tests/conformance.toml`, for this machine as for others.
fn critest() -> Result<()> {
    let (mut vm, mut command) = machine(Init::Systemd, CRITEST)?;
    vm.memory = 2048;
    let (program, _) = conformance::prepare()?;
    for tool in [tools::critest()?, tools::ginkgo()?, images::busybox()?, images::nonewprivs()?] {
        let name = tool.file_name().context("a tool has a name")?.to_string_lossy();
        let guest = format!("/tools/{name}");
        vm.files.push((tool, guest));
    }
    vm.files.push((slim(&program)?, "/tests/corten-conformance".into()));
    let list = shell::root().join("tests/conformance.toml");
    vm.files.push((list.clone(), list.display().to_string()));
    // For an image, with the libraries that it needs.
    for name in ["/usr/sbin/nginx", "/usr/bin/ldd", "/bin/bash", "/usr/bin/ipcmk", "/usr/bin/ipcrm"]
    {
        vm.files.push((name.into(), name.into()));
    }
    let logs = shell::target().join("conformance");
    // critest loads profiles by sudo; who it is here may do that.
    command
        .push_str("printf '#!/bin/sh\\nexec \"$@\"\\n' > /usr/bin/sudo\nchmod +x /usr/bin/sudo\n");
    command.push_str(&format!(
        "export {}=/tools\n/tests/corten-conformance --service --focus '{SPECS}' || {{\n\
         tail -n 300 {}/*/*.log; false; }}\n",
        tools::GIVEN,
        logs.display(),
    ));
    vm.command = command;
    match vm.run()?.0 {
        0 => Ok(()),
        code => bail!("critest ended with {code} in the virtual machine"),
    }
}

/// A machine with the programs under test, and the command that it begins with.
fn machine(init: Init, timeout: Duration) -> Result<(Vm, String)> {
    let mut vm = Vm::new("");
    vm.init = init;
    vm.timeout = timeout;
    vm.modules = MODULES.iter().map(ToString::to_string).collect();
    vm.files = daemon(init)?;
    let links = match init {
        Init::Busybox => "",
        Init::Systemd => {
            "mkdir -p /programs; ln -s /usr/bin/cortend /usr/libexec/corten/corten-shim \
             /programs/\nexport CORTEN_CRIU=/usr/sbin/criu\n"
        }
    };
    Ok((vm, format!("{links}export CORTEN_PROGRAMS=/programs\nset -e\n")))
}

/// The programs under test, with systemd as they are installed; and what the
/// tests make their images and their registry with.
fn daemon(init: Init) -> Result<Vec<(PathBuf, String)>> {
    let programs = crate::build::programs()?;
    let daemon = slim(&programs.join("cortend"))?;
    let shim = slim(&programs.join("corten-shim"))?;
    let mut files = match init {
        Init::Busybox => vec![
            (daemon, "/programs/cortend".to_owned()),
            (shim, "/programs/corten-shim".to_owned()),
        ],
        Init::Systemd => vec![
            (daemon, "/usr/bin/cortend".to_owned()),
            (shim, "/usr/libexec/corten/corten-shim".to_owned()),
            (
                shell::root().join("dist/cortend.service"),
                "/usr/lib/systemd/system/cortend.service".to_owned(),
            ),
        ],
    };
    // busybox's own tar lacks what they need.
    files.push(("/bin/tar".into(), "/usr/local/bin/tar".into()));
    files.push(("/usr/bin/docker-registry".into(), "/usr/bin/docker-registry".into()));
    if init == Init::Systemd {
        files.extend(FIREWALL.map(|name| (PathBuf::from(name), name.to_owned())));
    }
    Ok(files)
}

/// A copy of a program without what debuggers want, which is most of it: an
/// emulated machine takes its time to unpack its memory.
fn slim(program: &Path) -> Result<PathBuf> {
    let name = program.file_name().context("a program has a name")?;
    let directory = shell::target().join("vm/programs");
    std::fs::create_dir_all(&directory).context("unable to make target/vm/programs")?;
    let copy = directory.join(name);
    let fresh = tools::fresh(&copy);
    shell::run(shell::program("strip", ["-o"]).arg(&fresh).arg(program))?;
    std::fs::rename(&fresh, &copy)
        .with_context(|| format!("unable to put {} in its place", copy.display()))?;
    Ok(copy)
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
