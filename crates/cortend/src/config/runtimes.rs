//! Runtime handlers.

use std::path::PathBuf;

use corten_pods::{DEFAULT_HANDLER, RuntimeSettings};
use serde::{Deserialize, Serialize};

use super::Config;

/// Characters of a handler's name, as Kubernetes has it (a DNS label).
const NAME_MAX: usize = 63;

/// A runtime handler.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Runtime {
    /// The program of an OCI runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Where it keeps what it knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// More words before its command.
    pub options: Vec<String>,
    /// Annotations of pods that get into the OCI spec.
    pub pod_annotations: Vec<String>,
    /// Annotations of containers that get into the OCI spec.
    pub container_annotations: Vec<String>,
    /// Privileged containers have no more devices than others.
    pub privileged_without_host_devices: bool,
}

impl Runtime {
    /// What parsing alone cannot see.
    pub(super) fn check(&self, name: &str) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(plain) {
            return Err(format!(
                "runtimes.{name}: a handler's name is made of a-z, 0-9 and -, as RuntimeClass wants it"
            ));
        }
        let ours = name == DEFAULT_HANDLER;
        match &self.path {
            None if !ours => {
                return Err(format!("runtimes.{name}.path is missing: which program is it?"));
            }
            Some(_) if ours => {
                return Err(format!(
                    "runtimes.{name} is our own launcher, and has no path: give the other one another name"
                ));
            }
            None if self.root.is_some() || !self.options.is_empty() => {
                return Err(format!("runtimes.{name} is our own launcher: no root, no options"));
            }
            Some(_) | None => {}
        }
        for (key, path) in [("path", &self.path), ("root", &self.root)] {
            if path.as_ref().is_some_and(|path| !path.is_absolute()) {
                return Err(format!("runtimes.{name}.{key} = {path:?} is not an absolute path"));
            }
        }
        Ok(())
    }
}

impl Config {
    /// The runtime handlers, as the engine takes them.
    pub fn runtimes(&self) -> Vec<RuntimeSettings> {
        let settings = |(name, runtime): (&String, &Runtime)| RuntimeSettings {
            name: name.clone(),
            path: runtime.path.clone(),
            root: runtime.root.clone().unwrap_or_else(|| self.state.join("runtimes").join(name)),
            options: runtime.options.clone(),
            pod_annotations: runtime.pod_annotations.clone(),
            container_annotations: runtime.container_annotations.clone(),
            privileged_without_host_devices: runtime.privileged_without_host_devices,
        };
        self.runtimes.iter().map(settings).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check().map(|()| config)
    }

    #[test]
    fn a_runtime_has_a_path_and_ours_has_none() {
        let config = checked("[runtimes.runc]\npath = '/usr/sbin/runc'").unwrap();
        assert_eq!(config.runtimes()[0].root, PathBuf::from("/run/corten/runtimes/runc"));
        checked("[runtimes.corten]\npod_annotations = ['io.example.*']").unwrap();
        for (text, word) in [
            ("[runtimes.runc]", "runc.path is missing"),
            ("[runtimes.corten]\npath = '/bin/x'", "own launcher"),
            ("[runtimes.runc]\npath = 'runc'", "not an absolute path"),
            ("[runtimes.'A/b']\npath = '/bin/x'", "name is made of"),
        ] {
            let error = checked(text).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
