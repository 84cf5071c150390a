//! A `cortend` of the test's own.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use corten_api::cri::StatusRequest;

use crate::binaries;
use crate::client::Client;
use crate::machine::Machine;
use crate::poll::until;

/// A running daemon. Killed, with everything it did, when the test ends.
pub struct Daemon {
    process: Child,
    config: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    without_unified: bool,
}

impl Daemon {
    /// Starts one, and waits until it serves.
    pub async fn start(machine: &Machine) -> Self {
        let config = machine.path("config.toml");
        std::fs::write(&config, machine.configuration()).expect("the configuration is written");
        let log = machine.path("cortend.log");
        let socket = machine.path("corten.sock");
        let without_unified = machine.settings().without_unified;
        let process = spawn(cortend(without_unified), &config, &log);
        let mut daemon = Self { process, config, socket, log, without_unified };
        daemon.serves().await;
        daemon
    }

    /// A client of it.
    pub async fn client(&self) -> Client {
        Client::connect(&self.socket).await
    }

    /// Where it listens.
    pub fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// How many sockets and pipes it has open.
    pub fn streams(&self) -> usize {
        let all = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs");
        let links = all.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        let is_stream = |text: &str| text.starts_with("socket:") || text.starts_with("pipe:");
        links.filter(|link| is_stream(&link.to_string_lossy())).count()
    }

    /// Its own memory in kB, by the kernel's account: what is no file's, such
    /// as heap and stacks. Unlike PSS it does not tell how much of the program
    /// is mapped just now.
    pub fn anonymous_kb(&self) -> u64 {
        let path = format!("/proc/{}/smaps_rollup", self.pid());
        let text = std::fs::read_to_string(path).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.expect("the kernel tells it")
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill().expect("the daemon is killed");
        self.process.wait().expect("the daemon is reaped");
    }

    /// Starts it again after [`Daemon::kill`].
    pub async fn start_again(&mut self) {
        self.spawn();
        self.serves().await;
    }

    /// Starts it again, and does not wait until it serves.
    pub fn spawn(&mut self) {
        self.process = spawn(cortend(self.without_unified), &self.config, &self.log);
    }

    /// Starts it again as if the machine had booted anew since.
    pub async fn start_in_another_boot(&mut self) {
        let boot = self.config.with_file_name("boot_id");
        std::fs::write(&boot, "another-boot\n").expect("a boot id is written");
        let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "slave", "sh", "-c", script]).arg(boot);
        unshare.arg(binaries::directory().join("cortend"));
        self.process = spawn(unshare, &self.config, &self.log);
        self.serves().await;
    }

    /// Runs another one with this configuration, which is expected to leave:
    /// its exit code and what it said.
    pub fn another(&self, config: &std::path::Path) -> (Option<i32>, String) {
        let mut cortend = Command::new(binaries::directory().join("cortend"));
        let output = cortend.arg("--config").arg(config).output().expect("cortend can be run");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    /// `kill -9`, and a new one.
    pub async fn restart(&mut self) {
        self.kill();
        self.start_again().await;
    }

    async fn serves(&mut self) {
        let socket = self.socket.clone();
        let (process, log) = (&mut self.process, &self.log);
        until("the daemon serves", async || {
            if let Some(status) = process.try_wait().expect("the daemon can be asked") {
                let log = std::fs::read_to_string(log).unwrap_or_default();
                panic!("the daemon ended with {status}:\n{log}");
            }
            // The version is told before what there is was taken up.
            let mut client = Client::try_connect(&socket).await?;
            client.runtime.status(StatusRequest::default()).await.ok()
        })
        .await;
    }

    /// Removes everything that the test left in it.
    pub async fn clean_up(&mut self) {
        let mut client = self.client().await;
        client.remove_everything().await;
    }

    /// SIGTERM, and wait for its end.
    pub async fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("SIGTERM");
        let process = &mut self.process;
        until("the daemon ends", async || process.try_wait().expect("the daemon can be asked"))
            .await;
    }
}

impl Drop for Daemon {
    /// A failing test shows what the daemon said, and leaves no daemon.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the daemon's log ---\n{}", self.log());
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The program, on a machine with or without the unified hierarchy.
fn cortend(without_unified: bool) -> Command {
    let program = binaries::directory().join("cortend");
    if !without_unified {
        return Command::new(program);
    }
    let mut unshare = Command::new("unshare");
    let script = "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$0\" \"$@\"";
    unshare.args(["--mount", "--propagation", "slave", "sh", "-c", script]).arg(program);
    unshare
}

fn spawn(mut cortend: Command, config: &std::path::Path, log: &std::path::Path) -> Child {
    let log = File::options().create(true).append(true).open(log).expect("the log is opened");
    cortend
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a duplicate"))
        .stderr(log)
        .spawn()
        .expect("cortend can be run")
}
