//! A container that people ask for, as a sandbox and a container of ours.

use corten_api::corten as api;
use corten_base::{Reference, limits};
use corten_pods::Result;
use corten_spec::request::{
    ContainerConfig, MountPropagation, MountRequest, NamespaceMode, NamespaceOptions, PortMapping,
    Profile, Protocol, RunAs, SandboxConfig, Security,
};

use crate::translate::container::check_variable;
use crate::translate::signal;
use crate::validate::{at_most, hostname, no_nul, port, refuse, required};

/// Characters of a container's name.
const NAME_CHARS_MAX: usize = 128;
/// Characters of a host name; the kernel allows one more.
const HOST_NAME_CHARS_MAX: usize = 63;

/// The sandbox and the container that `spec` asks for.
pub fn translate(spec: api::ContainerSpec) -> Result<(SandboxConfig, ContainerConfig)> {
    let name = match spec.name.as_str() {
        "" => invented_name(&spec.image),
        name => checked_name(name)?.to_owned(),
    };
    let network = api::Network::try_from(spec.network)
        .map_err(|_| refuse("network", "it is bridge, host or none"))?;
    let namespaces = NamespaceOptions {
        // The command is PID 1, as people know it; a pod's init would be one
        // process more.
        pid: NamespaceMode::Container,
        network: match network {
            api::Network::Host => NamespaceMode::Node,
            api::Network::Unspecified | api::Network::Bridge | api::Network::None => {
                NamespaceMode::Pod
            }
        },
        ..NamespaceOptions::default()
    };
    if !matches!(network, api::Network::Unspecified | api::Network::Bridge)
        && !spec.ports.is_empty()
    {
        return Err(refuse(
            "ports",
            "only containers on the bridge have ports of their own: leave them out, or the network",
        ));
    }
    at_most("ports", spec.ports.len(), limits::POD_PORTS_MAX)?;
    at_most("mounts", spec.mounts.len(), limits::CONTAINER_MOUNTS_MAX)?;
    hostname("hostname", &spec.hostname)?;
    let sandbox = SandboxConfig {
        name: name.clone(),
        hostname: match spec.hostname.as_str() {
            "" if network != api::Network::Host => host_name_of(&name),
            given => given.to_owned(),
        },
        port_mappings: spec.ports.iter().map(port_mapping).collect::<Result<_>>()?,
        labels: spec.labels.clone(),
        namespaces: namespaces.clone(),
        privileged: spec.privileged,
        seccomp: Profile::RuntimeDefault,
        network_isolated: network == api::Network::None,
        solo: true,
        auto_remove: spec.auto_remove,
        ..SandboxConfig::default()
    };
    let container = container(spec, name, namespaces)?;
    Ok((sandbox, container))
}

fn container(
    spec: api::ContainerSpec,
    name: String,
    namespaces: NamespaceOptions,
) -> Result<ContainerConfig> {
    required("image", &spec.image)?;
    for argument in spec.entrypoint.iter().chain(&spec.command) {
        no_nul("command", argument)?;
    }
    let (command, args) = command(&spec)?;
    let stop_signal = match spec.stop_signal.as_str() {
        "" => 0,
        text => signal::from_text("stop_signal", text)?,
    };
    Ok(ContainerConfig {
        name,
        image: spec.image.clone(),
        user_specified_image: spec.image,
        command,
        args,
        working_dir: no_nul("working_dir", &spec.working_dir)?.to_owned(),
        envs: environment(spec.environment)?,
        mounts: spec.mounts.into_iter().map(mount).collect::<Result<_>>()?,
        labels: spec.labels,
        stdin: spec.stdin,
        stdin_once: spec.stdin_once,
        tty: spec.tty,
        stop_signal,
        resources: super::limits::of_new(spec.memory_bytes, spec.nano_cpus, spec.pids)?,
        security: Security {
            add_capabilities: spec.add_capabilities,
            drop_capabilities: spec.drop_capabilities,
            privileged: spec.privileged,
            namespaces,
            run_as: user("user", &spec.user)?,
            readonly_rootfs: spec.readonly_rootfs,
            seccomp: if spec.privileged { Profile::Unconfined } else { Profile::RuntimeDefault },
            ..Security::default()
        },
        ..ContainerConfig::default()
    })
}

/// CRI's `command` replaces the entrypoint (and with it the image's command),
/// `args` the image's command alone.
fn command(spec: &api::ContainerSpec) -> Result<(Vec<String>, Vec<String>)> {
    if !spec.entrypoint.is_empty() {
        return Ok((spec.entrypoint.clone(), spec.command.clone()));
    }
    if !spec.clear_entrypoint {
        return Ok((Vec::new(), spec.command.clone()));
    }
    if spec.command.is_empty() {
        return Err(refuse("entrypoint", "without one, a command is needed"));
    }
    Ok((spec.command.clone(), Vec::new()))
}

/// Environment of a container or exec.
pub fn environment(variables: Vec<api::EnvironmentVariable>) -> Result<Vec<(String, Vec<u8>)>> {
    variables
        .into_iter()
        .map(|variable| {
            check_variable("environment", &variable.key, &variable.value)?;
            Ok((variable.key, variable.value.into()))
        })
        .collect()
}

fn mount(mount: api::Mount) -> Result<MountRequest> {
    for (field, path) in
        [("mounts.host_path", &mount.host_path), ("mounts.container_path", &mount.container_path)]
    {
        if !no_nul(field, path)?.starts_with('/') {
            return Err(refuse(field, format!("{path:?} is not an absolute path")));
        }
    }
    Ok(MountRequest {
        container_path: mount.container_path,
        host_path: mount.host_path,
        readonly: mount.readonly,
        propagation: MountPropagation::Private,
        create_host_path: true,
        ..MountRequest::default()
    })
}

fn port_mapping(mapping: &api::PortMapping) -> Result<PortMapping> {
    let protocol = match api::Protocol::try_from(mapping.protocol) {
        Ok(api::Protocol::Unspecified | api::Protocol::Tcp) => Protocol::Tcp,
        Ok(api::Protocol::Udp) => Protocol::Udp,
        Ok(api::Protocol::Sctp) => Protocol::Sctp,
        Err(_) => return Err(refuse("ports", "a protocol is tcp, udp or sctp")),
    };
    if !mapping.host_ip.is_empty() && mapping.host_ip.parse::<std::net::IpAddr>().is_err() {
        return Err(refuse("ports", format!("{:?} is no address", mapping.host_ip)));
    }
    Ok(PortMapping {
        protocol,
        container_port: port("ports.container_port", mapping.container_port.into())?,
        host_port: port("ports.host_port", mapping.host_port.into())?,
        host_ip: mapping.host_ip.clone(),
    })
}

/// `user[:group]`: names or numbers, but the group by number.
pub fn user(field: &str, text: &str) -> Result<RunAs> {
    no_nul(field, text)?;
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (required(field, user)?, Some(group)),
        None => (text, None),
    };
    let gid = group.map(|group| {
        group.parse::<u32>().map_err(|_| {
            refuse(field, format!("give the group {group:?} by its number, as in 1000:1000"))
        })
    });
    let uid = user.parse::<u32>().ok();
    Ok(RunAs {
        uid,
        username: if uid.is_some() { String::new() } else { user.to_owned() },
        gid: gid.transpose()?,
        ..RunAs::default()
    })
}

/// Names are file names, host names and what people type.
fn checked_name(name: &str) -> Result<&str> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.len() > NAME_CHARS_MAX
        || !name.bytes().all(inner)
        || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
    {
        return Err(refuse(
            "name",
            format!(
                "{name:?} is not made of up to {NAME_CHARS_MAX} letters, digits, '.', '_' and \
                 '-', beginning with a letter or digit"
            ),
        ));
    }
    Ok(name)
}

/// A container's name as that of its machine: what no host name can have is
/// left out.
fn host_name_of(name: &str) -> String {
    let fits = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    let text: String = name.chars().filter(fits).take(HOST_NAME_CHARS_MAX).collect();
    let text = text.trim_matches(['-', '.']);
    if text.is_empty() { "container".to_owned() } else { text.to_ascii_lowercase() }
}

/// The image's own name and four random digits: `nginx-3f2a`.
fn invented_name(image: &str) -> String {
    let reference = image.parse::<Reference>();
    let base = match &reference {
        Ok(reference) => reference.repository().rsplit('/').next().unwrap_or("container"),
        Err(_) => "container",
    };
    let base = if checked_name(base).is_ok() && base.len() < NAME_CHARS_MAX / 2 {
        base
    } else {
        "container"
    };
    let random = corten_base::id::hex(&corten_kernel::random::bytes()[..2]);
    format!("{base}-{random}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> api::ContainerSpec {
        api::ContainerSpec { image: "docker.io/library/nginx".into(), ..Default::default() }
    }

    fn refused(spec: api::ContainerSpec) -> String {
        translate(spec).unwrap_err().to_string()
    }

    #[test]
    fn a_plain_run_is_confined_and_on_the_bridge() {
        let (sandbox, container) = translate(spec()).unwrap();
        assert!(container.name.starts_with("nginx-"), "{}", container.name);
        assert_eq!(sandbox.name, container.name);
        assert!(sandbox.solo && !sandbox.network_isolated && !sandbox.auto_remove);
        assert_eq!(sandbox.namespaces.network, NamespaceMode::Pod);
        assert_eq!(container.security.seccomp, Profile::RuntimeDefault);
        assert!(container.security.masked_paths.is_none(), "the default ones");
        assert_eq!(container.resources.memory_limit_bytes, None);
    }

    #[test]
    fn networks_are_chosen_by_name() {
        let with = |network: api::Network| {
            translate(api::ContainerSpec { network: network.into(), ..spec() }).unwrap().0
        };
        assert_eq!(with(api::Network::Host).namespaces.network, NamespaceMode::Node);
        assert!(with(api::Network::None).network_isolated);
        let ports =
            vec![api::PortMapping { container_port: 80, host_port: 8080, ..Default::default() }];
        let bridge = api::ContainerSpec { ports: ports.clone(), ..spec() };
        assert_eq!(translate(bridge).unwrap().0.port_mappings[0].host_port, 8080);
        let host = api::ContainerSpec { network: api::Network::Host.into(), ports, ..spec() };
        assert!(refused(host).contains("bridge"));
    }

    #[test]
    fn limits_are_in_the_kernels_units() {
        let limited = api::ContainerSpec {
            memory_bytes: 64 << 20,
            nano_cpus: 1_500_000_000,
            pids: 100,
            ..spec()
        };
        let resources = translate(limited).unwrap().1.resources;
        assert_eq!(resources.cpu_quota, Some(150_000));
        assert_eq!(resources.cpu_period, Some(100_000));
        assert_eq!(resources.memory_limit_bytes, Some(64 << 20));
        assert_eq!(resources.memory_swap_limit_bytes, Some(64 << 20));
        assert_eq!(resources.pids_limit, Some(100));
        assert!(refused(api::ContainerSpec { nano_cpus: 5, ..spec() }).contains("hundredth"));
    }

    #[test]
    fn commands_replace_what_they_say() {
        let of = |entrypoint: &[&str], clear_entrypoint, command: &[&str]| {
            let owned = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect::<Vec<_>>();
            let spec = api::ContainerSpec {
                entrypoint: owned(entrypoint),
                clear_entrypoint,
                command: owned(command),
                ..spec()
            };
            translate(spec)
                .map(|(_, container)| (container.command.join(" "), container.args.join(" ")))
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(of(&[], false, &["ls"]).unwrap(), pair("", "ls"));
        assert_eq!(of(&["sh"], false, &["-c"]).unwrap(), pair("sh", "-c"));
        assert_eq!(of(&[], true, &["ls", "-l"]).unwrap(), pair("ls -l", ""));
        assert!(of(&[], true, &[]).is_err());
    }

    #[test]
    fn a_machine_is_named_for_its_container() {
        let of = |name: &str, hostname: &str, network: api::Network| {
            let spec = api::ContainerSpec {
                name: name.into(),
                hostname: hostname.into(),
                network: network.into(),
                ..spec()
            };
            translate(spec).unwrap().0.hostname
        };
        assert_eq!(of("Web_1.a", "", api::Network::Bridge), "web1.a");
        assert_eq!(of("0_", "", api::Network::None), "0");
        assert_eq!(of(&"x".repeat(80), "", api::Network::Bridge), "x".repeat(63));
        assert_eq!(of("web", "box", api::Network::Bridge), "box");
        assert_eq!(of("web", "", api::Network::Host), "");
    }

    #[test]
    fn users_are_names_or_numbers() {
        let of = |text| user("user", text).unwrap();
        assert_eq!(of(""), RunAs::default());
        assert_eq!((of("1000").uid, of("1000").gid), (Some(1000), None));
        assert_eq!((of("1:2").uid, of("1:2").gid), (Some(1), Some(2)));
        assert_eq!((of("www:33").username.as_str(), of("www:33").gid), ("www", Some(33)));
        assert!(user("user", "www:www").unwrap_err().to_string().contains("number"));
        assert!(user("user", ":5").is_err());
    }

    #[test]
    fn what_no_container_can_have_is_refused() {
        assert!(refused(api::ContainerSpec { name: "../x".into(), ..spec() }).contains("name"));
        assert!(refused(api::ContainerSpec { image: String::new(), ..spec() }).contains("image"));
        let relative =
            api::Mount { host_path: "data".into(), container_path: "/d".into(), readonly: false };
        assert!(
            refused(api::ContainerSpec { mounts: vec![relative], ..spec() }).contains("absolute")
        );
        let mapping = api::PortMapping { container_port: 0, host_port: 1, ..Default::default() };
        assert!(
            refused(api::ContainerSpec { ports: vec![mapping], ..spec() }).contains("1 to 65535")
        );
    }
}
