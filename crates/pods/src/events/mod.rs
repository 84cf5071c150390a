//! What happened to pods and containers, told to whoever listens.
//!
//! Events have numbers and are kept for a while in a ring, in memory and in a
//! file of the state directory, so that a new daemon goes on where the old one
//! ended. Everybody reads at their own speed; who is so slow that events were
//! dropped meanwhile is told so ([`Told::Gap`]), and lists again. Nobody can
//! hold up anybody else, and nobody is dropped from in silence.

mod file;
mod ring;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use corten_base::{ContainerId, Namespace, SandboxId};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::view::{ContainerView, SandboxView};
pub(crate) use file::Identity;
use file::{EventFile, Kept};
use ring::Ring;

/// How old an event may be that somebody new is told: five minutes.
const NEWS_AGE_MAX_NS: i64 = 300 * 1_000_000_000;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EventKind {
    /// It was made.
    Created,
    /// It runs; a pod: its network and its shim are there.
    Started,
    /// The kernel killed a process of it for want of memory.
    OutOfMemory,
    /// It ended.
    Stopped,
    /// It was removed.
    Deleted,
}

/// Something that happened, with the pod as it was then.
#[derive(Debug, Clone)]
pub struct PodEvent {
    /// Grows by one from event to event, over restarts of the daemon, too.
    pub sequence: u64,
    /// Nanoseconds since 1970.
    pub at_ns: i64,
    /// What.
    pub kind: EventKind,
    /// To which container; to the pod itself if none.
    pub container: Option<ContainerId>,
    /// The pod. Of one that was removed before the daemon was restarted, only
    /// who it was is known.
    pub sandbox: Arc<SandboxView>,
    /// All its containers, oldest first; also one that this event removed.
    pub containers: Vec<Arc<ContainerView>>,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// With what happens from now on.
    Now,
    /// With this number. What is no longer kept is a gap.
    Sequence(u64),
    /// With what nobody who listened like this has heard yet, but not with what
    /// is old: a kubelet that connects again misses nothing.
    Unheard,
}

/// What a listener is told.
#[derive(Debug, Clone)]
pub enum Told {
    /// The next event.
    Event(Arc<PodEvent>),
    /// So many events were dropped before they were read.
    Gap(u64),
}

/// All events.
pub(crate) struct Hub {
    state: Mutex<State>,
    /// The number of the next event; closed when the daemon leaves.
    latest: watch::Sender<Latest>,
}

#[derive(Debug, Clone, Copy)]
struct Latest {
    next: u64,
    over: bool,
}

struct State {
    ring: Ring,
    file: EventFile,
    /// Events of an earlier daemon that are still to be taken up.
    old: Vec<Kept>,
    /// Views of pods as they were last told, to be shared by their events.
    last: LastTold,
}

/// The containers of pods as they were last told.
type LastTold = HashMap<SandboxId, Vec<Arc<ContainerView>>>;

/// What is to be told.
pub(crate) struct News {
    /// What happened.
    pub kind: EventKind,
    /// When, nanoseconds since 1970.
    pub at_ns: i64,
    /// To which container; to the pod if none.
    pub container: Option<ContainerId>,
    /// The pod as it is.
    pub sandbox: SandboxView,
    /// Its containers as they are.
    pub containers: Vec<ContainerView>,
}

impl Hub {
    /// Opens the events of an earlier daemon. `first` is the number of the
    /// first event ever.
    pub fn open(path: &Path, first: u64) -> Self {
        let (file, old) = EventFile::open(path, first);
        let latest = watch::Sender::new(Latest { next: file.next(), over: false });
        let ring = Ring::new(file.next());
        Self { state: Mutex::new(State { ring, file, old, last: HashMap::new() }), latest }
    }

    /// Takes these events up, once: `show` gives the pod of an old one, and
    /// its containers, as they are now.
    pub fn restore(&self, show: impl Fn(&Identity) -> (SandboxView, Vec<ContainerView>)) {
        let mut state = self.state();
        // Many events are of the same pods.
        let mut shown = HashMap::new();
        for Kept { sequence, at_ns, kind, container, identity } in std::mem::take(&mut state.old) {
            let pod = shown.entry(identity.sandbox.clone()).or_insert_with(|| {
                let (sandbox, containers) = show(&identity);
                (Arc::new(sandbox), share(None, containers))
            });
            let (sandbox, containers) = pod.clone();
            let event = PodEvent { sequence, at_ns, kind, container, sandbox, containers };
            remember(&mut state.last, &event);
            state.ring.push(Arc::new(event));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells an event. `news` is made under the lock, so that numbers have the
    /// order of what they tell.
    pub fn tell(&self, news: impl FnOnce() -> News) {
        let mut guard = self.state();
        let state = &mut *guard;
        let News { kind, at_ns, container, sandbox, containers } = news();
        let containers = share(state.last.get(&sandbox.id), containers);
        let event = Arc::new(PodEvent {
            sequence: state.ring.next(),
            at_ns,
            kind,
            container,
            sandbox: Arc::new(sandbox),
            containers,
        });
        remember(&mut state.last, &event);
        state.ring.push(event.clone());
        state.file.append(&event, state.ring.events());
        self.latest.send_replace(Latest { next: state.ring.next(), over: false });
    }

    /// The last thing that was told of each pod and container, from the oldest
    /// event that is kept; and when that was.
    pub fn last_told(&self) -> (HashMap<Subject, Arc<PodEvent>>, Option<i64>) {
        let state = self.state();
        let mut last = HashMap::new();
        for event in state.ring.events().filter(|event| event.kind != EventKind::OutOfMemory) {
            let subject = Subject(event.sandbox.id.clone(), event.container.clone());
            last.insert(subject, event.clone());
        }
        (last, state.ring.events().next().map(|event| event.at_ns))
    }

    /// A new listener.
    pub fn listen(self: &Arc<Self>, since: Since) -> Events {
        let state = self.state();
        let next = match since {
            Since::Now => state.ring.next(),
            Since::Sequence(sequence) => sequence.min(state.ring.next()),
            Since::Unheard => {
                // What is older, or no longer kept, is no news to somebody
                // new: they list first.
                let old = corten_kernel::process::realtime_ns() - NEWS_AGE_MAX_NS;
                let stale = state.ring.events().take_while(|event| event.at_ns < old).count();
                state.file.heard().max(state.ring.oldest() + stale as u64)
            }
        };
        let marks = since == Since::Unheard;
        Events { hub: self.clone(), next, marks, latest: self.latest.subscribe() }
    }

    /// Ends all listeners: the daemon leaves.
    pub fn close(&self) {
        self.latest.send_modify(|latest| latest.over = true);
    }
}

/// A pod, or a container of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Subject(pub SandboxId, pub Option<ContainerId>);

/// Keeps what the next event of the pod can share, as long as there is one.
fn remember(last: &mut LastTold, event: &PodEvent) {
    if event.kind == EventKind::Deleted && event.container.is_none() {
        last.remove(&event.sandbox.id);
    } else {
        last.insert(event.sandbox.id.clone(), event.containers.clone());
    }
}

/// Uses views that were told before where nothing changed: a ring of events of
/// the same pods takes little memory.
fn share(
    before: Option<&Vec<Arc<ContainerView>>>,
    containers: Vec<ContainerView>,
) -> Vec<Arc<ContainerView>> {
    let known = |view: &ContainerView| {
        before?.iter().find(|old| old.id == view.id).filter(|old| ***old == *view).cloned()
    };
    let views = containers.into_iter().map(|view| known(&view).unwrap_or_else(|| Arc::new(view)));
    let mut shared: Vec<_> = views.collect();
    // It is collected in place: in the room of the views.
    shared.shrink_to_fit();
    shared
}

/// Somebody who listens.
pub struct Events {
    hub: Arc<Hub>,
    next: u64,
    /// What it has heard counts as heard.
    marks: bool,
    latest: watch::Receiver<Latest>,
}

impl Events {
    /// The next event, when there is one; none when the daemon leaves. What
    /// was told before counts as heard when the next is asked for.
    pub async fn next(&mut self) -> Option<Told> {
        if self.marks {
            self.hub.state().file.mark_heard(self.next);
        }
        let next = self.next;
        let latest =
            *self.latest.wait_for(|latest| latest.over || latest.next > next).await.ok()?;
        if latest.next <= next {
            return None;
        }
        let state = self.hub.state();
        match state.ring.get(next) {
            Some(event) => {
                self.next += 1;
                Some(Told::Event(event.clone()))
            }
            None => {
                let oldest = state.ring.oldest();
                self.next = oldest;
                Some(Told::Gap(oldest.saturating_sub(next)))
            }
        }
    }

    /// The number of the event that comes next.
    pub fn position(&self) -> u64 {
        self.next
    }
}

impl PodEvent {
    /// The namespace of names that it happened in.
    pub fn namespace(&self) -> &Namespace {
        &self.sandbox.namespace
    }
}

#[cfg(test)]
mod tests;
