//! The real crictl, against a daemon of the kit.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use crate::daemon::Daemon;
use crate::machine::Machine;

/// crictl with the settings for one daemon.
pub struct Crictl {
    settings: PathBuf,
    directory: PathBuf,
}

impl Crictl {
    /// crictl for this daemon.
    pub fn new(machine: &Machine, daemon: &Daemon) -> Self {
        let settings = machine.path("crictl.yaml");
        let text = format!("runtime-endpoint: unix://{}\ntimeout: 60\n", daemon.socket().display());
        std::fs::write(&settings, text).expect("the settings are written");
        Self { settings, directory: machine.path("") }
    }

    /// Runs it, and returns all that came of it.
    pub fn try_run(&self, arguments: &[&str]) -> Output {
        Command::new(program())
            .arg("--config")
            .arg(&self.settings)
            .args(arguments)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .output()
            .expect("crictl can be run")
    }

    /// Runs it; it must succeed. What it printed, without the last newline.
    ///
    /// # Panics
    /// If it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.try_run(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "crictl {}: {stdout}{stderr}", arguments.join(" "));
        stdout
    }

    /// Runs it; it must fail. What it complained of.
    ///
    /// # Panics
    /// If it succeeds.
    pub fn fails(&self, arguments: &[&str]) -> String {
        let output = self.try_run(arguments);
        assert!(!output.status.success(), "crictl {} succeeded", arguments.join(" "));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Runs it; it must print JSON.
    ///
    /// # Panics
    /// If it fails or prints something else.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.run(arguments);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Writes a configuration for it: the name of the file.
    pub fn file(&self, name: &str, config: &Value) -> String {
        let path = self.directory.join(name);
        std::fs::write(&path, config.to_string()).expect("a configuration is written");
        path.display().to_string()
    }
}

/// Built once for each run of the tests.
fn program() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| xtask::tools::crictl().expect("crictl can be built"))
}
