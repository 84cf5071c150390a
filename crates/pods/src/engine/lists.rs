//! Views: copies of records, filtered. They touch nothing but memory.

use corten_base::Namespace;
use corten_spec::request::Map;
use serde_json::Value;

use super::Engine;
use crate::error::{Error, Result};
use crate::record::{ContainerRecord, SandboxRecord};
use crate::state::{ContainerState, SandboxState};
use crate::view::*;

impl Engine {
    /// One sandbox, by id or the beginning of one.
    pub fn sandbox(&self, ns: &Namespace, id: &str) -> Result<SandboxView> {
        let sandbox = self.inner.table.find_sandbox(ns, id)?;
        let record = sandbox.record.borrow();
        visible_sandbox(&record)
            .then(|| sandbox_view(&record))
            .ok_or_else(|| Error::not_found("sandbox", id))
    }

    /// Those that fit, oldest first.
    pub fn sandboxes(&self, ns: &Namespace, filter: &SandboxFilter) -> Vec<SandboxView> {
        let mut views = Vec::new();
        for sandbox in self.inner.table.sandboxes_like(&filter.id) {
            if sandbox.namespace != *ns || !sandbox.id.as_str().starts_with(&filter.id) {
                continue;
            }
            let record = sandbox.record.borrow();
            let fits = visible_sandbox(&record)
                && filter.phase.is_none_or(|phase| phase == sandbox_phase(record.state))
                && has_labels(&record.config.labels, &filter.labels);
            if fits {
                views.push(sandbox_view(&record));
            }
        }
        views.sort_by_key(|view| view.created_at_ns);
        views
    }

    /// One container, by id, the beginning of one, or (solo) its name.
    pub fn container(&self, ns: &Namespace, id: &str) -> Result<ContainerView> {
        let container = self.inner.table.find_container(ns, id)?;
        let record = container.record.borrow();
        visible_container(&record)
            .then(|| container_view(&record))
            .ok_or_else(|| Error::not_found("container", id))
    }

    /// Those that fit, oldest first.
    pub fn containers(&self, ns: &Namespace, filter: &ContainerFilter) -> Vec<ContainerView> {
        let mut views = Vec::new();
        for container in self.inner.table.containers_like(&filter.id, &filter.sandbox) {
            if container.sandbox.namespace != *ns
                || !container.id.as_str().starts_with(&filter.id)
                || !container.sandbox.id.as_str().starts_with(&filter.sandbox)
            {
                continue;
            }
            let record = container.record.borrow();
            let fits = visible_container(&record)
                && filter.phase.is_none_or(|phase| phase == container_phase(record.state, &record))
                && has_labels(&record.config.labels, &filter.labels);
            if fits {
                views.push(container_view(&record));
            }
        }
        views.sort_by_key(|view| view.created_at_ns);
        views
    }

    /// Everything known about a container (its record, OCI spec), as JSON.
    pub fn inspect_container(&self, ns: &Namespace, id: &str) -> Result<Value> {
        let container = self.inner.table.find_container(ns, id)?;
        let record = container.record.borrow().clone();
        let mut value = to_json(&record)?;
        let dir = self.inner.journal.container_dir(&record.sandbox, &record.id);
        let spec = std::fs::read(dir.join("spec.json")).ok();
        if let Some(spec) = spec.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok()) {
            value["runtimeSpec"] = spec;
        }
        Ok(value)
    }

    /// Everything known about a sandbox, as JSON.
    pub fn inspect_sandbox(&self, ns: &Namespace, id: &str) -> Result<Value> {
        let sandbox = self.inner.table.find_sandbox(ns, id)?;
        let record = sandbox.record.borrow().clone();
        to_json(&record)
    }

    /// Namespaces that have anything in them.
    pub fn namespaces(&self) -> Vec<Namespace> {
        let sandboxes = self.inner.table.sandboxes();
        let mut names: Vec<_> = sandboxes.iter().map(|sandbox| sandbox.namespace.clone()).collect();
        names.sort();
        names.dedup();
        names
    }
}

fn to_json<T: serde::Serialize>(record: &T) -> Result<Value> {
    serde_json::to_value(record)
        .map_err(|error| Error::internal(format!("unable to show a record: {error}")))
}

fn has_labels(labels: &Map, wanted: &Map) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// What is still being made, or on its way out, is not shown.
fn visible_sandbox(record: &SandboxRecord) -> bool {
    match record.state {
        SandboxState::Ready | SandboxState::Stopping | SandboxState::Stopped => true,
        SandboxState::Starting | SandboxState::Removing => false,
    }
}

fn sandbox_phase(state: SandboxState) -> SandboxPhase {
    match state {
        SandboxState::Ready => SandboxPhase::Ready,
        SandboxState::Starting
        | SandboxState::Stopping
        | SandboxState::Stopped
        | SandboxState::Removing => SandboxPhase::NotReady,
    }
}

pub(super) fn sandbox_view(record: &SandboxRecord) -> SandboxView {
    let ips = record
        .attachment
        .as_ref()
        .map(|attachment| attachment.ips.iter().map(|net| net.address).collect());
    SandboxView {
        id: record.id.clone(),
        namespace: record.namespace.clone(),
        config: record.config.clone(),
        phase: sandbox_phase(record.state),
        created_at_ns: record.created_at_ns,
        ips: ips.unwrap_or_default(),
        netns: record.netns.clone(),
        shim_pid: record.shim_pid,
    }
}

/// One that is being removed was seen before, and is shown to its end.
fn visible_container(record: &ContainerRecord) -> bool {
    record.state != ContainerState::Creating
}

fn container_phase(state: ContainerState, record: &ContainerRecord) -> ContainerPhase {
    match state {
        ContainerState::Creating | ContainerState::Created | ContainerState::Starting => {
            ContainerPhase::Created
        }
        ContainerState::Running => ContainerPhase::Running,
        ContainerState::Exited => ContainerPhase::Exited,
        ContainerState::Removing if record.finished_at_ns == 0 => ContainerPhase::Created,
        ContainerState::Removing => ContainerPhase::Exited,
    }
}

pub(super) fn container_view(record: &ContainerRecord) -> ContainerView {
    ContainerView {
        id: record.id.clone(),
        sandbox: record.sandbox.clone(),
        namespace: record.namespace.clone(),
        config: record.config.clone(),
        phase: container_phase(record.state, record),
        created_at_ns: record.created_at_ns,
        started_at_ns: record.started_at_ns,
        finished_at_ns: record.finished_at_ns,
        exit_code: record.exit_code,
        reason: record.reason.clone(),
        message: record.message.clone(),
        image_id: record.image_id,
        image_ref: record.image_ref.clone(),
        volumes: record.volumes.iter().map(|volume| (volume.mount, volume.image_id)).collect(),
        log_path: record.log_path.clone(),
        resources: record.resources.clone(),
        user: record.user.clone(),
        stop_signal: record.stop_signal,
        pid: record.pid,
    }
}
