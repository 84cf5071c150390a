//! Everything that the engine knows, in memory: lists touch nothing else.
//!
//! The lock is held for look-ups and insertions only, never across work.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use corten_base::{ContainerId, Namespace, SandboxId};
use corten_spec::request::{ContainerConfig, SandboxConfig};
use tokio::sync::watch;

use crate::error::{Error, Kind, Result};
use crate::record::{ContainerRecord, SandboxRecord};
use crate::shim::Shim;
use crate::stats::CpuRate;

/// How making something ended; `None` while it is being made. Those who ask
/// for the same thing again wait here for the same answer.
pub type Made = watch::Sender<Option<Result<()>>>;

/// A sandbox.
pub struct Sandbox {
    /// Its id.
    pub id: SandboxId,
    /// Its namespace of names.
    pub namespace: Namespace,
    /// What was asked for.
    pub config: Arc<SandboxConfig>,
    /// The record, and whoever waits for it to change.
    pub record: watch::Sender<SandboxRecord>,
    /// Held while the record is written, so that its file never goes back.
    pub saving: Mutex<()>,
    /// How making it ended.
    pub made: Made,
    /// An earlier daemon died while it made it: it is taken back, and how that
    /// ends is no answer for one who asks again.
    pub orphaned: bool,
    /// The connection to its shim, while there is one.
    pub shim: watch::Sender<Option<Shim>>,
    /// Processor time per second.
    pub cpu: CpuRate,
    /// Held by the one who takes it down, so that stops and removals that
    /// come at the same time follow each other.
    pub teardown: tokio::sync::Mutex<()>,
}

/// A container.
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// Its sandbox.
    pub sandbox: Arc<Sandbox>,
    /// What was asked for.
    pub config: Arc<ContainerConfig>,
    /// The record, and whoever waits for it to change.
    pub record: watch::Sender<ContainerRecord>,
    /// Held while the record is written, so that its file never goes back.
    pub saving: Mutex<()>,
    /// How making it ended.
    pub made: Made,
    /// An earlier daemon died while it made it, as with a sandbox.
    pub orphaned: bool,
    /// Processor time per second.
    pub cpu: CpuRate,
    /// Held by the one who starts or removes it.
    pub operation: tokio::sync::Mutex<()>,
    /// Held by the one who has its OCI runtime forget it.
    pub runtime: tokio::sync::Mutex<()>,
    /// The plan, kept while the launch may fail, to say at which step it did.
    pub plan: Mutex<Option<Arc<Vec<u8>>>>,
}

/// What makes a sandbox the same sandbox for one who asks again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SandboxKey {
    namespace: Namespace,
    name: String,
    uid: String,
    pod_namespace: String,
    attempt: u32,
}

/// What makes a container the same container for one who asks again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ContainerKey {
    sandbox: SandboxId,
    name: String,
    attempt: u32,
}

impl SandboxKey {
    /// The key of a sandbox with this configuration.
    pub fn new(namespace: &Namespace, config: &SandboxConfig) -> Self {
        // People's containers have one name, whatever else is said of them.
        let (uid, attempt) =
            if config.solo { (String::new(), 0) } else { (config.uid.clone(), config.attempt) };
        Self {
            namespace: namespace.clone(),
            name: config.name.clone(),
            uid,
            pod_namespace: config.namespace.clone(),
            attempt,
        }
    }
}

impl ContainerKey {
    /// The key of a container with this configuration in this sandbox.
    pub fn new(sandbox: &SandboxId, config: &ContainerConfig) -> Self {
        Self { sandbox: sandbox.clone(), name: config.name.clone(), attempt: config.attempt }
    }
}

impl Container {
    /// The key of this container.
    pub fn key(&self) -> ContainerKey {
        ContainerKey::new(&self.sandbox.id, &self.config)
    }
}

impl Sandbox {
    /// The key of this sandbox.
    pub fn key(&self) -> SandboxKey {
        SandboxKey::new(&self.namespace, &self.config)
    }
}

/// The result of asking for a name: the object is new, or was there.
pub enum Claim<T> {
    /// The caller makes it.
    New,
    /// Somebody makes it, or has made it.
    Taken(Arc<T>),
}

#[derive(Default)]
struct Maps {
    sandboxes: BTreeMap<SandboxId, Arc<Sandbox>>,
    sandbox_keys: HashMap<SandboxKey, SandboxId>,
    containers: BTreeMap<ContainerId, Arc<Container>>,
    container_keys: HashMap<ContainerKey, ContainerId>,
    /// The containers of each sandbox that has any, in the order in which they came.
    members: HashMap<SandboxId, Vec<Arc<Container>>>,
}

/// All sandboxes and containers.
#[derive(Default)]
pub struct Table {
    maps: Mutex<Maps>,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a sandbox under its key, unless the key is taken.
    pub fn claim_sandbox(&self, sandbox: &Arc<Sandbox>) -> Claim<Sandbox> {
        let mut maps = self.lock();
        let key = sandbox.key();
        if let Some(there) = maps.sandbox_keys.get(&key).and_then(|id| maps.sandboxes.get(id)) {
            return Claim::Taken(there.clone());
        }
        maps.sandbox_keys.insert(key, sandbox.id.clone());
        maps.sandboxes.insert(sandbox.id.clone(), sandbox.clone());
        Claim::New
    }

    /// Enters a container under its key, unless the key is taken.
    pub fn claim_container(&self, container: &Arc<Container>) -> Claim<Container> {
        let mut maps = self.lock();
        let key = container.key();
        if let Some(there) = maps.container_keys.get(&key).and_then(|id| maps.containers.get(id)) {
            return Claim::Taken(there.clone());
        }
        maps.container_keys.insert(key, container.id.clone());
        maps.members.entry(container.sandbox.id.clone()).or_default().push(container.clone());
        maps.containers.insert(container.id.clone(), container.clone());
        Claim::New
    }

    /// Forgets a sandbox.
    pub fn forget_sandbox(&self, sandbox: &Sandbox) {
        let mut maps = self.lock();
        maps.sandboxes.remove(&sandbox.id);
        let key = sandbox.key();
        if maps.sandbox_keys.get(&key) == Some(&sandbox.id) {
            maps.sandbox_keys.remove(&key);
        }
    }

    /// Forgets a container.
    pub fn forget_container(&self, container: &Container) {
        let mut maps = self.lock();
        maps.containers.remove(&container.id);
        if let Some(members) = maps.members.get_mut(&container.sandbox.id) {
            members.retain(|member| member.id != container.id);
            if members.is_empty() {
                maps.members.remove(&container.sandbox.id);
            }
        }
        let key = container.key();
        if maps.container_keys.get(&key) == Some(&container.id) {
            maps.container_keys.remove(&key);
        }
    }

    /// A sandbox by its whole id.
    pub fn sandbox(&self, id: &SandboxId) -> Option<Arc<Sandbox>> {
        self.lock().sandboxes.get(id).cloned()
    }

    /// A container by its whole id.
    pub fn container(&self, id: &ContainerId) -> Option<Arc<Container>> {
        self.lock().containers.get(id).cloned()
    }

    /// All sandboxes.
    pub fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        self.lock().sandboxes.values().cloned().collect()
    }

    /// All containers.
    pub fn containers(&self) -> Vec<Arc<Container>> {
        self.lock().containers.values().cloned().collect()
    }

    /// The containers of a sandbox.
    pub fn containers_of(&self, sandbox: &SandboxId) -> Vec<Arc<Container>> {
        self.lock().members.get(sandbox).cloned().unwrap_or_default()
    }

    /// Containers among which are all whose id begins so, in sandboxes whose id
    /// begins so. Kubelets give whole ids: then nothing else is looked at.
    pub fn containers_like(&self, id: &str, sandbox: &str) -> Vec<Arc<Container>> {
        match (id.parse(), sandbox.parse()) {
            (Ok(id), _) => self.container(&id).into_iter().collect(),
            (_, Ok(sandbox)) => self.containers_of(&sandbox),
            (Err(_), Err(_)) => self.containers(),
        }
    }

    /// Sandboxes among which are all whose id begins so.
    pub fn sandboxes_like(&self, id: &str) -> Vec<Arc<Sandbox>> {
        match id.parse() {
            Ok(id) => self.sandbox(&id).into_iter().collect(),
            Err(_) => self.sandboxes(),
        }
    }

    /// A sandbox by id, or by an unambiguous beginning of one; a solo one also
    /// by name. Only a whole id is found without looking at all of them: it is
    /// what kubelets give, with every request.
    pub fn find_sandbox(&self, namespace: &Namespace, text: &str) -> Result<Arc<Sandbox>> {
        let maps = self.lock();
        let here = |sandbox: &&Arc<Sandbox>| sandbox.namespace == *namespace;
        let whole = text.parse::<SandboxId>().ok().and_then(|id| maps.sandboxes.get(&id));
        if let Some(sandbox) = whole.filter(here) {
            return Ok(sandbox.clone());
        }
        let named = maps
            .sandboxes
            .values()
            .filter(here)
            .find(|sandbox| sandbox.config.solo && sandbox.config.name == text);
        if let Some(sandbox) = named {
            return Ok(sandbox.clone());
        }
        let fits = |sandbox: &&Arc<Sandbox>| sandbox.id.as_str().starts_with(text);
        one("sandbox", text, maps.sandboxes.values().filter(here).filter(fits))
    }

    /// A container by id, or by an unambiguous beginning of one; a solo one
    /// also by name. See [`Table::find_sandbox`].
    pub fn find_container(&self, namespace: &Namespace, text: &str) -> Result<Arc<Container>> {
        let maps = self.lock();
        let here = |container: &&Arc<Container>| container.sandbox.namespace == *namespace;
        let whole = text.parse::<ContainerId>().ok().and_then(|id| maps.containers.get(&id));
        if let Some(container) = whole.filter(here) {
            return Ok(container.clone());
        }
        let named = maps
            .containers
            .values()
            .filter(here)
            .find(|container| container.sandbox.config.solo && container.config.name == text);
        if let Some(container) = named {
            return Ok(container.clone());
        }
        let fits = |container: &&Arc<Container>| container.id.as_str().starts_with(text);
        one("container", text, maps.containers.values().filter(here).filter(fits))
    }
}

/// The only one of `candidates`, or an error that says why there is none.
fn one<'a, T: 'a>(
    what: &str,
    text: &str,
    mut candidates: impl Iterator<Item = &'a Arc<T>>,
) -> Result<Arc<T>> {
    if text.is_empty() {
        return Err(Error::invalid(format!("no {what} id was given")));
    }
    match (candidates.next(), candidates.next()) {
        (None, _) => Err(Error::not_found(what, text)),
        (Some(only), None) => Ok(only.clone()),
        (Some(_), Some(_)) => Err(Error::new(
            Kind::InvalidArgument,
            format!("more than one {what} id begins with {text:?}: give more of it"),
        )),
    }
}
