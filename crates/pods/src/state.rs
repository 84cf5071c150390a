//! The life of a sandbox and of a container, each as one table.
//!
//! The tables say what may happen and what must be done about it; what does it
//! stands in `engine`. They know nothing of the machine, so that every cell is
//! tested with data alone.

use serde::{Deserialize, Serialize};

/// Where a sandbox stands. Written down before the work of a state begins, so
/// that a daemon that comes back knows what to finish or to undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SandboxState {
    /// Its namespaces, network and shim are being made.
    Starting,
    /// All of that is there.
    Ready,
    /// Containers, network and shim are being taken down.
    Stopping,
    /// All of that is gone; the record stays for the kubelet to see.
    Stopped,
    /// What is left is being taken away, the record last.
    Removing,
}

/// What can happen to a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SandboxEvent {
    /// Everything was made.
    Started,
    /// Something could not be made, or the daemon died while it was.
    StartFailed,
    /// What was made could not be taken back.
    UndoFailed,
    /// The shim died.
    ShimDied,
    /// Somebody wants it stopped.
    StopAsked,
    /// Everything was taken down.
    StopDone,
    /// Somebody wants it removed.
    RemoveAsked,
}

/// Where a container stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ContainerState {
    /// Its root filesystem, cgroup and plan are being made.
    Creating,
    /// The shim has the plan, and has carried it out up to the command.
    Created,
    /// The shim was told to go on.
    Starting,
    /// Its command runs.
    Running,
    /// It has ended.
    Exited,
    /// What is left is being taken away, the record last.
    Removing,
}

/// What can happen to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContainerEvent {
    /// The shim has its plan.
    HandedOver,
    /// It could not be made, or the daemon died while it was.
    CreateFailed,
    /// Somebody wants it started.
    StartAsked,
    /// An ended one of people's is made ready to be started again.
    ReviveAsked,
    /// Its command runs.
    Started,
    /// It ended, was never able to start, or its shim died.
    Ended,
    /// Somebody wants it removed.
    RemoveAsked,
}

/// What a table says to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next<S> {
    /// Go to this state, and do its work.
    Go(S),
    /// It is so already, or the work is under way: wait for that.
    Stay,
    /// It is not possible; the words say why.
    Refuse(&'static str),
    /// Undo what was done so far, and forget it.
    Undo,
}

impl SandboxState {
    /// What `event` means in this state.
    pub fn on(self, event: SandboxEvent) -> Next<Self> {
        use Next::{Go, Refuse, Stay, Undo};
        use SandboxEvent as E;
        use SandboxState as S;
        match (self, event) {
            (S::Starting, E::Started) => Go(S::Ready),
            (S::Starting, E::StartFailed) => Undo,
            (S::Starting, E::UndoFailed) => Go(S::Stopping),
            (S::Starting, E::ShimDied) => Undo,
            (S::Starting, E::StopAsked) => Refuse("it is still being made"),
            (S::Starting, E::StopDone) => Undo,
            (S::Starting, E::RemoveAsked) => Refuse("it is still being made"),

            (S::Ready, E::Started) => Stay,
            (S::Ready, E::StartFailed) => Go(S::Stopping),
            (S::Ready, E::UndoFailed) => Go(S::Stopping),
            (S::Ready, E::ShimDied) => Go(S::Stopping),
            (S::Ready, E::StopAsked) => Go(S::Stopping),
            (S::Ready, E::StopDone) => Go(S::Stopped),
            (S::Ready, E::RemoveAsked) => Go(S::Stopping),

            (S::Stopping, E::Started) => Refuse("it is being stopped"),
            (S::Stopping, E::StartFailed) => Stay,
            (S::Stopping, E::UndoFailed) => Stay,
            (S::Stopping, E::ShimDied) => Stay,
            // A stop that failed half way is asked for again, and tried again.
            (S::Stopping, E::StopAsked) => Go(S::Stopping),
            (S::Stopping, E::StopDone) => Go(S::Stopped),
            (S::Stopping, E::RemoveAsked) => Go(S::Stopping),

            (S::Stopped, E::Started) => Refuse("it is stopped"),
            (S::Stopped, E::StartFailed) => Stay,
            (S::Stopped, E::UndoFailed) => Stay,
            (S::Stopped, E::ShimDied) => Stay,
            (S::Stopped, E::StopAsked) => Stay,
            (S::Stopped, E::StopDone) => Stay,
            (S::Stopped, E::RemoveAsked) => Go(S::Removing),

            (S::Removing, E::Started) => Refuse("it is being removed"),
            (S::Removing, E::StartFailed) => Stay,
            (S::Removing, E::UndoFailed) => Stay,
            (S::Removing, E::ShimDied) => Stay,
            (S::Removing, E::StopAsked) => Stay,
            (S::Removing, E::StopDone) => Stay,
            (S::Removing, E::RemoveAsked) => Go(S::Removing),
        }
    }
}

impl ContainerState {
    /// What `event` means in this state.
    pub fn on(self, event: ContainerEvent) -> Next<Self> {
        use ContainerEvent as E;
        use ContainerState as S;
        use Next::{Go, Refuse, Stay, Undo};
        match (self, event) {
            (S::Creating, E::HandedOver) => Go(S::Created),
            (S::Creating, E::CreateFailed) => Undo,
            (S::Creating, E::StartAsked) => Refuse("it is still being created"),
            (S::Creating, E::ReviveAsked) => Refuse("it is still being created"),
            (S::Creating, E::Started) => Refuse("it is still being created"),
            (S::Creating, E::Ended) => Go(S::Exited),
            (S::Creating, E::RemoveAsked) => Refuse("it is still being created"),

            (S::Created, E::HandedOver) => Stay,
            (S::Created, E::CreateFailed) => Go(S::Exited),
            (S::Created, E::StartAsked) => Go(S::Starting),
            (S::Created, E::ReviveAsked) => Stay,
            (S::Created, E::Started) => Go(S::Running),
            (S::Created, E::Ended) => Go(S::Exited),
            (S::Created, E::RemoveAsked) => Go(S::Removing),

            (S::Starting, E::HandedOver) => Stay,
            (S::Starting, E::CreateFailed) => Go(S::Exited),
            (S::Starting, E::StartAsked) => Stay,
            (S::Starting, E::ReviveAsked) => Stay,
            (S::Starting, E::Started) => Go(S::Running),
            (S::Starting, E::Ended) => Go(S::Exited),
            (S::Starting, E::RemoveAsked) => Go(S::Removing),

            (S::Running, E::HandedOver) => Stay,
            (S::Running, E::CreateFailed) => Stay,
            (S::Running, E::StartAsked) => Refuse("it is running already"),
            (S::Running, E::ReviveAsked) => Refuse("it is running already"),
            (S::Running, E::Started) => Stay,
            (S::Running, E::Ended) => Go(S::Exited),
            (S::Running, E::RemoveAsked) => Go(S::Removing),

            (S::Exited, E::HandedOver) => Stay,
            (S::Exited, E::CreateFailed) => Stay,
            (S::Exited, E::StartAsked) => Refuse("it has ended"),
            (S::Exited, E::ReviveAsked) => Go(S::Creating),
            (S::Exited, E::Started) => Stay,
            (S::Exited, E::Ended) => Stay,
            (S::Exited, E::RemoveAsked) => Go(S::Removing),

            (S::Removing, E::HandedOver) => Stay,
            (S::Removing, E::CreateFailed) => Stay,
            (S::Removing, E::StartAsked) => Refuse("it is being removed"),
            (S::Removing, E::ReviveAsked) => Refuse("it is being removed"),
            (S::Removing, E::Started) => Stay,
            (S::Removing, E::Ended) => Stay,
            (S::Removing, E::RemoveAsked) => Go(S::Removing),
        }
    }

    /// Whether its first process may be alive.
    pub fn may_live(self) -> bool {
        match self {
            Self::Creating | Self::Created | Self::Starting | Self::Running => true,
            Self::Exited | Self::Removing => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SANDBOX_EVENTS: [SandboxEvent; 7] = [
        SandboxEvent::Started,
        SandboxEvent::StartFailed,
        SandboxEvent::UndoFailed,
        SandboxEvent::ShimDied,
        SandboxEvent::StopAsked,
        SandboxEvent::StopDone,
        SandboxEvent::RemoveAsked,
    ];

    #[test]
    fn a_sandbox_is_ready_only_after_it_was_started() {
        for event in SANDBOX_EVENTS {
            for state in [SandboxState::Stopping, SandboxState::Stopped, SandboxState::Removing] {
                assert_ne!(state.on(event), Next::Go(SandboxState::Ready), "{state:?} {event:?}");
            }
        }
    }

    #[test]
    fn nothing_leads_out_of_removing() {
        for event in SANDBOX_EVENTS {
            match SandboxState::Removing.on(event) {
                Next::Go(state) => assert_eq!(state, SandboxState::Removing),
                Next::Stay | Next::Refuse(_) => {}
                Next::Undo => panic!("{event:?} undoes a removal"),
            }
        }
    }

    #[test]
    fn stop_is_idempotent() {
        assert_eq!(SandboxState::Stopped.on(SandboxEvent::StopAsked), Next::Stay);
    }

    #[test]
    fn an_ended_container_stays_ended() {
        assert_eq!(ContainerState::Exited.on(ContainerEvent::Started), Next::Stay);
        assert!(matches!(ContainerState::Exited.on(ContainerEvent::StartAsked), Next::Refuse(_)));
    }
}
