//! A `cortend` of the test's own.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

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
}

impl Daemon {
    /// Starts one, and waits until it serves.
    pub async fn start(machine: &Machine) -> Self {
        let config = machine.path("config.toml");
        std::fs::write(&config, machine.configuration()).expect("the configuration is written");
        let log = machine.path("cortend.log");
        let socket = machine.path("corten.sock");
        let process = spawn(&config, &log);
        let mut daemon = Self { process, config, socket, log };
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
        self.process = spawn(&self.config, &self.log);
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
            Client::try_connect(&socket).await
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

fn spawn(config: &std::path::Path, log: &std::path::Path) -> Child {
    let log = File::options().create(true).append(true).open(log).expect("the log is opened");
    Command::new(binaries::directory().join("cortend"))
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a duplicate"))
        .stderr(log)
        .spawn()
        .expect("cortend can be run")
}
