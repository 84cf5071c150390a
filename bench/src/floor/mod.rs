//! The floor: what the kernel alone needs for the bench's pod, to see how far
//! from the limit a runtime is.
//!
//! **In it**: the pod's network, IPC and UTS namespaces with `lo`, host name and
//! sysctls; a veth pair on a bridge with addresses and routes; /dev/shm; the
//! three files of /etc; a monitor, cloned and executed; the cgroups in every
//! hierarchy with their limits; an overlay with an upper of its own; a log file
//! and pipes; the clone into new PID and mount namespaces, and every step of
//! the very plan that Corten's compiler makes for this container, up to the
//! `execve` of `sleep`. Of an exec: pipes, the entry into namespaces and
//! cgroups, the same limits, capabilities and filter, `execve`, the end. Of the
//! end of a pod: SIGKILL, the wait, the cgroups, the files, the namespaces.
//!
//! **Not in it**: gRPC, requests and their validation, image lookups, records
//! and their fsyncs, OCI specs and their compilation (done before the first
//! pod), a daemon, a protocol to the monitor (the floor's process itself is the
//! container's parent, and nobody reads the log's pipes), leases of addresses,
//! packet rules, a group for each exec, a path for the network namespace; and
//! the kubelet's work, the pod's cgroup and its log directory. What a container
//! has written is renamed in time, and deleted out of it, as by Corten.
//!
//! It goes the way of CRI: network and monitor are there before the container
//! is begun, and this one waits for Start; within a call things are done by one
//! thread, beside the children. These begin in the small mount namespace that
//! shims have, since the cost of a new one grows with the mounts of the old.

mod network;
mod plan;
mod pod;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use corten_kernel::cgroup::Cgroups;
use corten_kernel::launch::NamespaceKind;
use corten_kernel::netlink::make_namespace_set;
use corten_kernel::{memory, ns};
use corten_tests::tree;
use serde::{Deserialize, Serialize};

use crate::home::{hear, say};
use crate::measure::clock::Clock;

use network::Network;
use plan::Plans;
use pod::{Mounts, Stage, directory};

/// The first argument of the process that makes the floor's pods.
pub const FLOOR: &str = "floor";

/// Quiet between the parts of a pod's life, as other runtimes have it.
const PAUSE: Duration = Duration::from_millis(150);
/// The static program that pods' monitors and containers run.
const BUSYBOX: &str = "/bin/busybox";
/// Users and groups of the image.
const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n";
const GROUP: &[u8] = b"root:x:0:\n";

/// When a pod's network, IPC and UTS namespaces, and its container's root
/// filesystem, are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pool {
    /// Before its time begins, as Corten keeps some ready.
    Ahead,
    /// Within its time.
    Within,
}

/// Times of one pod, in milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Life {
    /// As RunPodSandbox.
    pub sandbox: f64,
    /// As CreateContainer.
    pub create: f64,
    /// As StartContainer.
    pub start: f64,
    /// ExecSync of `true`.
    pub exec: f64,
    /// Stop and remove, of container and sandbox.
    pub down: f64,
}

/// What is said of a pod.
type Told = std::result::Result<Life, String>;

/// A process that makes pods on demand, on a machine of its own. A process, and
/// not a thread: what the bench has in memory would be copied for each child.
pub struct Floor {
    process: Child,
    /// None only while this is dropped.
    asks: Option<ChildStdin>,
    lives: BufReader<ChildStdout>,
}

impl Floor {
    /// Prepares everything that can be prepared. Root filesystems lie below this
    /// directory.
    ///
    /// # Errors
    /// If there can be no such process.
    pub fn start(below: &Path) -> Result<Self> {
        let own = std::env::current_exe().context("unable to find this program")?;
        let mut process = Command::new(own)
            .arg(FLOOR)
            .arg(below)
            // What interrupts the bench must not reach who clears up.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("unable to start the floor")?;
        let asks = process.stdin.take();
        let lives = process.stdout.take().context("a floor without a voice")?;
        Ok(Self { process, asks, lives: BufReader::new(lives) })
    }

    /// One pod: made, an exec, taken away.
    ///
    /// # Errors
    /// If the kernel refuses something; it is of no use any more then.
    pub fn live(&mut self, pool: Pool) -> Result<Life> {
        if let Some(asks) = &mut self.asks {
            // A process that has ended has said why.
            let _ = say(asks, &pool);
        }
        let told = hear::<Told>(&mut self.lives)?.context("the floor has died")?;
        told.map_err(anyhow::Error::msg)
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // It clears up and ends.
        self.asks = None;
        let _ = self.process.wait();
    }
}

/// Makes pods in this process, each when it is asked for, until nobody asks any
/// more. Root filesystems lie below this directory.
///
/// # Errors
/// Without root, a tmpfs at /run, or Debian's busybox-static; and if nobody
/// listens. Who listens is told, too.
pub fn serve(
    below: &Path,
    mut asked: impl BufRead + Send,
    mut answers: impl Write + Send,
) -> Result<()> {
    let outcome = prepare(below, &mut asked, &mut answers);
    if let Err(error) = &outcome {
        say(&mut answers, &Told::Err(format!("{error:#}")))?;
    }
    outcome
}

fn prepare(
    below: &Path,
    asked: &mut (impl BufRead + Send),
    answers: &mut (impl Write + Send),
) -> Result<()> {
    let place = |parent| tempfile::Builder::new().prefix("corten-floor-").tempdir_in(parent);
    let (data, state) = (place(below)?, place(Path::new("/run"))?);
    for name in ["layer", "spares", "snapshots", "trash", "logs"] {
        std::fs::create_dir(data.path().join(name))?;
    }
    tree::busybox(&data.path().join("layer"), Path::new(BUSYBOX));
    let host = make_namespace_set()?;
    let program = File::open(BUSYBOX)?;
    let small = ns::small_mount_namespace(program.as_fd())?;
    let mounts = Mounts { own: ns::own(NamespaceKind::Mount)?, small };
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let cgroup = cgroup_name();
    ns::run_in(&[host.net.as_fd()], || {
        let cgroups = Cgroups::probe()?;
        let lived = stage(&cgroups, &cgroup, null, mounts, [data.path(), state.path()])
            .and_then(|stage| act(stage, asked, answers));
        // Also what a pod that failed has left.
        let group = cgroups.open(&cgroup)?;
        group.kill(rustix::process::Signal::KILL)?;
        cgroups.remove(&cgroup)?;
        lived
    })?
}

/// The cgroup of all pods of this process.
fn cgroup_name() -> String {
    format!("/corten-floor-{}", std::process::id())
}

fn stage(
    cgroups: &Cgroups,
    cgroup: &str,
    null: File,
    mounts: Mounts,
    [data, state]: [&Path; 2],
) -> Result<Stage> {
    let plans = Plans::compile(cgroups, &plan::spec(cgroups, PASSWD, GROUP)?)?;
    cgroups.create(cgroup, &Default::default())?;
    Ok(Stage {
        data: data.to_owned(),
        state: state.to_owned(),
        layer: directory(&data.join("layer"))?,
        null,
        cgroups: cgroups.clone(),
        cgroup: cgroup.to_owned(),
        network: Network::make()?,
        mounts,
        plans,
    })
}

fn act(mut stage: Stage, asked: &mut impl BufRead, answers: &mut impl Write) -> Result<()> {
    // What compiling plans took is not to be copied for each child.
    memory::give_back_heap();
    for number in 2..u16::MAX {
        let Some(pool) = hear::<Pool>(asked)? else { break };
        let life = live(&mut stage, number, pool)?;
        say(answers, &Told::Ok(life))?;
    }
    Ok(())
}

fn live(stage: &mut Stage, number: u16, pool: Pool) -> Result<Life> {
    let (namespaces, root) = match pool {
        Pool::Ahead => (Some(make_namespace_set()?), Some(stage.spare(number)?)),
        Pool::Within => (None, None),
    };
    stage.expect(number)?;
    std::thread::sleep(PAUSE);
    let mut life = Life::default();
    let mut clock = Clock::start();
    let sandbox = stage.sandbox(number, namespaces)?;
    life.sandbox = clock.lap();
    let mut container = stage.create(&sandbox, root)?;
    life.create = clock.lap();
    stage.start(&mut container)?;
    life.start = clock.lap();
    std::thread::sleep(PAUSE);
    let mut clock = Clock::start();
    stage.exec(&container)?;
    life.exec = clock.lap();
    std::thread::sleep(PAUSE);
    let mut clock = Clock::start();
    stage.take_down(sandbox, container)?;
    life.down = clock.lap();
    stage.sweep(number)?;
    Ok(life)
}

#[cfg(test)]
mod tests;
