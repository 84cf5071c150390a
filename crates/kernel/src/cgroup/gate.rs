//! Where execs enter a group: its files, opened once, and groups below it of
//! which each exec that may have to be killed gets one.
//!
//! Making a group and removing it costs more than all else that is done for an
//! exec outside of it, so that they are used again and again. Their names are
//! numbers: whoever comes to the group later, another process or the same one
//! with another [`Gate`], finds them, and makes those anew that nobody is in.
//!
//! One that was killed is of no more use: Linux of 2025 and later (and stable
//! kernels of that time) counts the kills of a group, and kills a child that is
//! born into it if the count is another than that of its parent's group.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use corten_base::limits::EXEC_GROUPS_KEPT_MAX;

use super::file::{Directory, keyed};
use super::group::{Entry, Group};
use super::remove;
use crate::{Context as _, Result};

/// Bytes of `cgroup.subtree_control` and `cgroup.events` that are read.
const FILE_BYTES: usize = 512;

/// The way of execs into one group.
#[derive(Debug)]
pub struct Gate {
    /// In the v2 hierarchy, if there is one.
    unified: Option<Unified>,
    /// `tasks` in each v1 hierarchy.
    tasks: Vec<OwnedFd>,
}

#[derive(Debug)]
struct Unified {
    directory: Directory,
    /// The same, for `CLONE_INTO_CGROUP`.
    into: OwnedFd,
    /// `cgroup.subtree_control`, opened for the first exec.
    control: OnceLock<File>,
    /// The groups below, by their numbers.
    places: Mutex<Vec<Place>>,
}

/// A group of an exec.
#[derive(Debug)]
enum Place {
    /// It is there or not, and somebody may be in it.
    Unknown,
    /// Given back.
    Free(Own),
    /// An exec has it.
    Taken,
}

/// The descriptors of such a group.
#[derive(Debug)]
struct Own {
    into: OwnedFd,
    kill: OwnedFd,
    events: File,
}

/// What one exec enters by. Dropped without [`Pass::give_back`], its group is
/// looked at before another exec gets it.
#[derive(Debug)]
pub struct Pass {
    gate: Arc<Gate>,
    own: Option<(usize, Option<Own>)>,
}

/// A group that is not kept. Nobody else gets it before it is removed.
#[derive(Debug)]
pub struct Surplus(Pass);

impl Gate {
    /// Opens what all execs in a group need.
    pub fn open(group: &Group) -> Result<Self> {
        let into = group.unified().ok().map(|directory| directory.open()).transpose()?;
        Ok(Self::new(group, into, group.tasks()?))
    }

    /// Of what its first process entered by.
    pub fn of_entry(group: &Group, entry: Entry) -> Self {
        Self::new(group, entry.into, entry.tasks)
    }

    fn new(group: &Group, into: Option<OwnedFd>, tasks: Vec<OwnedFd>) -> Self {
        let unified = group.unified().ok().zip(into).map(|(directory, into)| Unified {
            directory,
            into,
            control: OnceLock::new(),
            places: Mutex::default(),
        });
        Self { unified, tasks }
    }

    /// What the next exec enters by; `killable` if its whole tree may have to be
    /// killed. It gets a group of its own then, without controllers: its
    /// processes count for the group above. But not where there is no v2, or
    /// where the container manages groups of its own, among which we must not
    /// put ours.
    pub fn pass(self: &Arc<Self>, killable: bool) -> Result<Pass> {
        if let Some(unified) = self.unified.as_ref().filter(|_| killable)
            && unified.is_plain()?
        {
            return self.own_pass(unified);
        }
        Ok(Pass { gate: self.clone(), own: None })
    }

    fn own_pass(self: &Arc<Self>, unified: &Unified) -> Result<Pass> {
        let mut from = 0;
        loop {
            let (number, free) = unified.take(from);
            let mut pass = Pass { gate: self.clone(), own: Some((number, None)) };
            let own = match free {
                Some(own) => Some(own).filter(Own::is_empty),
                None => {
                    from = number + 1;
                    unified.make(number)?
                }
            };
            if own.is_some() {
                pass.own = Some((number, own));
                return Ok(pass);
            }
        }
    }

    /// Removes the groups of execs that have ended, before the group itself is
    /// removed. What stays is found by whoever does that.
    pub fn remove_groups(&self) {
        let Some(unified) = &self.unified else { return };
        for number in 0..unified.places().len() {
            let _ = remove::all_empty(&[unified.child(number)]);
        }
    }
}

impl Unified {
    /// No groups below have controllers.
    fn is_plain(&self) -> Result<bool> {
        const CONTROL: &str = "cgroup.subtree_control";
        let control = match self.control.get() {
            Some(control) => control,
            None => {
                let opened = self.directory.open_file(CONTROL, false)?.into();
                self.control.get_or_init(|| opened)
            }
        };
        let mut bytes = [0; FILE_BYTES];
        let length = control
            .read_at(&mut bytes, 0)
            .context("read", || format!("{CONTROL} of {}", self.directory.path().display()))?;
        Ok(bytes[..length].trim_ascii().is_empty())
    }

    /// One that was given back, or else the first from `from` on that nobody has.
    fn take(&self, from: usize) -> (usize, Option<Own>) {
        let mut places = self.places();
        let free = places.iter().position(|place| matches!(place, Place::Free(_)));
        let unknown = |places: &[Place]| {
            let at = places.iter().skip(from).position(|place| matches!(place, Place::Unknown));
            at.map(|at| at + from)
        };
        let number = free.or_else(|| unknown(&places)).unwrap_or_else(|| {
            places.push(Place::Unknown);
            places.len() - 1
        });
        match std::mem::replace(&mut places[number], Place::Taken) {
            Place::Free(own) => (number, Some(own)),
            Place::Unknown | Place::Taken => (number, None),
        }
    }

    /// The group with this number, anew; none if somebody is in that one.
    fn make(&self, number: usize) -> Result<Option<Own>> {
        let child = self.child(number);
        let make = || child.make().context("make", || format!("cgroup {}", child.path().display()));
        let anew = || Ok(remove::all_empty(std::slice::from_ref(&child)) && make()?);
        if !make()? && !anew()? {
            return Ok(None);
        }
        Ok(Some(Own {
            into: child.open()?,
            kill: child.open_file("cgroup.kill", true)?,
            events: child.open_file("cgroup.events", false)?.into(),
        }))
    }

    fn child(&self, number: usize) -> Directory {
        self.directory.child(&format!("exec-{number}"))
    }

    /// What is in it is never half changed.
    fn places(&self) -> MutexGuard<'_, Vec<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Own {
    /// Nobody is in it, or below it.
    fn is_empty(&self) -> bool {
        let mut bytes = [0; FILE_BYTES];
        let Ok(length) = self.events.read_at(&mut bytes, 0) else { return false };
        let text = String::from_utf8_lossy(&bytes[..length]);
        keyed(&text, "populated") == Some(0)
    }
}

impl Pass {
    /// The directory in the v2 hierarchy to be born into.
    pub fn into_group(&self) -> Option<BorrowedFd<'_>> {
        let shared = self.gate.unified.as_ref().map(|unified| unified.into.as_fd());
        self.own().map(|own| own.into.as_fd()).or(shared)
    }

    /// `cgroup.kill` of the exec's own group, if it has one.
    pub fn kill(&self) -> Option<BorrowedFd<'_>> {
        self.own().map(|own| own.kill.as_fd())
    }

    /// `tasks` of the v1 groups.
    pub fn tasks(&self) -> &[OwnedFd] {
        &self.gate.tasks
    }

    fn own(&self) -> Option<&Own> {
        self.own.as_ref()?.1.as_ref()
    }

    /// The exec has ended, and was not killed. The next one gets its group, if
    /// nobody is in it; of those beyond the number that is kept, the caller
    /// removes it.
    pub fn give_back(mut self) -> Option<Surplus> {
        match self.own.take() {
            Some((number, Some(own))) if number < EXEC_GROUPS_KEPT_MAX => {
                if let Some(unified) = &self.gate.unified {
                    unified.places()[number] = Place::Free(own);
                }
                None
            }
            own => {
                self.own = own;
                self.discard()
            }
        }
    }

    /// The exec could not be launched, or was killed: the caller removes its
    /// group, so that the next one gets another.
    pub fn discard(self) -> Option<Surplus> {
        self.own.is_some().then_some(Surplus(self))
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let (Some((number, _)), Some(unified)) = (&self.own, &self.gate.unified) {
            unified.places()[*number] = Place::Unknown;
        }
    }
}

impl Surplus {
    /// Removes it, with what its processes made below it.
    pub fn remove(self) -> Result<()> {
        let (Some((number, _)), Some(unified)) = (&self.0.own, &self.0.gate.unified) else {
            return Ok(());
        };
        remove::trees(&[unified.child(*number)])
    }
}
