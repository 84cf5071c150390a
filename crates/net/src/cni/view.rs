//! What the CNI client works with, for those who look from outside.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::{Cni, lock};

/// The configuration in use.
#[derive(Debug, Clone)]
pub struct CniView {
    /// Directories with configurations.
    pub config_dirs: Vec<PathBuf>,
    /// Directories with plugins.
    pub plugin_dirs: Vec<PathBuf>,
    /// The name of the link that pods get.
    pub link: &'static str,
    /// The list of plugins as it was read, or why there is none.
    pub network: std::result::Result<Value, String>,
}

impl Cni {
    /// See [`CniView`].
    pub fn view(&self) -> CniView {
        let settings = &self.shared.settings;
        let network = lock(&self.shared.state).network.clone();
        CniView {
            config_dirs: settings.config_dirs.clone(),
            plugin_dirs: settings.plugin_dirs.clone(),
            link: super::wishes::POD_LINK,
            network: network.map(|list| Arc::unwrap_or_clone(list).raw),
        }
    }
}
