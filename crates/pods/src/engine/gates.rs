//! Where execs enter the groups of the containers that were last made, or
//! looked into.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use corten_base::ContainerId;
use corten_base::limits::EXEC_GATES_MAX;
use corten_kernel::cgroup::Gate;

use crate::error::Result;

/// Opened gates. The one that was used last is at the end.
#[derive(Default)]
pub struct Gates {
    opened: Mutex<VecDeque<(ContainerId, Arc<Gate>)>>,
}

impl Gates {
    /// The gate of a container: there is only one at a time, as long as an exec
    /// uses it.
    pub fn of(
        &self,
        id: &ContainerId,
        open: impl FnOnce() -> corten_kernel::Result<Gate>,
    ) -> Result<Arc<Gate>> {
        if let Some(gate) = take(&mut self.opened(), id) {
            return Ok(gate);
        }
        let gate = Arc::new(open()?);
        let mut opened = self.opened();
        if let Some(gate) = take(&mut opened, id) {
            return Ok(gate);
        }
        put(&mut opened, id, gate.clone());
        Ok(gate)
    }

    /// Keeps the gate of a container that was just made.
    pub fn keep(&self, id: &ContainerId, gate: Gate) {
        let mut opened = self.opened();
        opened.retain(|(of, _)| of != id);
        put(&mut opened, id, Arc::new(gate));
    }

    /// Before the group of a container is removed: the groups of its execs go.
    /// Returns what does that.
    pub fn close(&self, id: &ContainerId) -> impl FnOnce() + Send + 'static {
        let mut opened = self.opened();
        let at = opened.iter().rposition(|(of, _)| of == id);
        let gate = at.and_then(|at| opened.remove(at));
        move || {
            if let Some((_, gate)) = gate {
                gate.remove_groups();
            }
        }
    }

    /// What is in it is never half changed.
    fn opened(&self) -> MutexGuard<'_, VecDeque<(ContainerId, Arc<Gate>)>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The gate of a container, which is the last one from now on.
fn take(opened: &mut VecDeque<(ContainerId, Arc<Gate>)>, id: &ContainerId) -> Option<Arc<Gate>> {
    let at = opened.iter().rposition(|(of, _)| of == id)?;
    let found = opened.remove(at)?;
    let gate = found.1.clone();
    opened.push_back(found);
    Some(gate)
}

/// One more, in place of one that no exec uses.
fn put(opened: &mut VecDeque<(ContainerId, Arc<Gate>)>, id: &ContainerId, gate: Arc<Gate>) {
    if opened.len() >= EXEC_GATES_MAX
        && let Some(idle) = opened.iter().position(|(_, gate)| Arc::strong_count(gate) == 1)
    {
        opened.remove(idle);
    }
    opened.push_back((id.clone(), gate));
}
