//! A home for each runtime: a directory, a cgroup, a registry, and network and
//! mount namespaces of its own, so that several can stand beside each other
//! and nothing of any of them stays.

pub mod keeper;
mod protocol;

use std::fs::File;
use std::io::BufReader;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use corten_kernel::cgroup::Cgroups;

use protocol::{Answer, Order, Task};

pub(crate) use protocol::{hear, say};

/// The first argument of a keeper.
pub const KEEPER: &str = "keeper";

/// Below a home's cgroup: the registry, which is no part of the runtime.
pub const SERVICES: &str = "services";
/// Below a home's cgroup: the runtime's daemons.
pub const SYSTEM: &str = "system";
/// Below a home's cgroup: a group for each pod, as the kubelet makes them.
pub const PODS: &str = "pods";

/// Directories that are written to whatever runtimes are told: each home has
/// its own in their place.
const PRIVATE: [&str; 1] = ["/var/lib/cni"];

/// How long a home may take to vanish.
const PATIENCE: Duration = Duration::from_secs(90);

/// What homes need of the machine, to mount something of their own over it.
/// What the machine did not have goes when this is dropped, after all homes.
#[derive(Debug)]
pub struct Places(Vec<&'static str>);

impl Places {
    /// Makes what is missing.
    ///
    /// # Errors
    /// Without root.
    pub fn make() -> Result<Self> {
        let mut made = Self(Vec::new());
        for path in PRIVATE.into_iter().filter(|path| !Path::new(path).exists()) {
            std::fs::create_dir_all(path).with_context(|| format!("unable to make {path}"))?;
            made.0.push(path);
        }
        Ok(made)
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        for path in &self.0 {
            // Somebody else may have put something there.
            let _ = std::fs::remove_dir(path);
        }
    }
}

/// Where a runtime lives.
#[derive(Debug)]
pub struct Home {
    directory: PathBuf,
    cgroup: String,
    registry: String,
    keeper: Child,
    /// Closed to tell the keeper that it is over.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Home {
    /// Makes one below a directory that is the bench's own.
    ///
    /// # Errors
    /// Without root, or what Debian's packages bring.
    pub fn build(below: &Path, name: &str, without_unified: bool) -> Result<Self> {
        let directory = below.join(name);
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("unable to make {}", directory.display()))?;
        let unique = below.file_name().unwrap_or_default().to_string_lossy();
        let cgroup = format!("/{unique}-{}", name.replace('+', "-"));
        let task = Task { directory: directory.clone(), cgroup: cgroup.clone(), without_unified };
        let own = std::env::current_exe().context("unable to find this program")?;
        let log = File::create(below.join(format!("{name}.keeper.log")))
            .context("unable to make a log for the keeper")?;
        let mut keeper = Command::new("unshare")
            .args(["--mount", "--net", "--propagation", "slave", "--"])
            .arg(own)
            .arg(KEEPER)
            .arg(serde_json::to_string(&task).context("unable to make JSON")?)
            // What interrupts the bench must not reach the one that clears up.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("unable to start unshare (package util-linux)")?;
        let orders = keeper.stdin.take();
        let answers = keeper.stdout.take().context("a keeper without a voice")?;
        let answers = BufReader::new(answers);
        let mut home = Self { directory, cgroup, registry: String::new(), keeper, orders, answers };
        match home.answer().with_context(|| format!("unable to make a home for {name}"))? {
            Answer::Ready { registry } => home.registry = registry,
            other => bail!("the keeper said {other:?}"),
        }
        Ok(home)
    }

    /// A path in its directory, on disk.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The cgroup of everything in it.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// The host and port of its registry.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The name of an image in its registry: `busybox`, `pause`.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}:latest", self.registry)
    }

    /// Starts a daemon: its pid. Its output is appended to a file.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(
        &mut self,
        command: &[String],
        environment: &[(String, String)],
        log: &Path,
    ) -> Result<u32> {
        let (command, environment) = (command.to_vec(), environment.to_vec());
        match self.order(&Order::Start { command, environment, log: log.to_owned() })? {
            Answer::Started { pid } => Ok(pid),
            other => bail!("the keeper said {other:?}"),
        }
    }

    /// Ends a daemon that was started: by SIGTERM, or by SIGKILL.
    ///
    /// # Errors
    /// If there is no such daemon.
    pub fn end(&mut self, pid: u32, politely: bool) -> Result<()> {
        self.order(&Order::End { pid, politely }).map(drop)
    }

    /// Runs a program in the runtime's namespaces to its end: what it printed.
    ///
    /// # Errors
    /// If it fails.
    pub fn run(&mut self, command: &[&str]) -> Result<String> {
        let owned = command.iter().map(|word| (*word).to_owned()).collect();
        match self.order(&Order::Run { command: owned })? {
            Answer::Ran { success: true, output } => Ok(output),
            Answer::Ran { output, .. } => bail!("{} failed: {output}", command.join(" ")),
            other => bail!("the keeper said {other:?}"),
        }
    }

    fn order(&mut self, order: &Order) -> Result<Answer> {
        say(self.orders.as_mut().context("the keeper has gone")?, order)?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Answer> {
        hear::<Answer>(&mut self.answers)?.context("the keeper has died")?.well()
    }

    /// Takes everything away, and says whether that worked.
    ///
    /// # Errors
    /// If something stays.
    pub fn leave(mut self) -> Result<()> {
        self.end_keeper()
    }

    fn end_keeper(&mut self) -> Result<()> {
        if self.orders.take().is_none() {
            return Ok(());
        }
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.keeper.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                self.keeper.kill()?;
                bail!("the keeper of {} did not end", self.directory.display());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        // Groups of hierarchies that the keeper did not see.
        Cgroups::probe()?.remove(&self.cgroup)?;
        if !status.success() {
            let mut log = self.directory.clone().into_os_string();
            log.push(".keeper.log");
            let said = std::fs::read_to_string(log).unwrap_or_default();
            bail!("{} was not cleared: {}", self.directory.display(), said.trim_end());
        }
        Ok(())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Err(error) = self.end_keeper() {
            eprintln!("bench: {error:#}");
        }
    }
}
