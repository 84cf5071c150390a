//! `corten run`: a command in a new container.

use std::ffi::OsString;
use std::path::PathBuf;

use corten_api::corten::{
    ContainerSpec, CreateContainerRequest, CreateContainerResponse, InspectContainerRequest, Mount,
    Network, RemoveContainerRequest, StartContainerRequest,
};
use tonic::Code;

use super::{inspect, pull};
use crate::client::{Daemon, Place};
use crate::error::{Doing, EXIT_OWN, Error, Result};
use crate::follow::{self, Names};
use crate::foreground;
use crate::interactive::Interactive;
use crate::limits::NAME_ATTEMPTS_MAX;
use crate::parse::{self, port::Ports};
use crate::signals::Interrupts;
use crate::{names, output};

/// Exit code after Ctrl-C, where no container says one: as a shell has it.
const EXIT_INTERRUPTED: u8 = 130;

/// Run a command in a new container
///
/// In the foreground the container's output is ours, Ctrl-C stops it, and its
/// exit code is ours too. Exit code 125 means that Corten itself failed, 126
/// that the command cannot be run, 127 that there is no such command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: corten run -d --name web -p 8080:80 nginx")]
pub struct Arguments {
    /// Run in the background and print the container's id
    #[arg(short, long)]
    pub detach: bool,
    /// Remove the container once it has ended
    #[arg(long = "rm")]
    pub remove: bool,
    #[command(flatten)]
    pub interactive: Interactive,
    /// Name of the container [default: an adjective and a noun]
    #[arg(long)]
    name: Option<String>,
    /// Make a port reachable on the host; may be a range; may be repeated
    #[arg(short, long, value_name = "[ADDRESS:]HOST:CONTAINER[/udp]",
          value_parser = parse::port::parse)]
    publish: Vec<Ports>,
    /// Mount a path of the host; may be repeated
    #[arg(short, long, value_name = "HOST:CONTAINER[:ro]", value_parser = volume)]
    volume: Vec<Mount>,
    /// Set an environment variable, or pass ours on; may be repeated
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<OsString>,
    /// Set the environment variables that a file has, a line each; may be
    /// repeated
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Directory in which the command begins
    #[arg(short, long, value_name = "PATH")]
    workdir: Option<String>,
    /// User that runs it, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Run this instead of the image's entrypoint ("" for none)
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Most memory it may use: 128m, 1.5g
    #[arg(short, long, value_name = "SIZE", value_parser = parse::number::size)]
    memory: Option<u64>,
    /// Most CPU time it may use: 1.5
    #[arg(long, value_name = "NUMBER", value_parser = parse::number::cpus)]
    cpus: Option<u64>,
    /// Most processes and threads it may have
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pids_limit: Option<u64>,
    /// What it is connected to
    #[arg(long, value_name = "NETWORK", default_value = "bridge")]
    network: NetworkName,
    /// Name of the machine inside [default: the container's name]
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Label it; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse::label)]
    label: Vec<(String, String)>,
    /// Add a capability ("ALL" for all); may be repeated
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Drop a capability ("ALL" for all); may be repeated
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// Allow everything: the host is not protected from it
    #[arg(long)]
    privileged: bool,
    /// Mount the image read-only
    #[arg(long)]
    read_only: bool,
    /// Signal that asks it to end [default: the image's, else TERM]
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// When to fetch the image
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pull: When,
    /// Do not show how far a pull is
    #[arg(short, long)]
    quiet: bool,
    /// The image, and what to run in it instead of what it says
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "COMMAND"])]
    pub image_and_command: Vec<String>,
}

/// What a container is connected to.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum NetworkName {
    /// Corten's own bridge
    Bridge,
    /// The host's network
    Host,
    /// Nothing but itself
    None,
}

/// When an image is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum When {
    /// Even where it is here
    Always,
    /// Where it is not here
    Missing,
    /// Not at all
    Never,
}

fn volume(text: &str) -> std::result::Result<Mount, String> {
    let here = std::env::current_dir()
        .map_err(|error| format!("the directory that we are in cannot be read: {error}"))?;
    parse::volume::parse(text, &here)
}

impl Arguments {
    /// Runs it; the exit code is the container's.
    pub async fn run(self, place: &Place) -> Result<u8> {
        let spec = self.spec()?;
        if !self.detach {
            self.interactive.check()?;
        }
        let daemon = place.connect().await?;
        if self.pull == When::Always {
            pull::fetch(&daemon, &spec.image, None, self.quiet).await?;
        }
        let made = self.create(&daemon, spec).await?;
        if self.detach {
            return self.in_background(&daemon, &made).await;
        }
        self.in_foreground(&daemon, &made.name, &made.id).await
    }

    fn spec(&self) -> Result<ContainerSpec> {
        let own = |name: &std::ffi::OsStr| std::env::var_os(name);
        let environment = parse::environment::collect(&self.env_file, &self.env, &own)?;
        let (image, command) = self.image_and_command.split_first().ok_or_else(|| {
            Error::Input("unable to run a container: no image is named".to_owned())
        })?;
        let entrypoint = self.entrypoint.iter().filter(|text| !text.is_empty());
        let text = |option: &Option<String>| option.clone().unwrap_or_default();
        Ok(ContainerSpec {
            name: text(&self.name),
            image: image.clone(),
            entrypoint: entrypoint.cloned().collect(),
            clear_entrypoint: self.entrypoint.as_deref() == Some(""),
            command: command.to_vec(),
            environment,
            mounts: self.volume.clone(),
            ports: self.publish.iter().flat_map(|ports| ports.0.clone()).collect(),
            memory_bytes: self.memory.unwrap_or_default(),
            nano_cpus: self.cpus.unwrap_or_default(),
            pids: self.pids_limit.unwrap_or_default(),
            user: text(&self.user),
            working_dir: text(&self.workdir),
            network: match self.network {
                NetworkName::Bridge => Network::Bridge,
                NetworkName::Host => Network::Host,
                NetworkName::None => Network::None,
            }
            .into(),
            hostname: text(&self.hostname),
            labels: self.label.iter().cloned().collect(),
            tty: self.interactive.tty,
            stdin: self.interactive.interactive,
            // A terminal is left and come back to; what is piped in ends.
            stdin_once: !self.interactive.tty && !self.detach,
            auto_remove: self.remove,
            readonly_rootfs: self.read_only,
            privileged: self.privileged,
            add_capabilities: self.cap_add.clone(),
            drop_capabilities: self.cap_drop.clone(),
            stop_signal: text(&self.stop_signal),
        })
    }

    /// Makes the container, with a name that is free where none is given, and
    /// with its image fetched where it is missing.
    async fn create(
        &self,
        daemon: &Daemon,
        mut spec: ContainerSpec,
    ) -> Result<CreateContainerResponse> {
        let mut may_pull = self.pull == When::Missing;
        let mut names_left = if self.name.is_some() { 0 } else { NAME_ATTEMPTS_MAX };
        loop {
            if self.name.is_none() {
                spec.name = names::invent();
            }
            let request =
                CreateContainerRequest { namespace: daemon.space(), container: Some(spec.clone()) };
            let outcome = daemon.calls().create_container(request).await;
            match outcome.doing(format_args!("create a container of {}", spec.image)) {
                Ok(made) => return Ok(made.into_inner()),
                Err(error) if error.code() == Some(Code::NotFound) && may_pull => {
                    if inspect::image(daemon, &spec.image).await.is_ok() {
                        return Err(error);
                    }
                    may_pull = false;
                    if !self.quiet {
                        eprintln!("corten: {} is not here, fetching it", spec.image);
                    }
                    pull::fetch(daemon, &spec.image, None, self.quiet).await?;
                }
                Err(error) if error.code() == Some(Code::AlreadyExists) && names_left > 1 => {
                    names_left -= 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn in_background(&self, daemon: &Daemon, made: &CreateContainerResponse) -> Result<u8> {
        if let Err(error) = start(daemon, &made.name, &made.id).await {
            return not_started(daemon, &made.id, error).await;
        }
        output::print(&format!("{}\n", made.id))?;
        Ok(0)
    }

    async fn in_foreground(&self, daemon: &Daemon, name: &str, id: &str) -> Result<u8> {
        let mut interrupts = Interrupts::take()?;
        let container = Names { name, id };
        // Heard before it is started: even one that is removed at its end is
        // heard whole.
        let heard = foreground::listen(daemon, container, &self.interactive).await?;
        let started = tokio::select! {
            started = start(daemon, name, id) => started,
            () = interrupts.next() => {
                remove(daemon, id).await?;
                return Ok(EXIT_INTERRUPTED);
            }
        };
        if let Err(error) = started {
            return not_started(daemon, id, error).await;
        }
        let Some(ended) = heard.until_ended(&mut interrupts).await? else {
            eprintln!("corten: left; {name} goes on, and 'corten attach {name}' comes back to it");
            return Ok(0);
        };
        if ended.reason == "OOMKilled" {
            eprintln!("corten: {name} was killed: it went over its memory (--memory allows more)");
        }
        Ok(follow::exit_code(ended.exit_code))
    }
}

async fn start(daemon: &Daemon, name: &str, id: &str) -> Result<()> {
    let request = StartContainerRequest { namespace: daemon.space(), container: id.to_owned() };
    daemon.calls().start_container(request).await.doing(format_args!("start {name}"))?;
    Ok(())
}

/// What never ran is of no use to anybody, and would only hold its name. With
/// `--rm` the daemon removes it by itself, perhaps at the same time.
async fn not_started(daemon: &Daemon, id: &str, error: Error) -> Result<u8> {
    error.tell();
    if let Err(left) = remove(daemon, id).await
        && is_there(daemon, id).await
    {
        left.tell();
    }
    Ok(error.launch_exit_code().unwrap_or(EXIT_OWN))
}

async fn is_there(daemon: &Daemon, id: &str) -> bool {
    let request = InspectContainerRequest { namespace: daemon.space(), container: id.to_owned() };
    !matches!(daemon.calls().inspect_container(request).await,
        Err(status) if status.code() == Code::NotFound)
}

async fn remove(daemon: &Daemon, id: &str) -> Result<()> {
    let request =
        RemoveContainerRequest { namespace: daemon.space(), container: id.to_owned(), force: true };
    let outcome = daemon.calls().remove_container(request).await;
    match outcome.doing(format_args!("remove {}", output::short_id(id))) {
        Err(error) if error.code() != Some(Code::NotFound) => Err(error),
        _ => Ok(()),
    }
}
