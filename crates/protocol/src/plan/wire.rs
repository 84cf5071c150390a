//! The numbers of steps in a plan. They are never used again for something
//! else: a newer daemon writes plans for an older shim.

use corten_kernel::launch::Step;

macro_rules! tags {
    ($($name:ident = $number:literal,)*) => {
        /// The first byte of each step.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(super) enum Tag {
            $($name = $number,)*
        }

        impl Tag {
            /// The tag of a step.
            pub(super) fn of(step: &Step<'_>) -> Self {
                match step {
                    $(Step::$name { .. } => Tag::$name,)*
                }
            }

            /// The tag with this number.
            pub(super) fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Tag::$name),)*
                    _ => None,
                }
            }
        }
    };
}

tags! {
    EnterCgroups = 1,
    AwaitStart = 2,
    AwaitHooks = 3,
    JoinNamespace = 4,
    NewNamespace = 5,
    Hostname = 6,
    Domainname = 7,
    NewSession = 8,
    BecomeNamespaceRoot = 9,
    RootPropagation = 10,
    Root = 11,
    MountFd = 12,
    MountOwn = 13,
    MountNew = 14,
    Remount = 16,
    Device = 17,
    Symlink = 18,
    Console = 19,
    SwitchRoot = 20,
    ReadonlyRoot = 21,
    Mask = 22,
    ReadonlyPath = 23,
    EnsureDirectory = 24,
    Sysctl = 25,
    OomScoreAdj = 26,
    Rlimit = 27,
    Nice = 28,
    Umask = 29,
    Groups = 30,
    User = 31,
    WorkingDirectory = 32,
    Capabilities = 33,
    BoundingSet = 34,
    NoNewPrivileges = 35,
    Seccomp = 36,
    ExecLabel = 37,
    Hook = 38,
    Exec = 39,
    Init = 40,
}
