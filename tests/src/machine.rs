//! A machine that exists for one test.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use corten_image::testing::{ImageBuilder, Registry};
use corten_kernel::netlink::{in_network_namespace, make_namespace_set};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::daemon::Daemon;
use crate::drift::Drift;
use crate::group;
use crate::images;
use crate::service::Service;
use crate::sweep::sweep;

/// Handlers of the OCI runtimes that distributions have.
const OCI_RUNTIMES: &str = r#"
[runtimes.runc]
path = "/usr/sbin/runc"
[runtimes.crun]
path = "/usr/bin/crun"
options = ["--cgroup-manager=cgroupfs"]
"#;

/// Stack of the thread that runs a test.
const STACK_BYTES: usize = 8 << 20;

/// A network and an IPC namespace, a directory, a cgroup and a registry.
pub struct Machine {
    directory: tempfile::TempDir,
    /// Volatile state, as on a node in memory.
    memory: Option<tempfile::TempDir>,
    registry: Registry,
    /// Images that are in the registry already.
    pushed: Mutex<BTreeSet<String>>,
    cgroup: String,
    settings: Settings,
}

/// What differs between machines.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// CRI's pods use the built-in bridge.
    pub builtin_network: bool,
    /// The daemon sees the v1 hierarchies alone: some OCI runtimes refuse a
    /// machine that has both.
    pub without_unified: bool,
    /// The runtime handlers `runc` and `crun`.
    pub oci_runtimes: bool,
    /// More lines of configuration, after all others.
    pub configuration: String,
}

impl Machine {
    /// Runs a test on a machine with a running daemon and the built-in network.
    pub fn run(test: impl AsyncFnOnce(&Self, &mut Daemon) + Send) {
        let settings = Settings { builtin_network: true, ..Settings::default() };
        Self::run_with(settings, test);
    }

    /// Runs a test on a machine with these settings.
    pub fn run_with(settings: Settings, test: impl AsyncFnOnce(&Self, &mut Daemon) + Send) {
        let own = make_namespace_set().expect("namespaces");
        // A thread begins in the namespace of the thread that makes it; the one
        // that enters has a small stack.
        in_network_namespace(own.net.as_fd(), || {
            // Segments of shared memory outlive whoever made them.
            let ipc = Some(LinkNameSpaceType::InterProcessCommunication);
            move_into_link_name_space(own.ipc.as_fd(), ipc).expect("an IPC namespace is entered");
            std::thread::scope(|scope| {
                let run = || Self::inside(settings, test);
                let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
                let test = thread.spawn_scoped(scope, run).expect("a thread is started");
                if let Err(panic) = test.join() {
                    std::panic::resume_unwind(panic);
                }
            });
            Ok(())
        })
        .expect("the network namespace is entered");
    }

    fn inside(settings: Settings, test: impl AsyncFnOnce(&Self, &mut Daemon)) {
        // The runtime's threads are made here, inside the namespace.
        runtime().block_on(async {
            let machine = Self::new(settings);
            let drift = Drift::of(&machine);
            let mut daemon = Daemon::start(&machine).await;
            test(&machine, &mut daemon).await;
            daemon.clean_up().await;
            drift.check(&machine);
            daemon.stop().await;
        });
    }

    /// Runs a test in the namespaces that we are in, with the daemon that is
    /// installed here as a service of systemd.
    pub fn run_as_service(settings: Settings, test: impl AsyncFnOnce(&Self, &Service)) {
        runtime().block_on(async {
            let machine = Self::new(settings);
            let drift = Drift::of(&machine);
            let service = Service::start(&machine);
            test(&machine, &service).await;
            service.client().await.remove_everything().await;
            drift.check(&machine);
        });
    }

    fn new(settings: Settings) -> Self {
        let directory = tempfile::Builder::new().prefix("corten-").tempdir().expect("a directory");
        let memory = in_memory();
        let cgroup = cgroup_name(directory.path());
        let registry = Registry::start();
        let pushed = Mutex::default();
        Self { directory, memory, registry, pushed, cgroup, settings }
    }

    /// A path of the machine.
    pub fn path(&self, name: &str) -> PathBuf {
        if let Some(memory) = &self.memory
            && Path::new(name).starts_with("state")
        {
            return memory.path().join(name);
        }
        self.directory.path().join(name)
    }

    /// The cgroup below which all of its pods are.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// The cgroup of a pod whose client named no parent.
    pub fn pod_group(&self, pod: &str) -> String {
        if group::by_systemd() {
            format!("{}/corten-{pod}.scope", self.cgroup)
        } else {
            format!("{}/{pod}", self.cgroup)
        }
    }

    /// The registry's host and port.
    pub fn registry(&self) -> String {
        self.registry.address().to_string()
    }

    /// The registry itself.
    pub fn registry_server(&self) -> &Registry {
        &self.registry
    }

    /// The name of an image in the registry, where it is put when it is first
    /// asked for: `busybox`, `nginx`.
    pub fn image(&self, name: &str) -> String {
        self.image_as(name, name)
    }

    /// The name of an image that is in another repository of the registry.
    pub fn image_as(&self, name: &str, repository: &str) -> String {
        let mut pushed = self.pushed.lock().expect("no test panicked here");
        if pushed.insert(repository.to_owned()) {
            images::named(name).push(&self.registry, repository, "latest");
        }
        format!("{}/{repository}:latest", self.registry())
    }

    /// Puts an image of the test's own into the registry: its name.
    pub fn push(&self, image: &ImageBuilder, name: &str) -> String {
        image.push(&self.registry, name, "latest");
        format!("{}/{name}:latest", self.registry())
    }

    /// What differs from others.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The daemon's configuration.
    pub fn configuration(&self) -> String {
        let at = |name: &str| self.path(name).display().to_string();
        let shim = crate::binaries::directory().join("corten-shim");
        let provider = if self.settings.builtin_network { "builtin" } else { "cni" };
        let mut text = format!(
            r#"
root = "{root}"
state = "{state}"
socket = "{socket}"
shim = "{shim}"
log_dir = "{logs}"
cgroup.root = "{cgroup}"
registry.hosts_dirs = ["{hosts}"]
device.cdi_dirs = ["{cdi}"]
network.cri = "{provider}"
network.cni.conf_dirs = ["{cni}"]
network.cni.bin_dirs = ["{plugins}", "/usr/lib/cni"]
"#,
            root = at("data"),
            state = at("state"),
            socket = at("corten.sock"),
            shim = shim.display(),
            logs = at("logs"),
            cgroup = cgroup_root(self.directory.path()),
            hosts = at("hosts"),
            cdi = at("cdi"),
            cni = at("cni"),
            plugins = at("plugins"),
        );
        if self.settings.oci_runtimes {
            text.push_str(OCI_RUNTIMES);
        }
        text.push_str(&self.settings.configuration);
        text
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        sweep(self);
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("a runtime")
}

/// A directory on a tmpfs, where this machine has one.
fn in_memory() -> Option<tempfile::TempDir> {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    let tmpfs = |path: &&str| {
        rustix::fs::statfs(*path).is_ok_and(|found| found.f_type as u64 == TMPFS_MAGIC)
    };
    let parent = ["/run", "/dev/shm"].into_iter().find(tmpfs)?;
    // As /run is: the root of a user namespace can get through.
    let passable = std::fs::Permissions::from_mode(0o711);
    let made = tempfile::Builder::new().prefix("corten-").permissions(passable).tempdir_in(parent);
    Some(made.expect("a directory"))
}

/// What the daemon is told of cgroups: a name like that of the machine's
/// directory, which is unique.
fn cgroup_root(directory: &Path) -> String {
    let name = directory.file_name().expect("a directory has a name");
    format!("/{}", name.to_string_lossy())
}

/// The cgroup that this is: a slice, where systemd makes them.
fn cgroup_name(directory: &Path) -> String {
    let root = cgroup_root(directory);
    if group::by_systemd() { format!("/corten.slice{root}.slice") } else { root }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drift::mounted;

    #[test]
    fn mounts_go_with_the_machine_also_those_of_volatile_state() {
        let machine = Machine::new(Settings::default());
        let places = ["data/a", "state/b"].map(|name| machine.path(name));
        for place in &places {
            std::fs::create_dir_all(place).expect("a directory");
            rustix::mount::mount_bind(place, place).expect("a mount");
        }
        let targets: Vec<PathBuf> = mounted(&machine).into_iter().map(|it| it.target).collect();
        assert_eq!(targets, places);
        drop(machine);
        assert!(places.iter().all(|place| !place.exists()), "{places:?}");
    }
}
