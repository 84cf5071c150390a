//! The life of a process: states, what can happen, and what then becomes of
//! it. Containers and execs share it; an exec begins in [`State::Starting`],
//! since nobody has to ask for its start.

use corten_protocol::frame::Phase;

/// Where a process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The child is on its way to `AwaitStart`.
    Creating,
    /// As before, and Start has been asked for already.
    CreatingToStart,
    /// It waits for Start.
    Created,
    /// It was let go, and is on its way to its command.
    Starting,
    /// Its command runs.
    Running,
    /// The process has ended; its output is still on its way into the log.
    Ending,
    /// It has ended, and that was recorded and told.
    Ended,
}

/// What happens to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The child is at `AwaitStart`.
    ReachedStart,
    /// The daemon asks to start it.
    StartAsked,
    /// The child's socket has closed without a failure: the command runs.
    CommandRuns,
    /// The process has ended.
    ProcessEnded,
    /// Its output is written, or took too long.
    OutputWritten,
    /// The daemon asks for an exec in it.
    ExecAsked,
    /// A client is to be attached to it.
    AttachAsked,
    /// The daemon asks to signal it.
    KillAsked,
    /// The daemon asks to forget it.
    DeleteAsked,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It goes to another state.
    Go(State),
    /// It may be done, and the state stays.
    Stay,
    /// Not in this state.
    Refuse,
}

impl State {
    /// The state after an event.
    pub fn on(self, event: Event) -> Next {
        use Event::*;
        use Next::{Go, Refuse, Stay};
        use State::*;
        match (self, event) {
            (Creating, ReachedStart) => Go(Created),
            (Creating, StartAsked) => Go(CreatingToStart),
            (CreatingToStart, ReachedStart) => Go(Starting),
            (Created, StartAsked) => Go(Starting),
            // A plan without `AwaitStart` goes straight on to its command.
            (Creating | CreatingToStart | Starting, CommandRuns) => Go(Running),
            (Creating | CreatingToStart | Created | Starting | Running, ProcessEnded) => Go(Ending),
            (Ending, OutputWritten) => Go(Ended),

            (Running, ExecAsked) => Stay,
            (
                Creating | CreatingToStart | Created | Starting | Running,
                AttachAsked | KillAsked,
            ) => Stay,
            (Ended, DeleteAsked) => Stay,

            (CreatingToStart | Starting | Running | Ending | Ended, StartAsked)
            | (Creating | CreatingToStart | Created | Starting | Ending | Ended, ExecAsked)
            | (Ending | Ended, AttachAsked | KillAsked)
            | (Creating | CreatingToStart | Created | Starting | Running | Ending, DeleteAsked) => {
                Refuse
            }

            // A child that says what it cannot be: it is not believed.
            (Created | Starting | Running | Ending | Ended, ReachedStart)
            | (Created | Running | Ending | Ended, CommandRuns)
            | (Ending | Ended, ProcessEnded)
            | (Creating | CreatingToStart | Created | Starting | Running | Ended, OutputWritten) => {
                Refuse
            }
        }
    }

    /// As the daemon is told.
    pub fn phase(self) -> Phase {
        match self {
            Self::Creating | Self::CreatingToStart => Phase::Creating,
            Self::Created | Self::Starting => Phase::Created,
            Self::Running | Self::Ending => Phase::Running,
            Self::Ended => Phase::Ended,
        }
    }

    /// There is a process that can be signalled and waited for.
    pub fn is_alive(self) -> bool {
        self.on(Event::KillAsked) == Next::Stay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(mut state: State, events: &[Event]) -> State {
        for event in events {
            match state.on(*event) {
                Next::Go(next) => state = next,
                Next::Stay => {}
                Next::Refuse => panic!("{state:?} refuses {event:?}"),
            }
        }
        state
    }

    #[test]
    fn whole_lives() {
        use Event::*;
        let end = [CommandRuns, ExecAsked, KillAsked, ProcessEnded, OutputWritten, DeleteAsked];
        let late = walk(State::Creating, &[ReachedStart, StartAsked]);
        assert_eq!(walk(late, &end), State::Ended);
        let early = walk(State::Creating, &[StartAsked, ReachedStart]);
        assert_eq!(walk(early, &end), State::Ended);
        assert_eq!(walk(State::Starting, &end), State::Ended);
    }

    #[test]
    fn it_can_end_at_any_time_but_only_once() {
        use State::*;
        for state in [Creating, CreatingToStart, Created, Starting, Running] {
            assert!(state.is_alive());
            assert_eq!(state.on(Event::ProcessEnded), Next::Go(Ending));
            assert_eq!(state.on(Event::DeleteAsked), Next::Refuse);
        }
        for state in [Ending, Ended] {
            assert!(!state.is_alive());
            assert_eq!(state.on(Event::ProcessEnded), Next::Refuse);
            assert_eq!(state.on(Event::StartAsked), Next::Refuse);
        }
    }
}
