//! Remote commands: a process's streams to a client, and back.
//!
//! One task does all of a session, so that whatever ends it ends everything.
//! A client that leaves takes its streams with it; its process goes on.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use corten_base::limits::{STREAM_LINGER_SECONDS_MAX, STREAM_OPEN_SECONDS_MAX};
use corten_pods::Fate;
use corten_wire::Outlet;
use corten_wire::remote::{Channel, Ending, Input, Remote};
use corten_wire::resize::{Size, Sizes};
use corten_wire::status::Outcome;
use tokio::sync::watch;
use tokio::time::timeout;

use super::connection::{Connection, Hangup, Inbox, Moved, Writer};
use super::process::{Held, Output, Process, Target};
use super::sink::{AtEnd, Sink};
use super::tokens::Order;
use crate::end::PIPE_BYTES_MAX;

/// How long a client may take to open its streams.
const OPEN: Duration = Duration::from_secs(STREAM_OPEN_SECONDS_MAX);
/// How long a client may take for the last of it all.
const LINGER: Duration = Duration::from_secs(STREAM_LINGER_SECONDS_MAX);
/// How often a client is told that we live, while its input must wait.
const REASSURE: Duration = Duration::from_secs(10);

/// Runs a session to its end.
pub async fn run(connection: Connection, remote: Remote, order: Order, target: Target) {
    let Connection { mut inbox, writer, hangup, idle } = connection;
    let session = Session::new(writer.clone(), hangup);
    session.is_open(&remote);
    let ended = tokio::select! {
        left = session.listen(&mut inbox, remote) => left,
        error = writer.write_queued() => Err(error),
        served = session.serve(order, target) => served,
        () = writer.idle(idle) => Err(io::Error::other("nothing was said for too long")),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a streaming session was cut");
    }
}

/// What those who listen and those who speak share.
struct Session {
    writer: Arc<Writer>,
    hangup: Hangup,
    stdin: Sink,
    /// How to end it, with the channels that are there, and whether these are
    /// all.
    opened: watch::Sender<(Option<Ending>, bool)>,
    size: watch::Sender<Option<Size>>,
    /// The client wants no more of stdout, of stderr.
    unwanted: [AtomicBool; 2],
}

impl Session {
    fn new(writer: Arc<Writer>, hangup: Hangup) -> Self {
        Self {
            writer,
            hangup,
            stdin: Sink::default(),
            opened: watch::Sender::new((None, false)),
            size: watch::Sender::new(None),
            unwanted: Default::default(),
        }
    }

    /// Takes what the client sends, until it leaves.
    async fn listen(&self, inbox: &mut Inbox, mut remote: Remote) -> io::Result<()> {
        let mut sizes = Sizes::default();
        let mut answers = Vec::new();
        loop {
            let received = remote.receive(inbox.unread(), &mut answers);
            let (used, input) = match received {
                Ok(received) => received,
                Err(error) => {
                    // As far as it can be told at once.
                    let _ =
                        timeout(REASSURE, self.writer.send(|out| remote.ending().complain(out)))
                            .await;
                    return Err(io::Error::other(error));
                }
            };
            let more = used > 0 || input.is_some();
            let mut full = false;
            match input {
                None => {}
                Some(Input::Opened) => self.is_open(&remote),
                Some(Input::Data { channel: Channel::Stdin, bytes, end }) => {
                    full = !self.stdin.put(bytes);
                    if end {
                        self.stdin.end();
                        // It may have been opened with this.
                        self.is_open(&remote);
                    }
                }
                Some(Input::Data { channel: Channel::Resize, bytes, .. }) => {
                    if let Some(size) = sizes.read(bytes) {
                        self.size.send_replace(Some(size));
                    }
                }
                Some(Input::Data { .. }) => {}
                Some(Input::Reset(Channel::Stdin)) => self.stdin.end(),
                Some(Input::Reset(Channel::Stdout)) => self.unwant(0),
                Some(Input::Reset(Channel::Stderr)) => self.unwant(1),
                Some(Input::Reset(Channel::Error | Channel::Resize)) => {}
                Some(Input::Close) => return Ok(()),
            }
            inbox.consume(used);
            if !answers.is_empty() {
                self.writer.queue(|out| out.append(&mut answers))?;
            }
            if full {
                self.wait_for_room(&remote).await?;
            }
            if !more && !inbox.fill().await? {
                return Ok(());
            }
        }
    }

    fn is_open(&self, remote: &Remote) {
        self.opened.send_replace((Some(remote.ending()), remote.ready()));
    }

    fn unwant(&self, output: usize) {
        self.unwanted[output].store(true, Ordering::Relaxed);
    }

    /// The process does not take its input: nothing is read until it does.
    async fn wait_for_room(&self, remote: &Remote) -> io::Result<()> {
        loop {
            tokio::select! {
                () = self.stdin.room() => return Ok(()),
                gone = self.hangup.gone() => {
                    gone?;
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                () = tokio::time::sleep(REASSURE) => {
                    self.writer.queue(|out| remote.ending().reassure(out))?;
                }
            }
        }
    }

    /// Begins the process when all channels are there, and gives the client
    /// what it says; then waits for the client to leave.
    async fn serve(&self, order: Order, target: Target) -> io::Result<()> {
        let mut opened = self.opened.subscribe();
        // Whether they came in time is seen in what there is now.
        let _ = timeout(OPEN, opened.wait_for(|(_, all)| *all)).await;
        let (Some(ending), all) = *self.opened.borrow() else { return Ok(()) };
        let outcome = if !all {
            let seconds = OPEN.as_secs();
            Outcome::Failed(format!(
                "unable to begin: {seconds} s are over, and streams are missing"
            ))
        } else {
            match target.begin(order, &ending).await {
                Ok(process) => self.pump(process, &target).await?,
                Err(error) => Outcome::Failed(error.to_string()),
            }
        };
        self.stdin.close();
        let last = self.writer.send(|out| ending.finish(&outcome, out));
        timeout(LINGER, last).await??;
        // Closing now would take from a slow client what is still under way.
        tokio::time::sleep(LINGER).await;
        Ok(())
    }

    async fn pump(&self, process: Process, target: &Target) -> io::Result<Outcome> {
        let Process { stdin, outputs, exit, mut exec, attached: fate } = process;
        let attached = fate.is_some();
        let too_slow = || fate.as_ref().is_some_and(Fate::too_slow);
        let terminal = exec.is_some() && outputs[1].is_none();
        match stdin {
            Some(stdin) => self.stdin.connect(stdin, AtEnd::Close),
            None => self.stdin.close(),
        }
        let ended = watch::Sender::new(false);
        let exit = async {
            let exit = exit.await;
            // Who is attached gets all there is; an exec is over with its
            // process, whoever else holds its pipes.
            ended.send_replace(!attached);
            exit
        };
        let [stdout, stderr] = outputs;
        let speaking = async {
            let speak = |number, output| self.speak(number, output, ended.subscribe());
            tokio::try_join!(speak(0, stdout), speak(1, stderr))
        };
        let working = async {
            let feeding = async {
                // That it takes no more input is an end like any other.
                let _ = self.stdin.drain().await;
                if let Some(exec) = exec.as_ref().filter(|_| !terminal) {
                    exec.close_stdin().await;
                }
                std::future::pending::<()>().await;
            };
            tokio::join!(feeding, self.resize(target, exec.as_ref()));
        };
        let waiting = async {
            let mut exit = std::pin::pin!(exit);
            let mut speaking = std::pin::pin!(speaking);
            tokio::select! {
                exit = &mut exit => {
                    timeout(LINGER, speaking).await??;
                    Ok((!too_slow()).then_some(exit))
                }
                spoken = &mut speaking => {
                    spoken?;
                    if too_slow() {
                        return Ok(None);
                    }
                    // It may close its output, and live on.
                    Ok(Some(exit.await))
                }
            }
        };
        let exit: io::Result<_> = tokio::select! {
            exit = waiting => exit,
            () = working => unreachable!("it works until it is dropped"),
        };
        if let Some(exec) = exec.as_mut().filter(|_| exit.is_ok()) {
            exec.ended();
        }
        Ok(match exit? {
            Some(Ok(_)) if attached => Outcome::Success,
            Some(Ok(exit)) => Outcome::of(exit.code),
            Some(Err(_)) => Outcome::Failed(
                "unable to wait for the process: its pod's shim went away before it ended".into(),
            ),
            None => Outcome::Failed(
                "unable to follow the container: the client took its output too slowly, and has \
                 missed some; the log has all of it"
                    .into(),
            ),
        })
    }

    /// Gives the client one output of the process.
    async fn speak(
        &self,
        number: usize,
        output: Option<Output>,
        mut ended: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let Some(Output { pipe, outlet }) = output else {
            return Ok(());
        };
        let outlet = || -> Option<Outlet> {
            outlet.filter(|_| !self.unwanted[number].load(Ordering::Relaxed))
        };
        loop {
            let mut readable = tokio::select! {
                biased;
                _ = ended.wait_for(|ended| *ended) => break,
                readable = pipe.readable() => readable?,
            };
            match self.writer.carry(&mut readable, &pipe, outlet()).await? {
                Moved::Some | Moved::Nothing => {}
                Moved::End | Moved::Broken => return Ok(()),
            }
        }
        // What it wrote before its end is in the pipe now. A descendant that
        // goes on writing is not waited for.
        let mut left = PIPE_BYTES_MAX;
        while left > 0 {
            let moved = self.writer.carry_rest(&pipe, outlet()).await?;
            match moved {
                (Moved::Some, length) => left = left.saturating_sub(length),
                (Moved::Nothing | Moved::End | Moved::Broken, _) => break,
            }
        }
        Ok(())
    }

    /// Passes sizes of the terminal on; of many, the last.
    async fn resize(&self, target: &Target, exec: Option<&Held>) {
        let mut sizes = self.size.subscribe();
        sizes.mark_changed();
        while sizes.changed().await.is_ok() {
            let Some(size) = *sizes.borrow_and_update() else { continue };
            if let Err(error) = target.resize(exec, size).await {
                tracing::debug!(%error, "unable to resize a terminal");
            }
        }
    }
}
