//! How a runtime is started and recognised.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::home::Home;
use crate::report::{Role, Runtime};

/// A runtime of somebody, as data: nothing else in the bench knows whose it
/// is.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// What the report says of it.
    pub runtime: Runtime,
    /// The daemon and its arguments; empty for one that somebody else runs.
    pub command: Vec<String>,
    /// More of its environment.
    pub environment: Vec<(String, String)>,
    /// Where it will listen.
    pub socket: PathBuf,
    /// The programs that stand by each pod.
    pub monitors: &'static [&'static str],
}

/// Subnet of the built-in bridge and of the plugins: all of them have a network
/// namespace of their own.
pub const SUBNET: &str = "10.88.0.0/16";

/// Where Debian's package has CNI plugins.
pub const PLUGINS: &str = "/usr/lib/cni";

/// How the report calls the network of [`configure_cni`].
pub const CNI: &str = "CNI plugins bridge, host-local, portmap";

/// Gives a home the network that most nodes of one machine have: the bridge
/// plugin, addresses from host-local, host ports. The directory with its
/// configuration.
///
/// # Errors
/// If it cannot be written.
pub fn configure_cni(home: &Home) -> Result<PathBuf> {
    let list = json!({
        "cniVersion": "1.0.0",
        "name": "bench",
        "plugins": [
            {
                "type": "bridge", "bridge": "bench0", "isGateway": true, "ipMasq": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": home.path("leases"),
                    "ranges": [[{"subnet": SUBNET}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    let directory = home.path("cni");
    fs::create_dir_all(&directory).context("unable to make a directory for CNI")?;
    write(&directory.join("10-bench.conflist"), &list.to_string())?;
    Ok(directory)
}

/// Copies a program into a home: programs of two homes share no memory then,
/// and each runtime is charged all of its own.
///
/// # Errors
/// If there is no such program.
pub fn bring(home: &Home, program: &Path) -> Result<PathBuf> {
    let directory = home.path("bin");
    let name = program.file_name().context("a program without a name")?;
    let copy = directory.join(name);
    fs::create_dir_all(&directory)
        .and_then(|()| fs::copy(program, &copy))
        .with_context(|| format!("unable to copy {} to {}", program.display(), copy.display()))?;
    Ok(copy)
}

/// What a program says of its version: the first line.
///
/// # Errors
/// If it cannot be run.
pub fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").output();
    let output = output.with_context(|| format!("unable to run {}", program.display()))?;
    if !output.status.success() {
        bail!("{} --version failed: {}", program.display(), output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// Writes a file of a runtime.
///
/// # Errors
/// If it cannot be written.
pub fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("unable to write {}", path.display()))
}

/// What the report says of a runtime.
pub fn described(name: &str, role: Role, network: &str, versions: Vec<String>) -> Runtime {
    Runtime { name: name.to_owned(), role, network: network.to_owned(), versions }
}
