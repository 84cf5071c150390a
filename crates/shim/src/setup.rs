//! From a started process to a shim at work.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use corten_base::SandboxId;
use corten_kernel::event::Signals;
use corten_kernel::{Context, Error, Result, process, stream};

use crate::log::Queue;
use crate::shim::{Given, Shim};

/// Where the daemon put the listening socket and the file of exits.
const LISTENER: i32 = 3;
const EXITS: i32 = 4;

/// As far down as it can go without being exempt: a shim that is killed takes
/// its pod with it.
const OOM_SCORE: &[u8] = b"-999";

/// How long the end of the shim may wait for its last lines.
const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(1);

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGPIPE: i32 = 13;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;

/// The whole life of a shim.
pub fn run(arguments: &[String]) -> Result<()> {
    let [_, sandbox] = arguments else {
        return Err(Error::new(
            "start",
            "corten-shim: it is started by cortend, with the id of a sandbox",
            corten_kernel::Errno::INVAL,
        ));
    };
    let _: SandboxId = sandbox.parse().map_err(|_| {
        Error::new(
            "use",
            format!("{sandbox:?} as the id of a sandbox"),
            corten_kernel::Errno::INVAL,
        )
    })?;
    let listener = process::inherited(LISTENER)?;
    let exits = process::inherited(EXITS)?;
    let null: OwnedFd =
        std::io::stdin().as_fd().try_clone_to_owned().context("copy", || "stdin")?;
    stream::set_nonblocking(&listener)?;
    process::set_undumpable()?;
    process::become_subreaper()?;
    lower_oom_score();
    // A shim outlives the daemon: it goes when it is asked to on its socket,
    // or is killed, but not because somebody stops a service or a terminal.
    let signals = Signals::new(&[SIGCHLD], &[SIGHUP, SIGINT, SIGPIPE, SIGTERM])?;
    let queue = Arc::new(Queue::new()?);
    let given = Given { listener, exits: File::from(exits), null, signals, queue: queue.clone() };
    let outcome = Shim::new(given)?.run();
    queue.close();
    wait_for_lines(&queue);
    outcome
}

/// Lets the log thread write the rest, unless its disk hangs.
fn wait_for_lines(queue: &Queue) {
    let end = process::monotonic() + LAST_WRITE_TIMEOUT;
    while queue.is_attended() && process::monotonic() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Without CAP_SYS_RESOURCE it stays as it was inherited.
fn lower_oom_score() {
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
}
