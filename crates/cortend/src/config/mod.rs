//! The daemon's configuration: what can be set, and to what it is set.

mod load;
mod runtimes;
mod suggest;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::time::Duration;

use corten_cri::{StreamingSettings, TlsFiles};
use corten_net::{BridgeSettings, IpNet};
use serde::{Deserialize, Serialize};

pub use load::{Overrides, load};
pub use runtimes::Runtime;

/// Where the configuration is unless the command line says otherwise.
pub const DEFAULT_PATH: &str = "/etc/corten/config.toml";

/// The documented configuration with every key at its default.
pub const DEFAULT_TEXT: &str = include_str!("default.toml");

/// Everything that can be set; `default.toml` documents each key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What outlives a reboot.
    pub root: PathBuf,
    /// What does not.
    pub state: PathBuf,
    /// Where clients connect.
    pub socket: PathBuf,
    /// The shim's program.
    pub shim: PathBuf,
    /// Logs of people's containers.
    pub log_dir: PathBuf,
    /// What the daemon says of itself.
    pub log: Log,
    /// Control groups.
    pub cgroup: Cgroup,
    /// Registries.
    pub registry: Registry,
    /// Images.
    pub image: Image,
    /// Devices.
    pub device: Device,
    /// Streams: exec, attach, port-forward.
    pub streaming: Streaming,
    /// Networks.
    pub network: Network,
    /// Checkpoints.
    pub checkpoint: Checkpoint,
    /// Runtime handlers, by their names.
    pub runtimes: BTreeMap<String, Runtime>,
    /// What the daemon counts about itself.
    pub metrics: Metrics,
}

/// What the daemon counts about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Where Prometheus reads it; empty for nowhere.
    pub address: String,
}

/// What the daemon says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// A filter as `tracing` has it.
    pub level: String,
    /// For whom.
    pub format: LogFormat,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people and the journal.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Control groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cgroup {
    /// Who makes them.
    pub driver: CgroupDriver,
    /// The parent of those that have no other.
    pub root: String,
}

/// Who makes control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupDriver {
    /// systemd where it is PID 1 on cgroup v2, else we.
    #[default]
    Auto,
    /// systemd: a scope for each pod.
    Systemd,
    /// We do, in the file system.
    Cgroupfs,
}

impl CgroupDriver {
    /// The driver for this machine.
    pub fn resolve(self) -> corten_pods::CgroupDriver {
        match self {
            Self::Auto => corten_pods::CgroupDriver::detect(),
            Self::Systemd => corten_pods::CgroupDriver::Systemd,
            Self::Cgroupfs => corten_pods::CgroupDriver::Cgroupfs,
        }
    }
}

/// Registries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// Directories with a `hosts.toml` for each registry.
    pub hosts_dirs: Vec<PathBuf>,
}

/// Images.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Image {
    /// Names of images that the kubelet is told to keep.
    pub pinned: Vec<String>,
}

/// Devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Device {
    /// Directories with the CDI files of vendors.
    pub cdi_dirs: Vec<PathBuf>,
}

/// Streams: exec, attach, port-forward.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Streaming {
    /// The address to listen at.
    pub address: IpAddr,
    /// The port; 0 for any.
    pub port: u16,
    /// A certificate; empty for none.
    pub tls_cert: PathBuf,
    /// Its key.
    pub tls_key: PathBuf,
    /// Seconds that a stream may say nothing and take nothing.
    pub idle_seconds: NonZeroU32,
}

/// Networks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Who connects the kubelet's pods.
    pub cri: CriNetwork,
    /// CNI plugins.
    pub cni: Cni,
    /// The built-in bridge.
    pub bridge: Bridge,
}

/// Who connects the kubelet's pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CriNetwork {
    /// CNI plugins.
    #[default]
    Cni,
    /// The built-in bridge.
    Builtin,
}

/// CNI plugins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cni {
    /// Directories with configurations.
    pub conf_dirs: Vec<PathBuf>,
    /// Directories with plugins.
    pub bin_dirs: Vec<PathBuf>,
    /// Seconds that one plugin may take.
    pub plugin_seconds: NonZeroU16,
}

/// Checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Checkpoint {
    /// CRIU's program.
    pub criu: PathBuf,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self { criu: "/usr/sbin/criu".into() }
    }
}

/// The built-in bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bridge {
    /// Name of its link.
    pub name: String,
    /// Its subnets.
    pub subnets: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: "/var/lib/corten".into(),
            state: "/run/corten".into(),
            socket: corten_api::DEFAULT_SOCKET.into(),
            shim: "/usr/libexec/corten/corten-shim".into(),
            log_dir: "/var/log/corten".into(),
            log: Log::default(),
            cgroup: Cgroup::default(),
            registry: Registry::default(),
            image: Image::default(),
            device: Device::default(),
            streaming: Streaming::default(),
            network: Network::default(),
            checkpoint: Checkpoint::default(),
            runtimes: BTreeMap::new(),
            metrics: Metrics::default(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

impl Default for Cgroup {
    fn default() -> Self {
        Self { driver: CgroupDriver::Auto, root: "/corten".to_owned() }
    }
}

impl Default for Registry {
    fn default() -> Self {
        let hosts_dirs = ["/etc/corten/certs.d", "/etc/containerd/certs.d"];
        Self { hosts_dirs: hosts_dirs.map(PathBuf::from).into() }
    }
}

impl Default for Device {
    fn default() -> Self {
        Self { cdi_dirs: ["/etc/cdi", "/var/run/cdi"].map(PathBuf::from).into() }
    }
}

impl Default for Streaming {
    fn default() -> Self {
        let idle_seconds = NonZeroU32::new(4 * 60 * 60).unwrap_or(NonZeroU32::MAX);
        Self {
            address: Ipv4Addr::LOCALHOST.into(),
            port: 0,
            tls_cert: PathBuf::new(),
            tls_key: PathBuf::new(),
            idle_seconds,
        }
    }
}

impl Streaming {
    /// As the server of streams takes it.
    pub fn settings(&self) -> StreamingSettings {
        let idle = Duration::from_secs(self.idle_seconds.get().into());
        let tls = (!self.tls_cert.as_os_str().is_empty())
            .then(|| TlsFiles { certificate: self.tls_cert.clone(), key: self.tls_key.clone() });
        StreamingSettings { address: self.address, port: self.port, tls, idle }
    }
}

impl Default for Cni {
    fn default() -> Self {
        let settings = corten_net::CniSettings::new(PathBuf::new());
        let seconds = settings.plugin_deadline.as_secs();
        let plugin_seconds = seconds.try_into().ok().and_then(NonZeroU16::new);
        Self {
            conf_dirs: settings.config_dirs,
            bin_dirs: settings.plugin_dirs,
            plugin_seconds: plugin_seconds.unwrap_or(NonZeroU16::MAX),
        }
    }
}

impl Default for Bridge {
    fn default() -> Self {
        let settings = BridgeSettings::new(PathBuf::new());
        let subnets = settings.subnets.iter().map(ToString::to_string).collect();
        Self { name: settings.name, subnets }
    }
}

impl Config {
    /// What parsing alone cannot see: the sentence says which key and why.
    fn check(&self) -> Result<(), String> {
        let paths = [
            ("root", &self.root),
            ("state", &self.state),
            ("socket", &self.socket),
            ("shim", &self.shim),
            ("log_dir", &self.log_dir),
            ("checkpoint.criu", &self.checkpoint.criu),
        ];
        for (key, path) in paths {
            if !path.is_absolute() {
                return Err(format!("{key} = {path:?} is not an absolute path"));
            }
        }
        let tls = [&self.streaming.tls_cert, &self.streaming.tls_key];
        if tls[0].as_os_str().is_empty() != tls[1].as_os_str().is_empty() {
            return Err("streaming.tls_cert and streaming.tls_key go together".to_owned());
        }
        let root = &self.cgroup.root;
        if !root.starts_with('/') || root.len() < 2 || root.split('/').any(|part| part == "..") {
            return Err(format!("cgroup.root = {root:?} is no path below the cgroup root"));
        }
        for directive in self.log.level.split(',') {
            directive
                .parse::<tracing_subscriber::filter::Directive>()
                .map_err(|error| format!("log.level = {:?}: {error}", self.log.level))?;
        }
        for name in &self.image.pinned {
            name.parse::<corten_base::Reference>()
                .map_err(|error| format!("image.pinned: {name:?}: {error}"))?;
        }
        for (name, runtime) in &self.runtimes {
            runtime.check(name)?;
        }
        self.metrics_address()?;
        self.subnets().map(drop)
    }

    /// Where metrics are served, if they are.
    pub fn metrics_address(&self) -> Result<Option<std::net::SocketAddr>, String> {
        let text = &self.metrics.address;
        if text.is_empty() {
            return Ok(None);
        }
        let address = text.parse().map_err(|_| {
            format!("metrics.address = {text:?} is no address and port, such as 127.0.0.1:9100")
        })?;
        Ok(Some(address))
    }

    /// The bridge's subnets.
    pub fn subnets(&self) -> Result<Vec<IpNet>, String> {
        let parse = |text: &String| {
            text.parse::<IpNet>().map_err(|error| format!("network.bridge.subnets: {error}"))
        };
        self.network.bridge.subnets.iter().map(parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_configuration_is_the_default() {
        let documented: Config = toml::from_str(DEFAULT_TEXT).unwrap();
        assert_eq!(documented, Config::default());
        documented.check().unwrap();
    }

    #[test]
    fn every_key_is_documented() {
        let text = toml::to_string(&Config::default()).unwrap();
        for key in text.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key) {
            let described = DEFAULT_TEXT.lines().any(|line| line.starts_with(&format!("{key} = ")));
            assert!(described, "{key}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        let refused = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check().unwrap_err()
        };
        assert!(refused(|c| c.root = "var".into()).contains("root"));
        assert!(refused(|c| c.streaming.tls_key = "/k".into()).contains("tls_cert"));
        assert!(refused(|c| c.cgroup.root = "/../x".into()).contains("cgroup.root"));
        assert!(refused(|c| c.network.bridge.subnets = vec!["ten".into()]).contains("subnets"));
        assert!(refused(|c| c.metrics.address = "9100".into()).contains("127.0.0.1:9100"));
        assert!(refused(|c| c.log.level = "corten=loud".into()).contains("log.level"));
    }
}
