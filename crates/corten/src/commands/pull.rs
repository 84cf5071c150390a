//! `corten pull`: fetches an image.

use std::io::{IsTerminal, Read};

use corten_api::corten::pull_image_response::Event;
use corten_api::corten::{PullImageRequest, PullResult, RegistryCredentials};

use crate::client::{Daemon, Place};
use crate::error::{Doing, Error, Result};
use crate::limits::PASSWORD_BYTES_MAX;
use crate::output::{self, printable, size};
use crate::progress::Progress;

/// Fetch an image from its registry
///
/// Short names mean docker.io: "nginx" is docker.io/library/nginx:latest. How
/// far it is goes to stderr, the complete name to stdout.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Do not show how far it is
    #[arg(short, long)]
    quiet: bool,
    /// User at the registry
    #[arg(long, value_name = "NAME", requires = "password_stdin")]
    username: Option<String>,
    /// Read the password from stdin
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// The image
    image: String,
}

impl Arguments {
    /// Fetches it.
    pub async fn run(self, place: &Place) -> Result<u8> {
        let credentials = match self.username {
            Some(username) => Some(RegistryCredentials { username, password: password()? }),
            None => None,
        };
        let daemon = place.connect().await?;
        let result = fetch(&daemon, &self.image, credentials, self.quiet).await?;
        if !self.quiet {
            let (digest, size) = (printable(&result.digest), size(result.size_bytes));
            eprintln!("{digest}, {size} unpacked");
        }
        output::print(&format!("{}\n", printable(&result.reference)))?;
        Ok(0)
    }
}

fn password() -> Result<String> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Err(Error::Input(
            "unable to read the password: it is taken from a file or a pipe, not from a terminal, \
             which would show it: corten pull … --password-stdin < FILE"
                .to_owned(),
        ));
    }
    let mut password = String::new();
    stdin
        .lock()
        .take(PASSWORD_BYTES_MAX)
        .read_to_string(&mut password)
        .map_err(Error::io("read the password"))?;
    let length = password.trim_end_matches(['\n', '\r']).len();
    password.truncate(length);
    Ok(password)
}

/// Fetches an image and shows how far it is.
pub async fn fetch(
    daemon: &Daemon,
    image: &str,
    credentials: Option<RegistryCredentials>,
    quiet: bool,
) -> Result<PullResult> {
    let doing = format!("pull {image}");
    let request =
        PullImageRequest { namespace: daemon.space(), reference: image.to_owned(), credentials };
    let mut messages = daemon.calls().pull_image(request).await.doing(&doing)?.into_inner();
    let mut progress = Progress::start(quiet);
    let outcome = loop {
        match messages.message().await.doing(&doing) {
            Ok(Some(message)) => match message.event {
                Some(Event::Progress(now)) => progress.update(&now),
                Some(Event::Result(result)) => break Ok(result),
                None => {}
            },
            Ok(None) => {
                break Err(Error::Input(format!(
                    "unable to {doing}: the daemon went away before it was done; what it has \
                     fetched is kept"
                )));
            }
            Err(error) => break Err(error),
        }
    };
    progress.finish();
    outcome
}
