//! Programs that people type, against a daemon of the kit: crictl and corten;
//! and the pages that they see.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};

use crate::binaries;
use crate::daemon::Daemon;
use crate::machine::Machine;

/// A program that knows its daemon.
pub struct Tool {
    program: PathBuf,
    /// What stands before all other arguments.
    leading: Vec<String>,
    directory: PathBuf,
}

impl Tool {
    /// The real crictl.
    pub fn crictl(machine: &Machine, daemon: &Daemon) -> Self {
        static BUILT: OnceLock<PathBuf> = OnceLock::new();
        let built = || xtask::tools::crictl().expect("crictl can be built");
        let settings = machine.path("crictl.yaml");
        let text = format!("runtime-endpoint: unix://{}\ntimeout: 60\n", daemon.socket().display());
        std::fs::write(&settings, text).expect("the settings are written");
        Self {
            program: BUILT.get_or_init(built).clone(),
            leading: vec!["--config".into(), settings.display().to_string()],
            directory: machine.path(""),
        }
    }

    /// A client of streams, made of what kubectl is made of.
    pub fn streaming(machine: &Machine) -> Self {
        static BUILT: OnceLock<PathBuf> = OnceLock::new();
        let built = || xtask::tools::streaming().expect("the client of streams can be built");
        Self {
            program: BUILT.get_or_init(built).clone(),
            leading: Vec::new(),
            directory: machine.path(""),
        }
    }

    /// Our own command.
    pub fn corten(machine: &Machine, daemon: &Daemon) -> Self {
        Self {
            program: binaries::directory().join("corten"),
            leading: vec!["--host".into(), format!("unix://{}", daemon.socket().display())],
            directory: machine.path(""),
        }
    }

    /// The command that would be run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.leading)
            .args(arguments)
            .current_dir(&self.directory)
            .stdin(Stdio::null());
        command
    }

    /// Runs it, and returns all that came of it.
    ///
    /// # Panics
    /// If there is no such program.
    pub fn try_run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program can be run")
    }

    /// Starts it, with its output in pipes.
    ///
    /// # Panics
    /// If there is no such program.
    pub fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the program can be run")
    }

    /// Runs it; it must succeed. What it printed, without the last newline.
    ///
    /// # Panics
    /// If it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.try_run(arguments);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{}: {stdout}{stderr}", self.line(arguments));
        stdout
    }

    /// Runs it; it must fail. What it complained of.
    ///
    /// # Panics
    /// If it succeeds.
    pub fn fails(&self, arguments: &[&str]) -> String {
        let output = self.try_run(arguments);
        assert!(!output.status.success(), "{} succeeded", self.line(arguments));
        text(&output.stderr)
    }

    /// Runs it; it must print JSON.
    ///
    /// # Panics
    /// If it fails or prints something else.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.run(arguments);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Writes a file for it: the file's name.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn file(&self, name: &str, content: &Value) -> String {
        let path = self.directory.join(name);
        std::fs::write(&path, content.to_string()).expect("a file is written");
        path.display().to_string()
    }

    fn line(&self, arguments: &[&str]) -> String {
        let name = self.program.file_name().map(Path::new).unwrap_or(&self.program);
        format!("{} {}", name.display(), arguments.join(" "))
    }
}

/// The page at an address, if there is one yet.
pub fn page(address: SocketAddr) -> Option<String> {
    get(address, "/")
}

/// What a server answers at a path, if it answers well.
pub fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.lines().next()?.contains(" 200 ").then(|| body.to_owned())
}

/// Output as people see it, without the last newlines.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

/// The configuration of a pod, as a file of crictl has it.
pub fn pod(machine: &Machine, name: &str, ports: &Value) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "default", "uid": format!("uid-{name}"), "attempt": 1 },
        "hostname": name,
        "log_directory": machine.path("logs").join(name),
        "dns_config": {
            "servers": ["192.0.2.53"],
            "searches": ["default.svc.cluster.local"],
            "options": ["ndots:5"],
        },
        "port_mappings": ports,
        "labels": { "app": name },
        "linux": {},
    })
}

/// The configuration of a container that writes `<name>.log`.
pub fn container(name: &str, image: &str, command: &[&str]) -> Value {
    json!({
        "metadata": { "name": name },
        "image": { "image": image },
        "command": command,
        "log_path": format!("{name}.log"),
        "linux": {},
    })
}
