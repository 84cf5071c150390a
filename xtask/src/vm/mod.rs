//! A virtual machine with Debian's cloud kernel, cgroup v2 alone, and files of
//! our choice, in which one command runs. `cargo xtask vm` runs those tests in
//! it that need v2, systemd or AppArmor; they are the same programs that run
//! on this machine.

mod guest;
mod initramfs;
mod modules;
pub mod packages;
mod suites;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

pub use guest::Init;
pub use suites::smoke;

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
    // For CRIU, which asks the kernel for sockets.
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "raw_diag",
    "unix_diag",
    "af_packet_diag",
    "netlink_diag",
    // ... and for the connections that are followed.
    "nf_conntrack_netlink",
];

/// The kernel's parameters. It must not measure its timers: they come late
/// where this machine is busy, and it would take them for broken.
const APPEND: &str = "console=ttyS0 loglevel=3 panic=-1 random.trust_cpu=on no_timer_check \
    systemd.show_status=0 systemd.unified_cgroup_hierarchy=1";

/// What confines programs besides users and modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Security {
    /// Debian's own choice.
    #[default]
    AppArmor,
    /// Which labels, but forbids nothing: our machine has no labels on its
    /// files that a policy could judge by.
    Selinux,
}

impl Security {
    fn parameters(self) -> &'static str {
        match self {
            Self::AppArmor => "apparmor=1 security=apparmor",
            Self::Selinux => "selinux=1 security=selinux enforcing=0",
        }
    }
}

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
    /// What confines.
    pub security: Security,
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
            security: Security::default(),
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
            .args(["-append", &format!("{APPEND} {}", self.security.parameters())])
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

/// The command: without arguments all tests that belong into it, with `--smoke`
/// a few, with `--only` one part.
pub fn main(arguments: &[String]) -> Result<()> {
    let mut vm = Vm::new("");
    vm.modules = MODULES.iter().map(ToString::to_string).collect();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--smoke" => return suites::smoke(),
            "--only" => return suites::only(arguments.next().context("--only wants a name")?),
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
            "--selinux" => vm.security = Security::Selinux,
            "--" => vm.command = arguments.by_ref().cloned().collect::<Vec<_>>().join(" "),
            other => bail!("unknown argument {other}"),
        }
    }
    if vm.command.is_empty() {
        return suites::full();
    }
    match vm.run()?.0 {
        0 => Ok(()),
        code => bail!("the command ended with {code}"),
    }
}
