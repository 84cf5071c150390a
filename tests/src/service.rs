//! The `cortend` that is installed here, as systemd runs it: for machines that
//! are made for that.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::client::Client;
use crate::machine::Machine;

/// Where the service looks for its configuration.
const CONFIGURATION: &str = "/etc/corten/config.toml";
/// How many lines of its journal are told.
const LINES: &str = "2000";

/// The running service. Stopped when the test ends.
pub struct Service {
    socket: PathBuf,
}

impl Service {
    /// Configures it for this machine and starts it: it serves.
    ///
    /// # Panics
    /// Where it does not.
    pub fn start(machine: &Machine) -> Self {
        let directory = Path::new(CONFIGURATION).parent().expect("a directory");
        std::fs::create_dir_all(directory).expect("a directory of configurations");
        std::fs::write(CONFIGURATION, machine.configuration()).expect("a configuration");
        let service = Self { socket: machine.path("corten.sock") };
        assert!(systemctl("start"), "the service does not start:\n{}", service.log());
        service
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A client of it.
    pub async fn client(&self) -> Client {
        Client::connect(&self.socket).await
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        let lines = ["-u", "cortend", "--no-pager", "--output=cat", "-n", LINES];
        let output = Command::new("journalctl").args(lines).output();
        output.map_or_else(
            |error| error.to_string(),
            |output| String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        systemctl("stop");
    }
}

fn systemctl(verb: &str) -> bool {
    Command::new("systemctl").args([verb, "cortend"]).status().is_ok_and(|status| status.success())
}
