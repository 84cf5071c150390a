//! A container in the foreground.
//!
//! One without a terminal is followed by its log, which waits for the slowest
//! reader and for a new daemon, and hears our stdin if it is to. One with a
//! terminal is attached to.

use corten_api::corten::{AttachStart, LogsResponse, WaitContainerRequest, WaitContainerResponse};
use tonic::{Code, Streaming};

use crate::client::Daemon;
use crate::error::{Doing, Result};
use crate::follow::{self, Ending, Names};
use crate::interactive::Interactive;
use crate::keyboard::Keyboard;
use crate::session::{Attach, End, Session};
use crate::signals::Interrupts;
use crate::writer::Writer;

/// A container that is listened to.
pub struct Foreground<'a> {
    daemon: &'a Daemon,
    container: Names<'a>,
    interactive: &'a Interactive,
    way: Way,
}

enum Way {
    Log { output: Box<Streaming<LogsResponse>>, input: Option<Box<Session<Attach>>> },
    Terminal(Box<Session<Attach>>),
}

/// Listens to a container from its first byte on.
pub async fn listen<'a>(
    daemon: &'a Daemon,
    container: Names<'a>,
    interactive: &'a Interactive,
) -> Result<Foreground<'a>> {
    let way = if interactive.tty {
        Way::Terminal(Box::new(attach(daemon, container, interactive).await?))
    } else {
        let output = Box::new(follow::output_of(daemon, container.id).await?);
        let input = if interactive.interactive {
            Some(Box::new(attach(daemon, container, interactive).await?))
        } else {
            None
        };
        Way::Log { output, input }
    };
    Ok(Foreground { daemon, container, interactive, way })
}

async fn attach(
    daemon: &Daemon,
    container: Names<'_>,
    interactive: &Interactive,
) -> Result<Session<Attach>> {
    let start = AttachStart {
        namespace: daemon.space(),
        container: container.id.to_owned(),
        stdin: interactive.interactive,
        stdout: interactive.tty,
        stderr: false,
        size: interactive.size(),
    };
    Ok(Session::attach(daemon, start).await?.0)
}

impl Foreground<'_> {
    /// Goes on until it has ended, or until people leave it: then none.
    pub async fn until_ended(
        self,
        interrupts: &mut Interrupts,
    ) -> Result<Option<WaitContainerResponse>> {
        let Self { daemon, container, interactive, way } = self;
        match way {
            Way::Log { output, input } => {
                let input = match input {
                    Some(session) => {
                        let keyboard = Keyboard::open(interactive.wishes(false))?;
                        let name = container.name.to_owned();
                        Some(tokio::spawn(carry(*session, keyboard, name)))
                    }
                    None => None,
                };
                let ended = follow::until_ended(daemon, &container, *output, interrupts).await;
                input.inspect(|input| input.abort());
                ended.map(Some)
            }
            Way::Terminal(session) => {
                let mut terminal = Terminal {
                    daemon,
                    container,
                    interactive,
                    session: *session,
                    keyboard: Keyboard::open(interactive.wishes(false))?,
                };
                let writer = Writer::start();
                let ended = terminal.until_ended(&writer, interrupts).await;
                let written = writer.finish().await;
                match (ended, written) {
                    (Ok(_), Err(error)) if !error.broken_pipe() => Err(error),
                    (ended, _) => ended,
                }
            }
        }
    }
}

/// Carries our stdin to a container whose output comes by its log.
async fn carry(mut session: Session<Attach>, mut keyboard: Keyboard, name: String) {
    let writer = Writer::start();
    let outcome = session.run(&mut keyboard, &writer, &format!("give {name} our stdin")).await;
    match outcome {
        Err(error) if error.daemon_away() => {
            eprintln!("corten: with the daemon went our stdin: for {name} it has ended");
        }
        Err(error) => error.tell(),
        Ok(End::Exited(_) | End::Left | End::TooSlow | End::Silent | End::NoReader) => {}
    }
}

/// A container's terminal, and ours.
struct Terminal<'a> {
    daemon: &'a Daemon,
    container: Names<'a>,
    interactive: &'a Interactive,
    session: Session<Attach>,
    keyboard: Keyboard,
}

impl Terminal<'_> {
    async fn until_ended(
        &mut self,
        writer: &Writer,
        interrupts: &mut Interrupts,
    ) -> Result<Option<WaitContainerResponse>> {
        let mut ending = Ending::new(self.daemon, self.container);
        let doing = format!("follow {}", self.container.name);
        loop {
            let end = tokio::select! {
                end = self.session.run(&mut self.keyboard, writer, &doing) => end,
                () = interrupts.next() => {
                    ending.interrupted();
                    continue;
                }
            };
            match end {
                Ok(End::Exited(ended)) => return Ok(Some(ended)),
                Ok(End::Left) => return Ok(None),
                // It goes on without being seen, as behind a terminal that was closed.
                Ok(End::NoReader) => {
                    ending.nobody_reads();
                    return self.ended().await.map(Some);
                }
                Ok(End::Silent) => return self.ended().await.map(Some),
                // By now we have caught up.
                Ok(End::TooSlow) => {
                    eprintln!("corten: more was said than this terminal took; the log has it\r");
                }
                Err(error) if !error.daemon_away() => return Err(error),
                Err(_) => {
                    let name = self.container;
                    let call = || self.exists();
                    follow::again(&name, "corten attach", call).await?;
                }
            }
            match attach(self.daemon, self.container, self.interactive).await {
                Ok(session) => self.session = session,
                Err(error) if error.code() == Some(Code::FailedPrecondition) => {
                    return self.ended().await.map(Some);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the daemon is there and knows the container.
    async fn exists(&self) -> Result<()> {
        let request = corten_api::corten::InspectContainerRequest {
            namespace: self.daemon.space(),
            container: self.container.id.to_owned(),
        };
        let answer = self.daemon.calls().inspect_container(request).await;
        answer.doing(format_args!("follow {}", self.container.name)).map(drop)
    }

    async fn ended(&self) -> Result<WaitContainerResponse> {
        let request = WaitContainerRequest {
            namespace: self.daemon.space(),
            container: self.container.id.to_owned(),
        };
        let answer = self.daemon.calls().wait_container(request).await;
        Ok(answer.doing(format_args!("wait for {}", self.container.name))?.into_inner())
    }
}
