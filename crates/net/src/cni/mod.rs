//! The CNI client: runs the plugins that a node is configured with.
//!
//! What plugins are told is written down before they are run, so that it can
//! be undone after a crash, also when the configuration has changed since. No
//! lock is held while a plugin runs, and each has a deadline.

mod answer;
mod cache;
mod config;
mod plugin;
mod view;
mod watch;
mod wishes;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use corten_base::{SandboxId, limits};
use serde_json::{Map, Value, json};
use tokio::task::AbortHandle;

use self::cache::Cache;
use self::config::{NetworkList, plugin_type};
use self::plugin::Run;
pub use self::view::CniView;
use self::watch::Watch;
use crate::{Attachment, CniRecord, Error, Kept, NetworkRequest, Provider, Result};

/// How often configuration is read where the kernel cannot tell of changes.
const FALLBACK_PERIOD: Duration = Duration::from_secs(5);

/// Where CNI things are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniSettings {
    /// Directories with configurations; the first valid one of all is used.
    pub config_dirs: Vec<PathBuf>,
    /// Directories with plugins.
    pub plugin_dirs: Vec<PathBuf>,
    /// Where we keep what plugins were told. Must outlive a reboot.
    pub cache_dir: PathBuf,
    /// How long one plugin may take.
    pub plugin_deadline: Duration,
}

impl CniSettings {
    /// The usual places, with our own records in `cache_dir`.
    pub fn new(cache_dir: PathBuf) -> Self {
        Self {
            config_dirs: vec!["/etc/cni/net.d".into()],
            plugin_dirs: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()],
            cache_dir,
            plugin_deadline: Duration::from_secs(limits::CNI_PLUGIN_SECONDS_MAX),
        }
    }
}

/// The CNI client. Clones are the same client.
#[derive(Debug, Clone)]
pub struct Cni {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: CniSettings,
    cache: Cache,
    state: Mutex<State>,
    watcher: Mutex<Option<AbortHandle>>,
}

#[derive(Debug)]
struct State {
    /// The configuration in use, or why there is none.
    network: std::result::Result<Arc<NetworkList>, String>,
    /// What the plugins themselves say (since 1.1.0): why they cannot add pods.
    refusal: Option<String>,
    /// Plugins are being asked at this moment.
    asking: bool,
    /// Sandboxes attached since this daemon began: never reconciled away.
    fresh: HashSet<SandboxId>,
}

impl Cni {
    /// Reads the configuration and watches it from now on. Must be called
    /// within a tokio runtime.
    pub fn new(settings: CniSettings) -> Result<Self> {
        let cache = Cache::new(settings.cache_dir.clone())?;
        let watch = Watch::new(settings.config_dirs.clone());
        // Read after the watch began, so that no change falls between.
        let network = config::load(&settings.config_dirs).map(Arc::new);
        let state = State { network, refusal: None, asking: false, fresh: HashSet::new() };
        let shared = Arc::new(Shared {
            settings,
            cache,
            state: Mutex::new(state),
            watcher: Mutex::new(None),
        });
        let watcher = tokio::spawn(follow(watch, Arc::downgrade(&shared))).abort_handle();
        *lock(&shared.watcher) = Some(watcher);
        shared.ask_plugins();
        Ok(Self { shared })
    }

    /// See [`crate::Network::attach`].
    pub async fn attach(&self, request: &NetworkRequest) -> Result<Attachment> {
        let shared = &self.shared;
        let list = shared.network()?;
        shared.find_plugins(&list)?;
        lock(&shared.state).fresh.insert(request.sandbox.clone());
        // What an earlier attempt left has to be undone by its own record.
        if let Some(record) = shared.cache.load(&request.sandbox) {
            shared.delete(request, &record).await?;
        }
        let mut record = CniRecord {
            configuration: list.raw.clone(),
            runtime: wishes::runtime(request)?,
            result: None,
        };
        shared.cache.store(&request.sandbox, &record)?;
        let attached = self.add(request, &list, &mut record).await;
        if attached.is_err()
            && let Err(error) = shared.delete(request, &record).await
        {
            tracing::warn!(sandbox = %request.sandbox, %error, "a failed ADD is not undone yet");
        }
        attached
    }

    async fn add(
        &self,
        request: &NetworkRequest,
        list: &NetworkList,
        record: &mut CniRecord,
    ) -> Result<Attachment> {
        let call = Call::new(&self.shared.settings, &request.sandbox, &record.runtime)
            .in_namespace(Some(&request.netns));
        let mut last = "";
        for plugin in &list.plugins {
            last = plugin_type(plugin);
            let input = list.for_plugin(plugin, &call.capabilities, record.result.as_ref());
            let mut result = call.run("ADD", last, input).json().await?;
            // The next plugin is addressed in the list's version.
            result["cniVersion"] = json!(list.version());
            record.result = Some(result);
        }
        self.shared.cache.store(&request.sandbox, record)?;
        answer::attachment(record.clone(), last)
    }

    /// See [`crate::Network::detach`].
    pub async fn detach(
        &self,
        request: &NetworkRequest,
        attachment: Option<&Attachment>,
    ) -> Result<()> {
        let record = match attachment.map(|attachment| &attachment.provider) {
            Some(Provider::Bridge(_)) => {
                return Err(Error::ForeignRecord { wanted: "CNI", found: "the built-in bridge" });
            }
            Some(Provider::Cni(record)) => Some(record.clone()),
            // Without a record ADD was never begun.
            None => self.shared.cache.load(&request.sandbox),
        };
        match record {
            Some(record) => self.shared.delete(request, &record).await,
            None => Ok(()),
        }
    }

    /// Asks the plugins whether an attachment is as it should be (`CHECK`).
    /// Versions before 0.4.0 cannot tell, and say yes.
    pub async fn check(&self, request: &NetworkRequest, record: &CniRecord) -> Result<()> {
        let list =
            NetworkList::parse(record.configuration.clone()).map_err(Error::NotConfigured)?;
        if list.disable_check || !list.has_verb("CHECK") {
            return Ok(());
        }
        let call = Call::new(&self.shared.settings, &request.sandbox, &record.runtime)
            .in_namespace(Some(&request.netns));
        for plugin in &list.plugins {
            let input = list.for_plugin(plugin, &call.capabilities, record.result.as_ref());
            call.run("CHECK", plugin_type(plugin), input).output().await?;
        }
        Ok(())
    }

    /// The specification versions that each plugin of the configuration knows
    /// (`VERSION`), or why it does not say.
    pub async fn plugin_versions(&self) -> Result<Vec<(String, Result<Vec<String>>)>> {
        let list = self.shared.network()?;
        let mut all = Vec::new();
        for plugin in &list.plugins {
            let name = plugin_type(plugin);
            let input = Map::from_iter([("cniVersion".to_owned(), json!(list.version()))]);
            let answer = Call::bare(&self.shared.settings).run("VERSION", name, input).json().await;
            let versions = answer.map(|answer| {
                let known = answer["supportedVersions"].as_array().cloned().unwrap_or_default();
                known.iter().filter_map(|version| Some(version.as_str()?.to_owned())).collect()
            });
            all.push((name.to_owned(), versions));
        }
        Ok(all)
    }

    /// See [`crate::Network::status`]. Plugins that can say more are asked in
    /// the background, and heard at the next call.
    pub fn status(&self) -> std::result::Result<(), String> {
        let (network, refusal) = {
            let state = lock(&self.shared.state);
            (state.network.clone()?, state.refusal.clone())
        };
        for plugin in &network.plugins {
            let name = plugin_type(plugin);
            plugin::find(name, &self.shared.settings.plugin_dirs).map_err(|reason| {
                format!("CNI plugin {name} of network {}: {reason}", network.name)
            })?;
        }
        self.shared.ask_plugins();
        refusal.map_or(Ok(()), Err)
    }

    /// See [`crate::Network::reconcile`]. Call it before pods are attached:
    /// plugins cannot know of those that come while they look (`GC`).
    pub async fn reconcile(&self, kept: &[Kept]) -> Result<()> {
        let mut valid: HashSet<SandboxId> = kept.iter().map(|kept| kept.sandbox.clone()).collect();
        valid.extend(lock(&self.shared.state).fresh.iter().cloned());
        for sandbox in self.shared.cache.sandboxes()? {
            if valid.contains(&sandbox) {
                continue;
            }
            if let Some(record) = self.shared.cache.load(&sandbox)
                && let Err(error) = self.shared.delete_record(&sandbox, None, &record).await
            {
                tracing::warn!(%sandbox, %error, "an abandoned network attachment stays");
            }
        }
        let Ok(list) = self.shared.network() else { return Ok(()) };
        if list.disable_gc || !list.has_verb("GC") {
            return Ok(());
        }
        let attachment =
            |id: &SandboxId| json!({ "containerID": id.as_str(), "ifname": wishes::POD_LINK });
        let attachments: Vec<Value> = valid.iter().map(attachment).collect();
        for plugin in &list.plugins {
            let mut input = list.for_plugin(plugin, &Map::new(), None);
            input.insert("cni.dev/valid-attachments".to_owned(), json!(attachments));
            Call::bare(&self.shared.settings)
                .run("GC", plugin_type(plugin), input)
                .output()
                .await?;
        }
        Ok(())
    }
}

impl Shared {
    /// The configuration in use; looks once more where there is none.
    fn network(&self) -> Result<Arc<NetworkList>> {
        if let Ok(list) = &lock(&self.state).network {
            return Ok(Arc::clone(list));
        }
        self.reload();
        lock(&self.state).network.clone().map_err(Error::NotConfigured)
    }

    fn reload(&self) {
        let network = config::load(&self.settings.config_dirs).map(Arc::new);
        let mut state = lock(&self.state);
        if state.network != network {
            match &network {
                Ok(list) => tracing::info!(network = %list.name, "CNI configuration"),
                Err(reason) => tracing::warn!(%reason, "CNI configuration is gone"),
            }
            state.refusal = None;
        }
        state.network = network;
    }

    /// An error where a plugin is missing: asked before the first one runs, since
    /// without all of them what was begun could not be undone.
    fn find_plugins(&self, list: &NetworkList) -> Result<()> {
        for plugin in &list.plugins {
            let name = plugin_type(plugin);
            plugin::find(name, &self.settings.plugin_dirs).map_err(|cause| Error::Plugin {
                verb: "ADD",
                plugin: name.to_owned(),
                cause,
            })?;
        }
        Ok(())
    }

    async fn delete(&self, request: &NetworkRequest, record: &CniRecord) -> Result<()> {
        self.delete_record(&request.sandbox, Some(&request.netns), record).await
    }

    /// Runs DEL of all plugins, last one first. Goes on after an error, so that
    /// one broken plugin leaks no more than its own share; returns the first.
    async fn delete_record(
        &self,
        sandbox: &SandboxId,
        netns: Option<&Path>,
        record: &CniRecord,
    ) -> Result<()> {
        let list =
            NetworkList::parse(record.configuration.clone()).map_err(Error::NotConfigured)?;
        let result = record.result.as_ref().filter(|_| list.delete_has_result());
        let call = Call::new(&self.settings, sandbox, &record.runtime)
            .in_namespace(netns.filter(|path| is_namespace(path)));
        let mut failure = None;
        for plugin in list.plugins.iter().rev() {
            let input = list.for_plugin(plugin, &call.capabilities, result);
            if let Err(error) = call.run("DEL", plugin_type(plugin), input).output().await {
                failure.get_or_insert(error);
            }
        }
        match failure {
            Some(failure) => Err(failure),
            None => {
                lock(&self.state).fresh.remove(sandbox);
                self.cache.remove(sandbox)
            }
        }
    }

    /// Asks the plugins for their status, if they can tell and are not being
    /// asked already.
    fn ask_plugins(self: &Arc<Self>) {
        let list = {
            let mut state = lock(&self.state);
            let Ok(list) = state.network.clone() else { return };
            if !list.has_verb("STATUS") || state.asking {
                return;
            }
            state.asking = true;
            list
        };
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            let mut refusal = None;
            for plugin in &list.plugins {
                let input = list.for_plugin(plugin, &Map::new(), None);
                let call = Call::bare(&shared.settings);
                let asked = call.run("STATUS", plugin_type(plugin), input).output().await;
                if let Err(error) = asked {
                    refusal = Some(error.to_string());
                    break;
                }
            }
            let mut state = lock(&shared.state);
            state.asking = false;
            if state.network.as_ref() == Ok(&list) {
                state.refusal = refusal;
            }
        });
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(watcher) = lock(&self.watcher).take() {
            watcher.abort();
        }
    }
}

/// Reads the configuration again whenever it changed.
async fn follow(watch: std::io::Result<Watch>, shared: Weak<Shared>) {
    let watch = watch
        .inspect_err(|error| {
            tracing::warn!(%error, "unable to watch CNI directories; they are read every 5 seconds");
        })
        .ok();
    loop {
        let waited = match &watch {
            Some(watch) => watch.changed().await,
            None => {
                tokio::time::sleep(FALLBACK_PERIOD).await;
                Ok(())
            }
        };
        if let Err(error) = waited {
            tracing::warn!(%error, "unable to read changes of CNI directories");
            tokio::time::sleep(FALLBACK_PERIOD).await;
        }
        let Some(shared) = shared.upgrade() else { return };
        shared.reload();
        shared.ask_plugins();
    }
}

/// What all runs of plugins for one purpose have in common.
struct Call<'a> {
    settings: &'a CniSettings,
    environment: Vec<(&'static str, String)>,
    capabilities: Map<String, Value>,
}

impl<'a> Call<'a> {
    /// About no pod.
    fn bare(settings: &'a CniSettings) -> Self {
        Self { settings, environment: Vec::new(), capabilities: Map::new() }
    }

    fn new(settings: &'a CniSettings, sandbox: &SandboxId, runtime: &Value) -> Self {
        let environment = vec![
            ("CNI_CONTAINERID", sandbox.as_str().to_owned()),
            ("CNI_IFNAME", wishes::POD_LINK.to_owned()),
            ("CNI_ARGS", runtime["args"].as_str().unwrap_or_default().to_owned()),
        ];
        let capabilities = runtime["capabilities"].as_object().cloned().unwrap_or_default();
        Self { settings, environment, capabilities }
    }

    /// An empty path says that the namespace is gone.
    fn in_namespace(mut self, netns: Option<&Path>) -> Self {
        let path = netns.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        self.environment.push(("CNI_NETNS", path));
        self
    }

    fn run<'b>(
        &'b self,
        verb: &'static str,
        plugin: &'b str,
        input: Map<String, Value>,
    ) -> Run<'b> {
        Run {
            plugin,
            directories: &self.settings.plugin_dirs,
            verb,
            environment: &self.environment,
            input: Value::Object(input).to_string().into_bytes(),
            deadline: self.settings.plugin_deadline,
        }
    }
}

/// Whether a namespace is mounted at the path: after a reboot it may be an
/// empty file, which plugins would choke on.
fn is_namespace(path: &Path) -> bool {
    let parent = path.parent().unwrap_or(Path::new("/"));
    match (std::fs::metadata(path), std::fs::metadata(parent)) {
        (Ok(file), Ok(directory)) => file.st_dev() != directory.st_dev(),
        _ => false,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
