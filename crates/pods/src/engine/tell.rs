//! What of all that happens is told as an event.

use std::sync::Arc;

use super::lists::{container_view, sandbox_view};
use super::{Engine, Inner, realtime_ns};
use crate::events::{EventKind, Events, Identity, News, PodEvent, Since, Subject};
use crate::state::{ContainerState, SandboxState};
use crate::table::{Container, Sandbox};
use crate::view::{ContainerView, SandboxPhase, SandboxView};

impl Engine {
    /// Listens to what happens, in all namespaces.
    pub fn events(&self, since: Since) -> Events {
        self.inner.events.listen(since)
    }

    /// Ends all who listen: for a daemon that leaves.
    pub fn end_events(&self) {
        self.inner.events.close();
    }
}

impl Inner {
    /// Tells that a container went from one state to another.
    pub(super) fn tell_move(
        &self,
        container: &Container,
        before: ContainerState,
        after: ContainerState,
    ) {
        use ContainerState as S;
        let kind = match (before, after) {
            // What was not told as made need not be told as ended.
            (S::Creating, S::Exited) => return,
            (_, S::Created) => EventKind::Created,
            (_, S::Running) => EventKind::Started,
            (_, S::Exited) => EventKind::Stopped,
            (_, S::Creating | S::Starting | S::Removing) => return,
        };
        self.tell_container(container, kind);
    }

    /// Tells what happened to a container.
    pub(super) fn tell_container(&self, container: &Container, kind: EventKind) {
        self.tell(&container.sandbox, Some(container), kind);
    }

    /// Tells that a sandbox went from one state to another.
    pub(super) fn tell_sandbox_move(
        &self,
        sandbox: &Sandbox,
        before: SandboxState,
        after: SandboxState,
    ) {
        use SandboxState as S;
        match (before, after) {
            (S::Starting, S::Ready) => {
                self.tell(sandbox, None, EventKind::Created);
                self.tell(sandbox, None, EventKind::Started);
            }
            (S::Stopping, S::Stopped) => self.tell(sandbox, None, EventKind::Stopped),
            (_, S::Starting | S::Ready | S::Stopping | S::Stopped | S::Removing) => {}
        }
    }

    /// Tells that a sandbox is gone, if it was told that it was there.
    pub(super) fn tell_sandbox_gone(&self, sandbox: &Sandbox) {
        if sandbox.record.borrow().state == SandboxState::Removing {
            self.tell(sandbox, None, EventKind::Deleted);
        }
    }

    /// Likewise of a container.
    pub(super) fn tell_container_gone(&self, container: &Container) {
        if container.record.borrow().state != ContainerState::Creating {
            self.tell_container(container, EventKind::Deleted);
        }
    }

    fn tell(&self, sandbox: &Sandbox, container: Option<&Container>, kind: EventKind) {
        self.events.tell(|| News {
            kind,
            at_ns: realtime_ns(),
            container: container.map(|container| container.id.clone()),
            sandbox: sandbox_view(&sandbox.record.borrow()),
            containers: self.views_of(sandbox),
        });
    }

    /// The containers of a sandbox that are shown, oldest first.
    fn views_of(&self, sandbox: &Sandbox) -> Vec<ContainerView> {
        let containers = self.table.containers_of(&sandbox.id);
        let mut views: Vec<_> = containers
            .iter()
            .filter(|container| container.record.borrow().state != ContainerState::Creating)
            .map(|container| container_view(&container.record.borrow()))
            .collect();
        views.sort_by_key(|view| view.created_at_ns);
        views
    }

    /// Takes up the events that an earlier daemon told.
    pub(super) fn restore_events(&self) {
        self.events.restore(|identity| match self.table.sandbox(&identity.sandbox) {
            Some(sandbox) => (sandbox_view(&sandbox.record.borrow()), self.views_of(&sandbox)),
            None => (gone(identity), Vec::new()),
        });
    }

    /// Tells what has happened and was not told, since the daemon was killed
    /// between the two.
    pub(super) fn tell_what_was_missed(&self) {
        let (last, oldest_ns) = self.events.last_told();
        // Before that nobody knows what was told.
        let Some(oldest_ns) = oldest_ns else { return };
        let told = |sandbox: &Sandbox, container: Option<&Container>| {
            let id = container.map(|container| container.id.clone());
            last.get(&Subject(sandbox.id.clone(), id)).map(|event| event.kind)
        };
        for sandbox in self.table.sandboxes() {
            let (state, created_ns) = {
                let record = sandbox.record.borrow();
                (record.state, record.created_at_ns)
            };
            let now = match state {
                SandboxState::Ready | SandboxState::Stopping => EventKind::Started,
                SandboxState::Stopped => EventKind::Stopped,
                SandboxState::Starting | SandboxState::Removing => continue,
            };
            for kind in missed(told(&sandbox, None), now, created_ns >= oldest_ns) {
                self.tell(&sandbox, None, kind);
            }
        }
        for container in self.table.containers() {
            let (state, created_ns) = {
                let record = container.record.borrow();
                (record.state, record.created_at_ns)
            };
            let now = match state {
                ContainerState::Created | ContainerState::Starting => EventKind::Created,
                ContainerState::Running => EventKind::Started,
                ContainerState::Exited => EventKind::Stopped,
                ContainerState::Creating | ContainerState::Removing => continue,
            };
            let told = told(&container.sandbox, Some(&container));
            for kind in missed(told, now, created_ns >= oldest_ns) {
                self.tell_container(&container, kind);
            }
        }
        let mut gone: Vec<_> =
            last.into_values().filter(|event| self.is_untold_end(event)).collect();
        // Containers before their pods, all in the order in which they came.
        gone.sort_by_key(|event| (event.container.is_none(), event.sequence));
        for event in gone {
            self.events.tell(|| News {
                kind: EventKind::Deleted,
                at_ns: realtime_ns(),
                container: event.container.clone(),
                sandbox: (*event.sandbox).clone(),
                containers: event.containers.iter().map(|view| (**view).clone()).collect(),
            });
        }
    }

    /// Whether something is gone that was not told as gone.
    fn is_untold_end(&self, event: &Arc<PodEvent>) -> bool {
        let there = match &event.container {
            Some(id) => self.table.container(id).is_some(),
            None => self.table.sandbox(&event.sandbox.id).is_some(),
        };
        event.kind != EventKind::Deleted && !there
    }
}

/// The number of the first event of a boot: higher than any before.
pub(super) fn first_event() -> u64 {
    const NANOSECONDS: i64 = 1_000_000_000;
    u64::try_from(realtime_ns() / NANOSECONDS).unwrap_or_default() << 20
}

/// What is to be told of something, of which this was told last.
fn missed(told: Option<EventKind>, now: EventKind, is_new: bool) -> Vec<EventKind> {
    use EventKind as K;
    let all = [K::Created, K::Started, K::Stopped];
    let until_now = all.into_iter().filter(|kind| *kind <= now);
    match told {
        // It is older than anything that is known to be told.
        None if !is_new => Vec::new(),
        // What it went through between is not known: an end without a start
        // may be one.
        None => until_now.filter(|kind| *kind == K::Created || *kind == now).collect(),
        // One of people's, that was started again.
        Some(K::Stopped) if now == K::Started => vec![K::Started],
        Some(told) if told < now => vec![now],
        Some(_) => Vec::new(),
    }
}

/// A pod of which only the name is left.
fn gone(identity: &Identity) -> SandboxView {
    let config = corten_spec::request::SandboxConfig {
        name: identity.name.clone(),
        uid: identity.uid.clone(),
        namespace: identity.pod_namespace.clone(),
        attempt: identity.attempt,
        solo: identity.solo,
        ..Default::default()
    };
    SandboxView {
        id: identity.sandbox.clone(),
        namespace: identity.namespace.clone(),
        config: Arc::new(config),
        phase: SandboxPhase::NotReady,
        created_at_ns: identity.created_at_ns,
        ips: Vec::new(),
        netns: None,
        shim_pid: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_not_told_is_told() {
        use EventKind as K;
        assert_eq!(missed(Some(K::Started), K::Stopped, true), [K::Stopped]);
        assert_eq!(missed(Some(K::Created), K::Stopped, true), [K::Stopped]);
        assert_eq!(missed(Some(K::Started), K::Started, true), []);
        assert_eq!(missed(Some(K::Stopped), K::Started, true), [K::Started]);
        assert_eq!(missed(None, K::Started, true), [K::Created, K::Started]);
        assert_eq!(missed(None, K::Stopped, false), []);
        assert_eq!(missed(Some(K::Deleted), K::Stopped, true), []);
    }
}
