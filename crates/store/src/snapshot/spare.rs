//! A root file system that is made before it is asked for.
//!
//! A new snapshot takes a handful of new inodes, some of them the kernel's, and
//! a mount: half of what it costs to make a container. Mostly the next one is
//! made of the same layers as the last. So one is kept ready for these; it
//! becomes a container's by one rename. It lies in a directory of its own, and
//! is thrown away when the daemon starts or layers are collected.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::Duration;

use corten_base::Digest;

use crate::layer::Lease;

/// How long after a container another one is made ready: until then the one
/// that was just made is started, and wants the processor.
const REST: Duration = Duration::from_millis(100);

/// One that is ready.
pub(super) struct Spare {
    /// Bottom first.
    pub(super) layers: Vec<Digest>,
    /// Keep them from being collected.
    pub(super) _leases: Vec<Lease>,
    /// Where it lies.
    pub(super) dir: PathBuf,
    /// The mount, detached.
    pub(super) mount: OwnedFd,
}

/// The place for one.
#[derive(Default)]
pub(super) struct Place {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    ready: Option<Spare>,
    /// Make one of these layers.
    wanted: Option<Vec<Digest>>,
    /// The thread that makes them runs.
    attended: bool,
    closed: bool,
}

/// Who makes spares and throws them away.
pub(super) trait Maker: Send + Sync + 'static {
    /// Makes one; none if that cannot be done now.
    fn make_spare(&self, layers: &[Digest]) -> Option<Spare>;
    /// Deletes one in the background.
    fn discard_spare(&self, spare: Spare);
}

impl Place {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The spare, if it is of these layers. Does not wait for one that is just
    /// being made.
    pub(super) fn take(&self, layers: &[Digest]) -> Option<Spare> {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(state)) => state.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        state.ready.take_if(|spare| spare.layers == layers)
    }

    /// Asks for one of these layers, soon.
    pub(super) fn want<M: Maker>(self: &Arc<Self>, layers: &[Digest], maker: &Arc<M>) {
        // Whoever makes one now makes it of what was wanted before.
        let Ok(mut state) = self.state.try_lock() else { return };
        if state.ready.as_ref().is_some_and(|spare| spare.layers == layers) {
            return;
        }
        state.wanted = Some(layers.to_vec());
        if !state.attended {
            let (place, maker) = (self.clone(), Arc::downgrade(maker));
            let started = std::thread::Builder::new()
                .name("spares".into())
                .stack_size(128 << 10)
                .spawn(move || place.attend(&maker));
            // Without the thread there are no spares.
            state.attended = started.is_ok();
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Throws it away, and makes no other until one is wanted. Returns when
    /// its layers are free.
    pub(super) fn clear(&self, maker: &impl Maker) {
        let mut state = self.state();
        state.wanted = None;
        if let Some(spare) = state.ready.take() {
            maker.discard_spare(spare);
        }
    }

    /// Ends the thread.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    fn attend<M: Maker>(&self, maker: &Weak<M>) {
        let mut state = self.state();
        loop {
            let idle = |state: &mut State| state.wanted.is_none() && !state.closed;
            let woken = self.changed.wait_while(state, idle);
            state = woken.unwrap_or_else(PoisonError::into_inner);
            let open = |state: &mut State| !state.closed;
            let rested = self.changed.wait_timeout_while(state, REST, open);
            state = rested.unwrap_or_else(PoisonError::into_inner).0;
            let Some(maker) = maker.upgrade().filter(|_| !state.closed) else { return };
            let Some(layers) = state.wanted.take() else { continue };
            if let Some(spare) = state.ready.take_if(|spare| spare.layers != layers) {
                maker.discard_spare(spare);
            }
            if state.ready.is_none() {
                // Under the lock, so that who clears waits for it.
                state.ready = maker.make_spare(&layers);
            }
        }
    }
}
