//! What can be typed: global flags, the commands, and how refusals are put.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::client::{Place, default_socket, socket};
use crate::commands::*;
use crate::docker;
use crate::error::EXIT_OWN;

/// Exit code of a usage error, as most programs have it.
const EXIT_USAGE: u8 = 2;
/// Names the daemon's socket.
const HOST_VARIABLE: &str = "CORTEN_HOST";
/// Names the namespace.
const NAMESPACE_VARIABLE: &str = "CORTEN_NAMESPACE";

/// Runs containers and looks after images.
#[derive(Debug, Parser)]
#[command(
    name = "corten",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Containers that you run live in the namespace 'default'; what a kubelet runs is \
                  seen with '-n k8s.io'.\nEvery command has '--help'."
)]
pub struct Arguments {
    /// Whose containers and images [default: $CORTEN_NAMESPACE, else 'default']
    #[arg(short, long, value_name = "NAME", global = true, help_heading = "Global options")]
    pub namespace: Option<String>,
    /// The daemon's socket [default: $CORTEN_HOST, else
    /// unix:///run/corten/corten.sock]
    #[arg(short = 'H', long, value_name = "unix://PATH", value_parser = socket, global = true,
          help_heading = "Global options")]
    pub host: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands, in the order in which help shows them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a command in a new container
    Run(Box<run::Arguments>),
    /// List containers
    #[command(visible_alias = "ls")]
    Ps(ps::Arguments),
    /// Show what a container wrote
    Logs(logs::Arguments),
    /// Run a command in a running container
    Exec(exec::Arguments),
    /// See what a container says, and type to it
    Attach(attach::Arguments),
    /// Copy files and directories into or out of a running container
    Cp(cp::Arguments),
    /// Listen on this machine for ports inside of a container or pod
    PortForward(port_forward::Arguments),
    /// Show what running containers use
    Stats(stats::Arguments),
    /// List the processes of a running container
    Top(top::Arguments),
    /// Show what happens to containers
    Events(events::Arguments),
    /// Change the limits of containers
    Update(update::Arguments),
    /// Start containers that have ended
    Start(start::Arguments),
    /// Ask containers to end, and kill them when their time is up
    Stop(stop::Arguments),
    /// Send a signal to containers
    Kill(kill::Arguments),
    /// Wait until containers have ended, and print their exit codes
    Wait(wait::Arguments),
    /// Remove containers
    Rm(rm::Arguments),
    /// Tell everything known about containers or images, as JSON
    Inspect(inspect::Arguments),
    /// Fetch an image from its registry
    Pull(pull::Arguments),
    /// List images
    Images(images::Arguments),
    /// Remove images
    Rmi(rmi::Arguments),
    /// Take images out of an archive
    Load(load::Arguments),
    /// Put images into an archive
    Save(save::Arguments),
    /// List Kubernetes' pods
    Pods(pods::Arguments),
    /// List namespaces
    Namespaces(namespaces::Arguments),
    /// Tell what the daemon found on this machine
    Info(info::Arguments),
    /// Tell what is wrong with this machine, and what to do about it
    Doctor(doctor::Arguments),
    /// Tell the versions of this program and of the daemon
    Version(version::Arguments),
    /// Print a script that completes commands in a shell
    Completion(completion::Arguments),
}

impl Command {
    /// Our own failure's exit code: where the exit code of a container is
    /// passed on, one that few commands use.
    pub fn failure_code(&self) -> u8 {
        match self {
            Self::Run(_) | Self::Exec(_) | Self::Attach(_) => EXIT_OWN,
            _ => 1,
        }
    }
}

impl Arguments {
    /// Which daemon and namespace are meant: flag, then environment.
    pub fn place(&self) -> Result<Place, String> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let socket = match (&self.host, variable(HOST_VARIABLE)) {
            (Some(path), _) => path.clone(),
            (None, Some(text)) => {
                socket(&text).map_err(|error| format!("unable to use {HOST_VARIABLE}: {error}"))?
            }
            (None, None) => default_socket(),
        };
        let namespace = self.namespace.clone().or_else(|| variable(NAMESPACE_VARIABLE));
        Ok(Place { socket, namespace: namespace.unwrap_or_default() })
    }
}

/// The command line. Help, the version and refusals are printed here; what is
/// left is the exit code.
pub fn parse() -> Result<Arguments, ExitCode> {
    parse_from(std::env::args_os()).map_err(|refusal| {
        if refusal.for_stdout {
            print!("{}", refusal.text);
        } else {
            eprint!("{}", refusal.text);
        }
        ExitCode::from(refusal.code)
    })
}

/// Why there is nothing to run.
#[derive(Debug)]
struct Refusal {
    /// To print; ends with a newline.
    text: String,
    /// Help that was asked for is output; all else is not.
    for_stdout: bool,
    code: u8,
}

fn parse_from(line: impl IntoIterator<Item = OsString>) -> Result<Arguments, Refusal> {
    let line: Vec<OsString> = line.into_iter().collect();
    Arguments::command()
        .try_get_matches_from(&line)
        .and_then(|matches| Arguments::from_arg_matches(&matches))
        .map_err(|error| refusal(&error, &line))
}

fn refusal(error: &clap::Error, line: &[OsString]) -> Refusal {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        let for_stdout = error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
        let code = if for_stdout { 0 } else { EXIT_USAGE };
        return Refusal { text: error.render().to_string(), for_stdout, code };
    }
    let command =
        line.iter().skip(1).filter_map(|word| word.to_str()).find(|word| {
            Arguments::command().get_subcommands().any(|known| known.get_name() == *word)
        });
    let code =
        if matches!(command, Some("run" | "exec" | "attach")) { EXIT_OWN } else { EXIT_USAGE };
    let advice = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(flag))) => {
            docker::advice(command.unwrap_or_default(), flag)
                .map(|advice| format!("corten: {flag} is not offered: {advice}\n"))
        }
        _ => None,
    };
    let unknown_command = match (error.kind(), error.get(ContextKind::InvalidSubcommand)) {
        (ErrorKind::InvalidSubcommand, Some(ContextValue::String(name))) => {
            docker::command_advice(name)
                .map(|advice| format!("corten: there is no command {name:?}: {advice}\n"))
        }
        _ => None,
    };
    let text = advice.or(unknown_command).unwrap_or_else(|| {
        let text = error.render().to_string();
        format!("corten: {}", text.strip_prefix("error: ").unwrap_or(&text))
    });
    Refusal { text, for_stdout: false, code }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Arguments, Refusal> {
        parse_from(line.split_whitespace().map(OsString::from))
    }

    fn run(line: &str) -> run::Arguments {
        match parsed(line).unwrap().command {
            Command::Run(arguments) => *arguments,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_commands_agree_with_themselves() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_follows_the_image_is_the_containers() {
        let arguments = run("corten run --rm -e A=1 busybox ls -l --rm -- -n x");
        assert!(arguments.remove && !arguments.detach);
        assert_eq!(arguments.image_and_command.join(" "), "busybox ls -l --rm -- -n x");
        let arguments = run("corten run busybox -d");
        assert!(!arguments.detach);
        assert_eq!(arguments.image_and_command, ["busybox", "-d"]);
    }

    #[test]
    fn global_flags_stand_on_both_sides() {
        for line in ["corten -n k8s.io ps", "corten ps -n k8s.io", "corten ps --namespace=k8s.io"] {
            assert_eq!(parsed(line).unwrap().namespace.as_deref(), Some("k8s.io"), "{line}");
        }
        let host = parsed("corten ps -H unix:///run/other.sock").unwrap().host;
        assert_eq!(host, Some(PathBuf::from("/run/other.sock")));
        assert!(parsed("corten -H tcp://1.2.3.4 ps").unwrap_err().text.contains("unix sockets"));
    }

    #[test]
    fn flags_of_docker_are_named_with_what_to_do() {
        for (line, advice) in [
            ("corten run --restart always redis", "systemd"),
            ("corten run --restart=always redis", "systemd"),
            ("corten run --mount type=bind,src=/a,dst=/b x", "-v"),
            ("corten run --gpus all x", "Kubernetes"),
            ("corten exec -d web sh", "background"),
        ] {
            let refusal = parsed(line).unwrap_err();
            assert!(refusal.text.contains("is not offered"), "{line}: {}", refusal.text);
            assert!(refusal.text.contains(advice), "{line}: {}", refusal.text);
            assert_eq!(refusal.text.lines().count(), 1, "{}", refusal.text);
            assert_eq!(refusal.code, 125, "{line}");
        }
    }

    #[test]
    fn refusals_begin_with_our_name() {
        for (line, code) in [
            ("corten run --nonsense x", 125),
            ("corten run -p 80 x", 125),
            ("corten ps --nonsense", 2),
            ("corten nonsense", 2),
            ("corten build .", 2),
        ] {
            let refusal = parsed(line).unwrap_err();
            assert!(refusal.text.starts_with("corten: "), "{}", refusal.text);
            assert_eq!(refusal.code, code, "{line}");
        }
        assert!(parsed("corten build .").unwrap_err().text.contains("corten load"));
        assert!(parsed("corten --help").unwrap_err().for_stdout);
        assert_eq!(parsed("corten").unwrap_err().code, 2);
    }
}
