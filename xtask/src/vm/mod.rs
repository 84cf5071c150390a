//! A virtual machine with Debian's cloud kernel, cgroup v2 alone, and files of
//! our choice, in which one command runs. `cargo xtask vm` runs the tests of
//! our cgroups in it.

mod guest;
mod initramfs;
mod modules;
pub mod packages;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

pub use guest::Init;

use crate::setup::kernel_directory;
use crate::shell;

/// How long one run may take; without KVM everything is emulated.
const TIMEOUT: Duration = Duration::from_secs(180);

/// Modules for containers and their networks. What the kernel has built in, or
/// has not at all, is passed over.
pub const MODULES: &[&str] = &[
    "overlay",
    "fuse",
    "bridge",
    "br_netfilter",
    "veth",
    "dummy",
    "nf_tables",
    "nft_chain_nat",
    "nft_nat",
    "nft_masq",
    "nft_ct",
    "nft_compat",
    "nft_fib_inet",
    "nft_reject_inet",
    "xt_nat",
    "xt_MASQUERADE",
    "xt_comment",
    "xt_conntrack",
    "xt_addrtype",
    "xt_mark",
    "xt_multiport",
    "xt_tcpudp",
];

/// The kernel's parameters.
const APPEND: &str = "console=ttyS0 loglevel=3 panic=-1 random.trust_cpu=on \
    apparmor=1 security=apparmor systemd.show_status=0 systemd.unified_cgroup_hierarchy=1";

/// A virtual machine and what it is for.
#[derive(Debug, Clone)]
pub struct Vm {
    /// The directory with the kernel's `boot` and `lib/modules`.
    pub kernel: PathBuf,
    /// Files on this machine and where they lie in the other. Directories are
    /// taken whole; libraries of programs come along by themselves.
    pub files: Vec<(PathBuf, String)>,
    /// Kernel modules to load, with those that they need.
    pub modules: Vec<String>,
    /// A shell command. Its standard output and error are shown.
    pub command: String,
    /// When the machine is stopped.
    pub timeout: Duration,
    /// Megabytes of memory.
    pub memory: u32,
    /// Who is PID 1.
    pub init: Init,
}

impl Vm {
    /// A machine with the kernel that `cargo xtask setup` fetched.
    pub fn new(command: impl Into<String>) -> Self {
        Self {
            kernel: kernel_directory(),
            files: Vec::new(),
            modules: Vec::new(),
            command: command.into(),
            timeout: TIMEOUT,
            memory: 1024,
            init: Init::Busybox,
        }
    }

    /// Starts the machine, runs the command, shows what it prints, and returns
    /// its exit code together with the lines.
    pub fn run(&self) -> Result<(i32, Vec<String>)> {
        let (kernel, release) = self.find_kernel()?;
        let modules =
            modules::closure(&self.kernel.join("lib/modules").join(&release), &self.modules)?;
        let image = guest::image(self.init, &self.files, &modules, &self.command)?;
        let directory = shell::target().join("vm");
        std::fs::create_dir_all(&directory).context("unable to make target/vm")?;
        let initramfs = directory.join(format!("initramfs-{}", std::process::id()));
        std::fs::write(&initramfs, image).context("unable to write the initramfs")?;
        let outcome = self.boot(&kernel, &initramfs);
        let _ = std::fs::remove_file(&initramfs);
        outcome
    }

    fn find_kernel(&self) -> Result<(PathBuf, String)> {
        let boot = self.kernel.join("boot");
        let listing = std::fs::read_dir(&boot).with_context(|| {
            format!("no kernel in {} (cargo xtask setup fetches one)", boot.display())
        })?;
        let mut names: Vec<String> =
            listing.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        let release = names.iter().rev().find_map(|name| name.strip_prefix("vmlinuz-"));
        let release = release.with_context(|| format!("no vmlinuz in {}", boot.display()))?;
        Ok((boot.join(format!("vmlinuz-{release}")), release.to_owned()))
    }

    fn boot(&self, kernel: &PathBuf, initramfs: &PathBuf) -> Result<(i32, Vec<String>)> {
        // Emulated, also where there is KVM: the same everywhere, and nested
        // virtualisation is a matter of luck.
        let mut qemu = shell::program("qemu-system-x86_64", ["-accel", "tcg", "-cpu", "max"]);
        qemu.args(["-m", &self.memory.to_string(), "-smp", "2", "-no-reboot"])
            .args(["-display", "none", "-monitor", "none", "-nic", "none", "-serial", "stdio"])
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(initramfs)
            .args(["-append", APPEND])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = qemu.spawn().context("unable to start qemu-system-x86_64")?;
        let outcome = self.watch(&mut child);
        // It has ended, or must.
        let _ = child.kill();
        let _ = child.wait();
        outcome
    }

    /// Shows the console until the command has ended.
    fn watch(&self, child: &mut Child) -> Result<(i32, Vec<String>)> {
        let console = child.stdout.take().context("qemu without a console")?;
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let deadline = Instant::now() + self.timeout;
        let mut lines = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = match receiver.recv_timeout(left) {
                Ok(line) => String::from_utf8_lossy(&line).trim_end().to_owned(),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!("the virtual machine was not done after {:?}", self.timeout)
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    bail!("the virtual machine ended without a result")
                }
            };
            if let Some(code) = line.strip_prefix(guest::RESULT) {
                let code =
                    code.trim().parse().context("the virtual machine's result is garbled")?;
                return Ok((code, lines));
            }
            println!("vm| {line}");
            std::io::stdout().flush()?;
            lines.push(line);
        }
    }
}

/// The command: without arguments the smoke test.
pub fn main(arguments: &[String]) -> Result<()> {
    let mut vm = Vm::new("");
    vm.modules = MODULES.iter().map(ToString::to_string).collect();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--file" => {
                let pair = arguments.next().and_then(|pair| pair.split_once(':'));
                let (host, guest) = pair.context("--file wants HOST:GUEST")?;
                vm.files.push((host.into(), guest.to_owned()));
            }
            "--timeout" => {
                let seconds = arguments.next().and_then(|text| text.parse().ok());
                vm.timeout = Duration::from_secs(seconds.context("--timeout wants seconds")?);
            }
            "--systemd" => vm.init = Init::Systemd,
            "--" => vm.command = arguments.by_ref().cloned().collect::<Vec<_>>().join(" "),
            other => bail!("unknown argument {other}"),
        }
    }
    if vm.command.is_empty() {
        return smoke();
    }
    match vm.run()?.0 {
        0 => Ok(()),
        code => bail!("the command ended with {code}"),
    }
}

/// On pure v2: the tests of `corten-kernel`'s cgroups, and whole pods with
/// their limits.
pub fn smoke() -> Result<()> {
    let mut vm = Vm::new(
        "set -e\n\
         /tests/cgroup cgroup:: --test-threads 2\n\
         (CORTEN_PROGRAMS=/programs /tests/life --test-threads 1 || { dmesg | tail -5; false; })\n\
         CORTEN_PROGRAMS=/programs /tests/limits --test-threads 1",
    );
    vm.modules = MODULES.iter().map(ToString::to_string).collect();
    vm.files.push((test_program("corten-kernel", &["--lib"])?, "/tests/cgroup".into()));
    for name in ["life", "limits"] {
        let program = test_program("corten-tests", &["--test", name])?;
        vm.files.push((program, format!("/tests/{name}")));
    }
    let programs = crate::build::programs()?;
    for name in ["cortend", "corten-shim"] {
        vm.files.push((programs.join(name), format!("/programs/{name}")));
    }
    // What the tests make their images and their registry with; busybox's own
    // tar lacks what they need.
    vm.files.push(("/bin/tar".into(), "/usr/local/bin/tar".into()));
    vm.files.push(("/usr/bin/docker-registry".into(), "/usr/bin/docker-registry".into()));
    let (code, lines) = vm.run()?;
    if code != 0 {
        bail!("the tests ended with {code} in the virtual machine");
    }
    let green =
        |line: &&String| line.starts_with("test result: ok.") && !line.contains(" 0 passed");
    if lines.iter().filter(green).count() != 3 {
        bail!("not every test program ran its tests in the virtual machine");
    }
    Ok(())
}

/// Builds tests of a package (`--lib`, `--test NAME`) and returns the program.
pub fn test_program(package: &str, which: &[&str]) -> Result<PathBuf> {
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
