//! What runs: command, environment, user, terminal.

use super::{ContainerInput, ImageSettings};
use crate::capabilities;
use crate::error::{Error, Result};
use crate::oci::{EnvText, LinuxCapabilities, Process, User};
use crate::request::ContainerConfig;
use crate::user::ResolvedUser;

/// Where programs are looked for when neither image nor request says.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const OOM_SCORE_ADJ: std::ops::RangeInclusive<i32> = -1000..=1000;

pub(super) fn process(input: &ContainerInput<'_>) -> Result<Process> {
    let config = input.container;
    let security = &config.security;
    let oom_score_adj = input.resources.oom_score_adj.unwrap_or(0);
    if !OOM_SCORE_ADJ.contains(&oom_score_adj) {
        return Err(Error::invalid(
            "oom_score_adj",
            oom_score_adj.to_string(),
            "it must be -1000 to 1000",
        ));
    }
    Ok(Process {
        terminal: config.tty,
        user: user(input.user),
        args: args(config, input.image)?,
        env: environment(input)?,
        cwd: working_directory(&config.working_dir, &input.image.working_dir),
        capabilities: Some(capabilities::of_container(
            security,
            &input.policy.default_capabilities,
            input.policy.machine_capabilities,
        )?),
        rlimits: input.policy.rlimits.clone(),
        no_new_privileges: security.no_new_privileges,
        apparmor_profile: super::security::apparmor(input)?,
        oom_score_adj: Some(oom_score_adj),
        selinux_label: input
            .labels
            .as_ref()
            .map_or_else(String::new, |labels| labels.process.clone()),
        ..Process::default()
    })
}

fn user(resolved: &ResolvedUser) -> User {
    User {
        uid: resolved.uid,
        gid: resolved.gid,
        umask: None,
        additional_gids: resolved.additional_gids.clone(),
    }
}

/// Kubernetes' rule: a command of the request replaces the image's entrypoint
/// *and* cmd; arguments alone replace only cmd.
fn args(config: &ContainerConfig, image: &ImageSettings) -> Result<Vec<String>> {
    let (program, args) = match (config.command.is_empty(), config.args.is_empty()) {
        (false, _) => (&config.command, &config.args),
        (true, false) => (&image.entrypoint, &config.args),
        (true, true) => (&image.entrypoint, &image.cmd),
    };
    let all: Vec<String> = program.iter().chain(args).cloned().collect();
    match all.first() {
        None => Err(Error::NoCommand { container: config.name.clone() }),
        Some(first) if first.is_empty() => {
            Err(Error::invalid("command", "", "its first word is empty"))
        }
        Some(_) => Ok(all),
    }
}

fn working_directory(asked: &str, image: &str) -> String {
    let path = if asked.is_empty() { image } else { asked };
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// An environment, in which a later value replaces an earlier one in its place.
struct Environment(Vec<EnvText>);

impl Environment {
    fn set(&mut self, entry: EnvText) {
        match self.0.iter_mut().find(|known| known.name() == entry.name()) {
            Some(known) => *known = entry,
            None => self.0.push(entry),
        }
    }

    fn set_if_absent(&mut self, entry: EnvText) {
        if !self.0.iter().any(|known| known.name() == entry.name()) {
            self.0.push(entry);
        }
    }
}

fn environment(input: &ContainerInput<'_>) -> Result<Vec<EnvText>> {
    let config = input.container;
    // Replacing one by one would be quadratic over a service-link environment
    // of many thousand entries: those of the request are merged by a map.
    let mut environment = Environment(Vec::new());
    environment.set(EnvText::pair("PATH", DEFAULT_PATH.as_bytes()));
    for entry in &input.image.env {
        environment.set(entry.as_str().into());
    }
    if !input.hostname.is_empty() {
        environment.set(EnvText::pair("HOSTNAME", input.hostname.as_bytes()));
    }
    if config.tty {
        environment.set_if_absent(EnvText::from("TERM=xterm"));
    }
    merge(&mut environment.0, &config.envs)?;
    environment.set_if_absent(EnvText::pair("HOME", input.user.home.as_bytes()));
    Ok(environment.0)
}

fn merge(environment: &mut Vec<EnvText>, asked: &[(String, Vec<u8>)]) -> Result<()> {
    let mut places: std::collections::HashMap<Vec<u8>, usize> =
        environment.iter().enumerate().map(|(at, entry)| (entry.name().to_vec(), at)).collect();
    for (name, value) in asked {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(Error::invalid(
                "name of an environment variable",
                name.as_str(),
                "it must not be empty, nor hold `=` or NUL",
            ));
        }
        if value.contains(&0) {
            return Err(Error::invalid(
                "environment variable",
                name.as_str(),
                "its value must not hold NUL",
            ));
        }
        let entry = EnvText::pair(name, value);
        match places.get(name.as_bytes()) {
            Some(at) => environment[*at] = entry,
            None => {
                places.insert(name.clone().into_bytes(), environment.len());
                environment.push(entry);
            }
        }
    }
    Ok(())
}

/// A process to start in a container that runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecRequest {
    /// What to run.
    pub args: Vec<String>,
    /// A terminal.
    pub tty: bool,
    /// Replaces the container's working directory, unless empty.
    pub cwd: String,
    /// More environment.
    pub env: Vec<(String, Vec<u8>)>,
    /// Replaces the container's user.
    pub user: Option<ResolvedUser>,
    /// With all capabilities of this set (`corten exec --privileged`).
    pub privileged: Option<u64>,
}

/// The process section for an exec: the container's `own`, with what the request
/// changes. Security comes from the container: an exec is never freer.
pub fn exec_process(own: &Process, request: &ExecRequest) -> Result<Process> {
    let mut process = own.clone();
    if request.args.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("command", "", "an exec needs one"));
    }
    process.args.clone_from(&request.args);
    process.terminal = request.tty;
    process.console_size = None;
    if !request.cwd.is_empty() {
        process.cwd = working_directory(&request.cwd, "");
    }
    let mut environment = Environment(process.env);
    if let Some(resolved) = &request.user {
        process.user = user(resolved);
        environment.set(EnvText::pair("HOME", resolved.home.as_bytes()));
    }
    if request.tty {
        environment.set_if_absent(EnvText::from("TERM=xterm"));
    }
    process.env = environment.0;
    merge(&mut process.env, &request.env)?;
    if let Some(set) = request.privileged {
        let all = capabilities::names(set);
        process.capabilities = Some(LinuxCapabilities {
            bounding: all.clone(),
            effective: all.clone(),
            permitted: all,
            inheritable: Vec::new(),
            ambient: Vec::new(),
        });
        process.apparmor_profile.clear();
        process.no_new_privileges = false;
    }
    Ok(process)
}
