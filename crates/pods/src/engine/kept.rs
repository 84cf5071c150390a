//! What is made of specs again and again, and kept: the last filter, since
//! nearly all containers of a node have the same; and what execs take from the
//! specs of the containers that were last made, or looked into.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use corten_base::ContainerId;
use corten_base::limits::EXEC_BASES_MAX;
use corten_spec::oci::{Seccomp, Spec};
use corten_spec::seccomp::Filter;
use corten_spec::{ExecBase, filter};

use crate::error::{Error, Result};

/// Kept filters and bases of execs.
#[derive(Default)]
pub struct Kept {
    filter: Mutex<Option<(Seccomp, Arc<Filter>)>>,
    /// The one that was used last is at the end.
    bases: Mutex<VecDeque<(ContainerId, Arc<ExecBase>)>>,
}

impl Kept {
    /// The filter of a spec, if it has a profile.
    pub fn filter(&self, spec: &Spec) -> Result<Option<Arc<Filter>>> {
        let Some(profile) = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref()) else {
            return Ok(None);
        };
        let kept = || self.filter.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, filter)) = &*kept()
            && of == profile
        {
            return Ok(Some(filter.clone()));
        }
        let made = filter(profile).map_err(|error| Error::invalid(error.to_string()))?;
        let made = Arc::new(made);
        *kept() = Some((profile.clone(), made.clone()));
        Ok(Some(made))
    }

    /// Keeps what execs in a container with this spec and filter need.
    pub fn keep(&self, id: &ContainerId, spec: &Spec, filter: Option<Arc<Filter>>) {
        self.put(id, Arc::new(ExecBase::new(spec, filter)));
    }

    /// What execs in a container need; `load` reads its spec. An OCI runtime,
    /// where there is one, has a filter of its own making.
    pub fn base(
        &self,
        id: &ContainerId,
        delegated: bool,
        load: impl FnOnce() -> Result<Spec>,
    ) -> Result<Arc<ExecBase>> {
        let found = self.take(id);
        let base = match found {
            Some(base) => base,
            None => {
                let spec = load()?;
                let filter = if delegated { None } else { self.filter(&spec)? };
                Arc::new(ExecBase::new(&spec, filter))
            }
        };
        self.put(id, base.clone());
        Ok(base)
    }

    /// A container is gone.
    pub fn forget(&self, id: &ContainerId) {
        self.take(id);
    }

    fn take(&self, id: &ContainerId) -> Option<Arc<ExecBase>> {
        let mut bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
        let index = bases.iter().rposition(|(of, _)| of == id)?;
        bases.remove(index).map(|(_, base)| base)
    }

    fn put(&self, id: &ContainerId, base: Arc<ExecBase>) {
        let mut bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
        bases.retain(|(of, _)| of != id);
        if bases.len() >= EXEC_BASES_MAX {
            bases.pop_front();
        }
        bases.push_back((id.clone(), base));
    }
}
