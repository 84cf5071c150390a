//! `corten attach`: a container that runs, as if it were in the foreground.

use corten_api::corten::AttachStart;

use crate::client::Place;
use crate::error::{Error, Result};
use crate::follow::exit_code;
use crate::interactive::Leaving;
use crate::keyboard::{Keyboard, Wishes};
use crate::session::{End, Session};
use crate::terminal;
use crate::writer::Writer;

/// See what a container says, and type to it
///
/// What it said before is in its log. One that was run with -i gets our stdin;
/// with a terminal, ctrl-p ctrl-q leaves it running. Otherwise Ctrl-C leaves
/// it running. When it ends, its exit code is ours.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: corten attach web")]
pub struct Arguments {
    /// Do not give it our stdin
    #[arg(long)]
    no_stdin: bool,
    #[command(flatten)]
    leaving: Leaving,
    /// The container's name or id
    container: String,
}

impl Arguments {
    /// Goes on until it ends, or we leave.
    pub async fn run(self, place: &Place) -> Result<u8> {
        let daemon = place.connect().await?;
        let start = AttachStart {
            namespace: daemon.space(),
            container: self.container.clone(),
            stdin: !self.no_stdin,
            stdout: true,
            stderr: true,
            size: terminal::size(),
        };
        let (mut session, attached) = Session::attach(&daemon, start).await?;
        let wishes = Wishes {
            input: attached.stdin,
            terminal: attached.tty,
            keys: self.leaving.detach_keys,
            until_terminated: true,
        };
        let mut keyboard = Keyboard::open(wishes)?;
        let writer = Writer::start();
        let name = &self.container;
        let end = session.run(&mut keyboard, &writer, &format!("attach to {name}")).await;
        let written = writer.finish().await;
        drop(keyboard);
        match end? {
            End::Exited(ended) => written.map(|()| exit_code(ended.exit_code)),
            End::NoReader => written.map(|()| 0),
            End::Left => {
                eprintln!("corten: left; {name} goes on");
                Ok(0)
            }
            End::TooSlow => Err(Error::Input(format!(
                "unable to follow {name}: it said more than we took; 'corten logs -f {name}' has \
                 all of it"
            ))),
            End::Silent => Err(Error::Input(format!(
                "unable to follow {name}: the daemon ended the session and did not say why"
            ))),
        }
    }
}
