//! A container in the foreground: its log to our output, our Ctrl-C to it, its
//! exit code for us. The log is never in a hurry: a reader of ours may be as
//! slow as it likes.

use std::time::{Duration, Instant};

use corten_api::corten::{
    KillContainerRequest, LogEntry, LogStream, LogsRequest, LogsResponse, StopContainerRequest,
    WaitContainerResponse,
};
use tonic::{Code, Streaming};

use crate::client::Daemon;
use crate::error::{Doing, Error, Result};
use crate::signals::Interrupts;
use crate::writer::Writer;

/// How long a daemon may be away (an upgrade) until we give up.
const DAEMON_AWAY_MAX: Duration = Duration::from_secs(60);
/// Between two looks whether it is back.
const DAEMON_AWAY_PAUSE: Duration = Duration::from_millis(100);

/// What a container is called: names may be given to others once it is gone.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// For people.
    pub name: &'a str,
    /// For the daemon.
    pub id: &'a str,
}

/// Asks for a container's output from its beginning until its end. When this
/// returns, nothing is missed any more.
pub async fn output_of(daemon: &Daemon, id: &str) -> Result<Streaming<LogsResponse>> {
    output_since(daemon, id, 0).await
}

async fn output_since(daemon: &Daemon, id: &str, since_ns: i64) -> Result<Streaming<LogsResponse>> {
    let request = LogsRequest {
        namespace: daemon.space(),
        container: id.to_owned(),
        follow: true,
        tail: None,
        since_ns,
    };
    let answer = daemon.calls().logs(request).await;
    Ok(answer.doing("follow the container's output")?.into_inner())
}

/// Copies the output until the container has ended. The first Ctrl-C stops it,
/// the second kills it.
pub async fn until_ended(
    daemon: &Daemon,
    container: &Names<'_>,
    output: Streaming<LogsResponse>,
    interrupts: &mut Interrupts,
) -> Result<WaitContainerResponse> {
    let writer = Writer::start();
    let mut reader_left = false;
    let mut ending = Ending::new(daemon, *container);
    let ended = {
        let (left, mut leaving) = tokio::sync::oneshot::channel();
        let mut copy = std::pin::pin!(copy(daemon, container, output, &writer, left));
        loop {
            tokio::select! {
                ended = &mut copy => break ended,
                () = interrupts.next() => ending.interrupted(),
                _ = &mut leaving, if !reader_left => {
                    reader_left = true;
                    ending.nobody_reads();
                }
            }
        }
    };
    let written = writer.finish().await;
    let ended = ended?;
    match written {
        Err(error) if !error.broken_pipe() => Err(error),
        _ => Ok(ended),
    }
}

/// A container in the foreground on its way to its end.
pub struct Ending<'a> {
    daemon: &'a Daemon,
    container: Names<'a>,
    asked: bool,
}

impl<'a> Ending<'a> {
    /// Nobody has asked for it.
    pub fn new(daemon: &'a Daemon, container: Names<'a>) -> Self {
        Self { daemon, container, asked: false }
    }

    /// Ctrl-C: the first stops it, the second kills it.
    pub fn interrupted(&mut self) {
        let (daemon, id) = (self.daemon.clone(), self.container.id.to_owned());
        if std::mem::replace(&mut self.asked, true) {
            tokio::spawn(kill(daemon, id));
        } else {
            eprintln!("corten: stopping {}; Ctrl-C again kills it", self.container.name);
            tokio::spawn(stop(daemon, id));
        }
    }

    /// As a program of a pipeline would end: nobody reads it.
    pub fn nobody_reads(&mut self) {
        if !std::mem::replace(&mut self.asked, true) {
            tokio::spawn(stop(self.daemon.clone(), self.container.id.to_owned()));
        }
    }
}

/// How far the output has been copied: enough to go on elsewhere in it.
#[derive(Debug, Default)]
struct Position {
    /// When the last entry was written.
    time_ns: i64,
    /// How many entries of that time there were.
    entries: usize,
}

impl Position {
    /// Whether an entry is new to us; it is not, where a new stream begins with
    /// what the old one ended with. `again` counts those.
    fn is_new(&mut self, time_ns: i64, again: &mut usize) -> bool {
        if time_ns != self.time_ns {
            // Clocks are set: what comes after the repeated entries is new.
            *again = 0;
            *self = Self { time_ns, entries: 1 };
            return true;
        }
        if *again > 0 {
            *again -= 1;
            return false;
        }
        self.entries += 1;
        true
    }
}

async fn copy(
    daemon: &Daemon,
    container: &Names<'_>,
    mut output: Streaming<LogsResponse>,
    writer: &Writer,
    left: tokio::sync::oneshot::Sender<()>,
) -> Result<WaitContainerResponse> {
    let mut left = Some(left);
    let mut position = Position::default();
    let mut again = 0;
    loop {
        let doing = format_args!("follow {}", container.name);
        let message = match output.message().await.doing(doing) {
            Ok(Some(message)) => message,
            Err(error) if !error.daemon_away() => return Err(error),
            // It may be killed or upgraded at any time: the container goes on.
            Ok(None) | Err(_) => {
                output = follow_again(daemon, container, position.time_ns).await?;
                again = position.entries;
                continue;
            }
        };
        for LogEntry { stream, content, time_ns, .. } in message.entries {
            let to = LogStream::try_from(stream).unwrap_or(LogStream::Stdout);
            if !position.is_new(time_ns, &mut again) {
                continue;
            }
            if left.is_some() && !writer.write(to, content).await {
                left.take().map(|left| left.send(()));
            }
        }
        if let Some(ended) = message.exited {
            return Ok(ended);
        }
    }
}

/// Waits for the daemon to come back, and goes on from where we were.
async fn follow_again(
    daemon: &Daemon,
    container: &Names<'_>,
    since_ns: i64,
) -> Result<Streaming<LogsResponse>> {
    again(container, "corten logs -f", || output_since(daemon, container.id, since_ns)).await
}

/// Waits for the daemon to come back, until `call` works. `by_hand` is what
/// people can do when it does not.
pub async fn again<T, F>(
    container: &Names<'_>,
    by_hand: &str,
    mut call: impl FnMut() -> F,
) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let name = container.name;
    eprintln!("corten: the daemon went away; {name} goes on, and we wait for the daemon\r");
    let deadline = Instant::now() + DAEMON_AWAY_MAX;
    loop {
        match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) if error.code() == Some(Code::NotFound) => {
                return Err(Error::Input(format!(
                    "unable to follow {name} to its end: it has ended and was removed while the \
                     daemon was away, so nobody knows how"
                )));
            }
            Err(error) if !error.daemon_away() && error.code() != Some(Code::Unavailable) => {
                return Err(error);
            }
            Err(_) if Instant::now() < deadline => tokio::time::sleep(DAEMON_AWAY_PAUSE).await,
            Err(_) => {
                return Err(Error::Input(format!(
                    "unable to follow {name}: the daemon did not come back; the container goes on \
                     without it, and '{by_hand} {name}' follows it again"
                )));
            }
        }
    }
}

// What fails here is seen by the container going on: another Ctrl-C tries again.

async fn stop(daemon: Daemon, container: String) {
    let request =
        StopContainerRequest { namespace: daemon.space(), container, grace_seconds: None };
    if let Err(error) = daemon.calls().stop_container(request).await.doing("stop it") {
        tell(&error);
    }
}

async fn kill(daemon: Daemon, container: String) {
    let request =
        KillContainerRequest { namespace: daemon.space(), container, signal: String::new() };
    if let Err(error) = daemon.calls().kill_container(request).await.doing("kill it") {
        tell(&error);
    }
}

/// A container that is gone was to go.
fn tell(error: &Error) {
    if error.code() != Some(Code::NotFound) {
        error.tell();
    }
}

/// An exit code as ours.
pub fn exit_code(code: i32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_shown_twice_after_a_break() {
        let mut position = Position::default();
        let mut none = 0;
        for time_ns in [1, 2, 2] {
            assert!(position.is_new(time_ns, &mut none));
        }
        // The new stream begins with the entries of the last time.
        let mut again = position.entries;
        let new: Vec<bool> =
            [2, 2, 2, 3].map(|time_ns| position.is_new(time_ns, &mut again)).into();
        assert_eq!(new, [false, false, true, true]);
        // One that was removed from the log in between hides nothing else.
        let mut again = position.entries;
        assert!(position.is_new(4, &mut again));
        assert!(position.is_new(4, &mut again));
    }

    #[test]
    fn exit_codes_are_bytes() {
        assert_eq!((exit_code(3), exit_code(137), exit_code(256)), (3, 137, 0));
    }
}
