//! A real kubelet on a machine of the kit: alone, without an API server, its
//! pods are files in a directory.
//!
//! It lives in a mount namespace of its own, where the few places of a machine
//! that no flag moves (`/var/lib/kubelet`, `/var/log/containers`, sysctls) are
//! its own. What it mounts for its pods reaches the daemon nevertheless.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use corten_kernel::cgroup::{Cgroups, Resources};
use corten_kernel::mount;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
use serde_json::{Value, json};

use crate::cable;
use crate::daemon::Daemon;
use crate::machine::Machine;
use crate::tool;

pub use xtask::tools::Age;

/// Its port, with TLS.
pub const PORT: u16 = 10250;
/// Its port without TLS, for reading.
const READ_ONLY_PORT: u16 = 10255;
/// How long a test waits for what a kubelet does: it looks at some things only
/// every ten seconds.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Sysctls that a kubelet sets on its machine, which is not this one.
const SYSCTLS: &str = "vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
    kernel/keys/root_maxkeys kernel/keys/root_maxbytes";

/// Makes the mount namespace, then becomes the kubelet. `$0` is a directory
/// for copies of sysctls. Mounts made here must not reach the machine, those
/// below the kubelet's directory must: so propagation changes place by place.
const ENTER: &str = r#"set -e
for place in /proc /var/lib /var/log; do mount --make-slave "$(stat -c %m $place)"; done
mount -t tmpfs tmpfs /var/lib
mount -t tmpfs tmpfs /var/log
for name in $SYSCTLS; do
  mkdir -p "$0/${name%/*}"
  cat "/proc/sys/$name" > "$0/$name"
  mount --bind "$0/$name" "/proc/sys/$name"
done
exec "$@"
"#;

/// What differs between kubelets.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which one.
    pub age: Age,
    /// Feature gates, and whether they are open.
    pub gates: Vec<(&'static str, bool)>,
    /// More of its configuration.
    pub configuration: Value,
}

impl Default for Settings {
    fn default() -> Self {
        Self { age: Age::Newest, gates: Vec::new(), configuration: json!({}) }
    }
}

/// A running kubelet.
pub struct Kubelet {
    process: Child,
    /// Its directory, a mount that its mount namespace shares with the machine's.
    directory: PathBuf,
    log: PathBuf,
    cgroup: String,
    socket: PathBuf,
    settings: Settings,
}

impl Kubelet {
    /// Starts one, and waits until it answers.
    ///
    /// # Panics
    /// If it cannot be built or does not start.
    pub async fn start(machine: &Machine, daemon: &Daemon, settings: Settings) -> Self {
        for path in ["kubelet/manifests", "kubelet/root", "kubelet/sysctls", "kubelet-logs"] {
            fs::create_dir_all(machine.path(path)).expect("a directory is made");
        }
        cable::plug_in();
        let directory = machine.path("kubelet");
        mount_bind(&directory, &directory).expect("a bind mount");
        mount_change(&directory, MountPropagationFlags::SHARED).expect("a shared mount");
        let cgroup = format!("{}/kubelet", machine.cgroup());
        let cgroups = Cgroups::probe().expect("cgroups are found");
        cgroups.create(&cgroup, &Resources::default()).expect("a cgroup is made");
        let (log, socket) = (machine.path("kubelet.log"), daemon.socket().to_owned());
        let process = spawn(&directory, &log, &cgroup, &socket, &settings);
        let mut kubelet = Self { process, directory, log, cgroup, socket, settings };
        kubelet.serves().await;
        kubelet
    }

    /// `kill -9`.
    ///
    /// # Panics
    /// If it is not there.
    pub fn kill(&mut self) {
        self.process.kill().expect("the kubelet is killed");
        self.process.wait().expect("the kubelet is reaped");
    }

    /// Starts it again after [`Kubelet::kill`].
    pub async fn start_again(&mut self) {
        self.process =
            spawn(&self.directory, &self.log, &self.cgroup, &self.socket, &self.settings);
        self.serves().await;
    }

    /// Changes what differs, from its next start.
    pub fn settings(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// Removes all of its pods, then itself and what it made.
    ///
    /// # Panics
    /// If something of it does not go.
    pub async fn stop(mut self) {
        for manifest in fs::read_dir(self.directory.join("manifests")).expect("a list").flatten() {
            fs::remove_file(manifest.path()).expect("a manifest is removed");
        }
        self.gone().await;
        self.kill();
        self.clean_up();
        cable::unplug();
    }

    /// Waits until it has ended all of its pods: a static pod without a
    /// manifest is not in its list anymore while it ends.
    pub async fn gone(&self) {
        let gone = |kubelet: &Self| kubelet.pods().is_empty() && kubelet.processes().is_empty();
        self.waits("all pods are gone", |kubelet| gone(kubelet).then_some(())).await;
    }

    fn clean_up(&self) {
        let mut mounts = mount::mount_list().unwrap_or_default();
        mounts.retain(|mount| mount.target.starts_with(&self.directory));
        for mount in mounts.iter().rev() {
            let _ = unmount(&mount.target, UnmountFlags::DETACH);
        }
        if let Ok(cgroups) = Cgroups::probe() {
            if let Ok(group) = cgroups.open(&self.cgroup) {
                let _ = group.kill(rustix::process::Signal::KILL);
            }
            let _ = cgroups.remove(&self.cgroup);
        }
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Gives it a pod to keep up, or a changed one.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn put(&self, pod: &Value) {
        let name = pod["metadata"]["name"].as_str().expect("a pod has a name");
        let path = self.manifest(name);
        // Names that begin with a dot it leaves alone.
        let fresh = path.with_file_name(format!(".{name}"));
        fs::write(&fresh, pod.to_string()).expect("a manifest is written");
        fs::rename(&fresh, &path).expect("a manifest is put in its place");
    }

    /// Takes a pod away from it.
    ///
    /// # Panics
    /// If there is none.
    pub fn take(&self, name: &str) {
        fs::remove_file(self.manifest(name)).expect("a manifest is removed");
    }

    fn manifest(&self, name: &str) -> PathBuf {
        self.directory.join("manifests").join(format!("{name}.json"))
    }

    /// What it answers to a reader at this path, if it answers well.
    pub fn get(&self, path: &str) -> Option<String> {
        get(READ_ONLY_PORT, path)
    }

    /// Its pods, as `/pods` tells them.
    pub fn pods(&self) -> Vec<Value> {
        let text = self.get("/pods").unwrap_or_default();
        let list: Value = serde_json::from_str(&text).unwrap_or_default();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// A pod by the name in its manifest.
    pub fn pod(&self, name: &str) -> Option<Value> {
        // A static pod's name ends with the node's.
        let name = format!("{name}-{NODE}");
        self.pods().into_iter().find(|pod| pod["metadata"]["name"] == name.as_str())
    }

    /// Waits until a pod is such that `probe` gives something.
    pub async fn until_pod<T>(
        &self,
        name: &str,
        what: &str,
        probe: impl Fn(&Value) -> Option<T>,
    ) -> T {
        let last = std::cell::RefCell::new(None);
        let found = self.may(|kubelet| {
            let pod = kubelet.pod(name)?;
            let found = probe(&pod);
            *last.borrow_mut() = Some(pod);
            found
        });
        match found.await {
            Some(found) => found,
            None => {
                let status = last.take().map(|pod| pod["status"].clone()).unwrap_or_default();
                panic!("waited in vain until {what} ({name}): {status:#}")
            }
        }
    }

    /// Waits until every container of a pod is ready: the pod.
    pub async fn ready(&self, name: &str) -> Value {
        self.until_pod(name, "the pod is ready", |pod| {
            (condition(pod, "Ready") == Some("True")).then(|| pod.clone())
        })
        .await
    }

    /// Waits for something that it does.
    ///
    /// # Panics
    /// If it does not come.
    pub async fn waits<T>(&self, what: &str, probe: impl Fn(&Self) -> Option<T>) -> T {
        self.may(probe).await.unwrap_or_else(|| panic!("waited in vain until {what}"))
    }

    /// Likewise, but it may not come.
    pub async fn may<T>(&self, probe: impl Fn(&Self) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(found) = probe(self) {
                return Some(found);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        None
    }

    /// The client of its port with TLS, with its first argument and the path
    /// that it asks for: `visitor("get", "/containerLogs/…")`.
    pub fn visitor(&self, arguments: &[&str], path: &str) -> Command {
        let mut command = Command::new(visitor());
        command.args(arguments).arg(format!("https://127.0.0.1:{PORT}{path}"));
        command.stdin(Stdio::null());
        command
    }

    /// What a container wrote, as the kubelet tells it: `/containerLogs`.
    pub fn said(&self, pod: &str, container: &str) -> String {
        let path = format!("/containerLogs/default/{pod}-{NODE}/{container}");
        let output = self.visitor(&["get"], &path).output().expect("the visitor can be run");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A counter or gauge of its own metrics, summed over all labels that
    /// `matching` is part of.
    pub fn metric(&self, name: &str, matching: &str) -> f64 {
        let text = self.get("/metrics").unwrap_or_default();
        let values = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let rest = series.strip_prefix(name)?;
            let whole = rest.is_empty() || rest.starts_with('{');
            (whole && rest.contains(matching)).then(|| value.parse::<f64>().ok())?
        });
        values.sum()
    }

    /// All processes of its pods.
    ///
    /// # Panics
    /// If there are no cgroups.
    pub fn processes(&self) -> BTreeSet<i32> {
        let cgroups = Cgroups::probe().expect("cgroups are found");
        let (mut found, mut groups) = (BTreeSet::new(), vec![self.cgroup.clone()]);
        while let Some(group) = groups.pop() {
            // A group may go while we look.
            let below = cgroups.children(&group).unwrap_or_default();
            groups.extend(below.iter().map(|name| format!("{group}/{name}")));
            let pids = cgroups.open(&group).and_then(|group| group.pids());
            found.extend(pids.unwrap_or_default());
        }
        found
    }

    async fn serves(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().expect("the kubelet can be asked") {
                panic!("the kubelet ended with {status}");
            }
            if self.get("/pods").is_some() {
                return;
            }
            assert!(Instant::now() < deadline, "the kubelet does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Kubelet {
    /// A failing test shows what the kubelet complained of.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let log = self.log();
            let complaints = log.lines().filter(|line| line.starts_with(['E', 'W', 'F']));
            let last: Vec<&str> = complaints.collect();
            let from = last.len().saturating_sub(60);
            eprintln!("--- the kubelet's complaints ---\n{}", last[from..].join("\n"));
            self.clean_up();
        }
    }
}

/// The name of the node.
pub const NODE: &str = "node";

/// The status of a pod's condition.
pub fn condition<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    let conditions = pod["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == name)?["status"].as_str()
}

/// The status of a container of a pod, init containers included.
pub fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let lists = ["containerStatuses", "initContainerStatuses"];
    let all = lists.iter().filter_map(|list| pod["status"][list].as_array()).flatten();
    all.into_iter().find(|status| status["name"] == name).unwrap_or(&Value::Null)
}

/// The program of `tests/go/kubelet/visitor`.
///
/// # Panics
/// If it cannot be built.
pub fn visitor() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| xtask::tools::visitor().expect("the visitor can be built"))
}

/// What a server of this machine answers at a path, if it answers well.
pub fn get(port: u16, path: &str) -> Option<String> {
    tool::get((Ipv4Addr::LOCALHOST, port).into(), path)
}

fn configuration(directory: &Path, cgroup: &str, socket: &Path, settings: &Settings) -> Value {
    let at = |name: &str| directory.join(name).display().to_string();
    let mut gates = json!({ "KubeletCrashLoopBackOffMax": true });
    for (name, open) in &settings.gates {
        gates[name] = (*open).into();
    }
    let mut configuration = json!({
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "containerRuntimeEndpoint": format!("unix://{}", socket.display()),
        "staticPodPath": at("manifests"),
        "podLogsDir": directory.with_file_name("kubelet-logs").display().to_string(),
        "resolvConf": at("resolv.conf"),
        "volumePluginDir": at("plugins"),
        "address": "127.0.0.1",
        "port": PORT,
        "readOnlyPort": READ_ONLY_PORT,
        "healthzPort": 0,
        "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
        "authorization": { "mode": "AlwaysAllow" },
        "registerNode": false,
        "failCgroupV1": false,
        "failSwapOn": false,
        // The wrong one on machines without systemd: the runtime's answer counts.
        "cgroupDriver": "systemd",
        "cgroupRoot": cgroup,
        "makeIPTablesUtilChains": false,
        "oomScoreAdj": 0,
        "evictionHard": { "memory.available": "1Mi" },
        "serializeImagePulls": false,
        "syncFrequency": "5s",
        "fileCheckFrequency": "1s",
        "volumeStatsAggPeriod": "2s",
        "containerLogMaxSize": "1Mi",
        "containerLogMaxFiles": 3,
        "containerLogMonitorInterval": "3s",
        "crashLoopBackOff": { "maxContainerRestartPeriod": "2s" },
        "featureGates": gates,
    });
    for (key, value) in settings.configuration.as_object().into_iter().flatten() {
        configuration[key] = value.clone();
    }
    configuration
}

fn spawn(directory: &Path, log: &Path, cgroup: &str, socket: &Path, settings: &Settings) -> Child {
    let at = |name: &str| directory.join(name);
    fs::write(at("resolv.conf"), "nameserver 192.0.2.53\n").expect("a file is written");
    let text = configuration(directory, cgroup, socket, settings).to_string();
    fs::write(at("config.json"), text).expect("the configuration is written");
    let program = xtask::tools::kubelet(settings.age).expect("a kubelet can be built");
    let log = File::options().create(true).append(true).open(log).expect("the log is opened");
    Command::new("unshare")
        .args(["--mount", "--propagation", "unchanged", "sh", "-c", ENTER])
        .arg(at("sysctls"))
        .arg(program)
        .arg(format!("--config={}", at("config.json").display()))
        .arg(format!("--root-dir={}", at("root").display()))
        .arg(format!("--cert-dir={}", at("certificates").display()))
        .arg(format!("--hostname-override={NODE}"))
        // Without it, it asks the machine's name server for its name.
        .arg(format!("--node-ip={}", cable::ADDRESS))
        .arg("--v=2")
        .env("SYSCTLS", SYSCTLS)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a duplicate"))
        .stderr(log)
        .spawn()
        .expect("the kubelet can be run")
}
