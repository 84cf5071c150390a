//! The keeper of a runtime's home: a process in the runtime's namespaces that
//! starts its daemons, and takes everything away when the bench is gone,
//! whatever became of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{stdin, stdout};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use corten_image::testing::{ImageBuilder, Registry};
use corten_kernel::cgroup::{Cgroups, Resources};
use corten_kernel::mount;
use corten_kernel::netlink::loopback_up;
use corten_tests::{images, tree};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Pid, Signal};

use super::protocol::{Answer, Order, Task, hear, say};
use super::{PRIVATE, SERVICES, SYSTEM};

/// How long things may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Keeps a home until nobody gives orders any more. To be called in new mount
/// and network namespaces.
///
/// # Errors
/// If the home cannot be made, or something of it stays.
pub fn keep(task: &str) -> Result<()> {
    let task: Task = serde_json::from_str(task).context("unable to understand the task")?;
    let mut out = stdout().lock();
    let kept = match Keeper::prepare(&task) {
        Ok(mut keeper) => {
            let registry = keeper.registry.address().to_string();
            let outcome =
                say(&mut out, &Answer::Ready { registry }).and_then(|()| keeper.serve(&mut out));
            drop(keeper);
            outcome
        }
        Err(error) => say(&mut out, &Answer::Failed { error: format!("{error:#}") }),
    };
    clear(&task)?;
    kept
}

struct Keeper {
    registry: Registry,
    children: BTreeMap<u32, Child>,
}

impl Keeper {
    fn prepare(task: &Task) -> Result<Self> {
        // In memory, as on a node.
        let run = Path::new("/run");
        let nothing: Option<&std::ffi::CStr> = None;
        rustix::mount::mount("tmpfs", run, "tmpfs", MountFlags::NOSUID, nothing)
            .context("unable to mount a tmpfs at /run")?;
        for path in PRIVATE {
            let own = task.directory.join("private").join(path.trim_start_matches('/'));
            std::fs::create_dir_all(&own)
                .with_context(|| format!("unable to make {}", own.display()))?;
            rustix::mount::mount_bind(&own, path)
                .with_context(|| format!("unable to mount at {path}"))?;
        }
        if task.without_unified {
            // Where there is none, nothing has to be hidden.
            let _ = rustix::mount::unmount("/sys/fs/cgroup/unified", UnmountFlags::DETACH);
        }
        let network = File::open("/proc/self/ns/net").context("unable to open a namespace")?;
        loopback_up(std::os::fd::AsFd::as_fd(&network))?;
        let cgroups = Cgroups::probe()?;
        for name in [SERVICES, SYSTEM] {
            cgroups.create(&format!("{}/{name}", task.cgroup), &Resources::default())?;
        }
        // What serves the bench is not charged to the runtime.
        enter(&cgroups, &format!("{}/{SERVICES}", task.cgroup))?;
        let registry = registry()?;
        enter(&cgroups, &format!("{}/{SYSTEM}", task.cgroup))?;
        Ok(Self { registry, children: BTreeMap::new() })
    }

    fn serve(&mut self, out: &mut impl std::io::Write) -> Result<()> {
        let mut orders = stdin().lock();
        while let Some(order) = hear(&mut orders)? {
            let answer = self.obey(order);
            let answer =
                answer.unwrap_or_else(|error| Answer::Failed { error: format!("{error:#}") });
            say(out, &answer)?;
        }
        Ok(())
    }

    fn obey(&mut self, order: Order) -> Result<Answer> {
        match order {
            Order::Start { command, environment, log } => {
                let log = File::options().create(true).append(true).open(&log)?;
                let mut command = program(&command)?;
                command.envs(environment).stdin(Stdio::null()).process_group(0);
                command.stdout(log.try_clone()?).stderr(log);
                let child = command.spawn().with_context(|| {
                    format!("unable to start {}", command.get_program().display())
                })?;
                let pid = child.id();
                self.children.insert(pid, child);
                Ok(Answer::Started { pid })
            }
            Order::End { pid, politely } => {
                let mut child = self.children.remove(&pid).context("no such program")?;
                let signal = if politely { Signal::TERM } else { Signal::KILL };
                rustix::process::kill_process(Pid::from_child(&child), signal)?;
                let deadline = Instant::now() + PATIENCE;
                while child.try_wait()?.is_none() {
                    if Instant::now() > deadline {
                        child.kill()?;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(Answer::Ended)
            }
            Order::Run { command } => {
                let output = program(&command)?.stdin(Stdio::null()).output()?;
                let said = [output.stdout, output.stderr].concat();
                let output_text = String::from_utf8_lossy(&said).into_owned();
                Ok(Answer::Ran { success: output.status.success(), output: output_text })
            }
        }
    }
}

fn program(command: &[String]) -> Result<Command> {
    let (program, arguments) = command.split_first().context("nothing to run")?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// A registry with what pods are made of.
fn registry() -> Result<Registry> {
    let pause = xtask::images::pause()?;
    let layer = tree::tree(|root| tree::copy_as(root, &pause, "pause"));
    let registry = Registry::start();
    images::busybox().push(&registry, "busybox", "latest");
    ImageBuilder::new().tar(layer).cmd(&["/pause"]).push(&registry, "pause", "latest");
    Ok(registry)
}

/// Moves this process into a cgroup, and what it starts with it.
fn enter(cgroups: &Cgroups, group: &str) -> Result<()> {
    let group = cgroups.open(group)?;
    let names = std::fs::read_dir("/sys/fs/cgroup").context("unable to list cgroups")?;
    let names = names.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let unified = (cgroups.is_unified()).then(String::new);
    for directory in names.chain(unified).filter_map(|name| group.directory_at(&name)) {
        let file = directory.join("cgroup.procs");
        std::fs::write(&file, "0")
            .with_context(|| format!("unable to enter {}", file.display()))?;
    }
    Ok(())
}

/// Ends and removes whatever is left of a home.
fn clear(task: &Task) -> Result<()> {
    let cgroups = Cgroups::probe()?;
    // Out of the group that is emptied: we are not to be killed with it.
    enter_root()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let group = cgroups.open(&task.cgroup)?;
        if !cgroups.exists(&task.cgroup)? || group.pids()?.is_empty() {
            break;
        }
        group.kill(Signal::KILL)?;
        if Instant::now() > deadline {
            bail!("processes of {} do not end: {:?}", task.cgroup, group.pids()?);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // What was mounted last lies on top.
    for mount in mount::mount_list()?.iter().rev() {
        if mount.target.starts_with(&task.directory) {
            let _ = rustix::mount::unmount(&mount.target, UnmountFlags::DETACH);
        }
    }
    match std::fs::remove_dir_all(&task.directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("unable to remove {}", task.directory.display()))?;
        }
        Ok(()) | Err(_) => {}
    }
    cgroups.remove(&task.cgroup)?;
    Ok(())
}

/// Moves this process to the root of every hierarchy.
fn enter_root() -> Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    let mut roots = vec![root.to_owned()];
    if !root.join("cgroup.controllers").exists() {
        let names = std::fs::read_dir(root).context("unable to list cgroups")?;
        roots = names.flatten().map(|entry| entry.path()).collect();
    }
    for file in roots.iter().map(|root| root.join("cgroup.procs")).filter(|file| file.exists()) {
        std::fs::write(&file, "0")
            .with_context(|| format!("unable to enter {}", file.display()))?;
    }
    Ok(())
}
