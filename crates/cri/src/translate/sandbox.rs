//! A sandbox that is asked for.

use corten_api::cri;
use corten_base::limits;
use corten_pods::Result;
use corten_spec::request::{Dns, PortMapping, Protocol, RunAs, SandboxConfig};

use super::security::{Who, profile, run_as, selinux};
use super::{namespaces, resources};
use crate::validate::{at_most, hostname, no_nul, port, port_or_zero, present, refuse, required};

/// The sandbox that RunPodSandbox asks for.
pub fn from_cri(
    config: Option<cri::PodSandboxConfig>,
    runtime_handler: String,
) -> Result<SandboxConfig> {
    let config = present("config", config)?;
    let metadata = present("config.metadata", config.metadata)?;
    required("config.metadata.name", &metadata.name)?;
    required("config.metadata.namespace", &metadata.namespace)?;
    required("config.metadata.uid", &metadata.uid)?;
    hostname("config.hostname", &config.hostname)?;
    at_most("config.port_mappings", config.port_mappings.len(), limits::POD_PORTS_MAX)?;
    let linux = linux(config.linux)?;
    Ok(SandboxConfig {
        name: metadata.name,
        uid: metadata.uid,
        namespace: metadata.namespace,
        attempt: metadata.attempt,
        hostname: config.hostname,
        log_directory: log_directory(config.log_directory)?,
        dns: config.dns_config.map(dns).transpose()?,
        port_mappings: config.port_mappings.into_iter().map(port_mapping).collect::<Result<_>>()?,
        labels: config.labels,
        annotations: config.annotations,
        runtime_handler,
        network_isolated: false,
        solo: false,
        ..linux
    })
}

/// The parts that only Linux pods have, in an otherwise empty configuration.
fn linux(linux: Option<cri::LinuxPodSandboxConfig>) -> Result<SandboxConfig> {
    let linux = linux.unwrap_or_default();
    let context = linux.security_context.unwrap_or_default();
    let field = "config.linux.security_context";
    #[allow(deprecated)]
    let old_seccomp = context.seccomp_profile_path;
    let who = Who {
        user: context.run_as_user,
        username: String::new(),
        group: context.run_as_group,
        groups: context.supplemental_groups,
        policy: context.supplemental_groups_policy,
    };
    let namespaces = namespaces::from_cri(
        &format!("{field}.namespace_options"),
        context.namespace_options,
        true,
    )?;
    let run_as: RunAs = run_as(field, who)?;
    Ok(SandboxConfig {
        cgroup_parent: cgroup_parent(linux.cgroup_parent)?,
        sysctls: sysctls(linux.sysctls)?,
        namespaces,
        selinux: selinux(context.selinux_options),
        run_as,
        seccomp: profile(&format!("{field}.seccomp"), context.seccomp, &old_seccomp)?
            .unwrap_or_default(),
        privileged: context.privileged,
        resources: resources::from_cri("config.linux.resources", linux.resources)?,
        overhead: resources::from_cri("config.linux.overhead", linux.overhead)?,
        ..SandboxConfig::default()
    })
}

/// The parent becomes a path in every cgroup hierarchy.
fn cgroup_parent(parent: String) -> Result<String> {
    let field = "config.linux.cgroup_parent";
    no_nul(field, &parent)?;
    if parent.split('/').any(|part| part == "..") {
        return Err(refuse(field, "it leads upwards with '..'"));
    }
    Ok(parent)
}

/// Where logs go: a path of the machine, or nothing.
fn log_directory(path: String) -> Result<String> {
    let field = "config.log_directory";
    if !path.is_empty() && !path.starts_with('/') {
        return Err(refuse(field, format!("{path:?} is no absolute path")));
    }
    no_nul(field, &path)?;
    Ok(path)
}

/// Names become paths below /proc/sys.
fn sysctls(
    sysctls: std::collections::BTreeMap<String, String>,
) -> Result<std::collections::BTreeMap<String, String>> {
    let field = "config.linux.sysctls";
    for (name, value) in &sysctls {
        // Either separator is in use: `net.ipv4.ip_forward`, `net/ipv4/ip_forward`.
        let parts_are_names = name.replace('/', ".").split('.').all(|part| !part.is_empty());
        if !parts_are_names {
            return Err(refuse(field, format!("{name:?} is no name of a sysctl")));
        }
        no_nul(field, name)?;
        no_nul(field, value)?;
    }
    Ok(sysctls)
}

fn dns(dns: cri::DnsConfig) -> Result<Dns> {
    for text in dns.servers.iter().chain(&dns.searches).chain(&dns.options) {
        if text.contains(['\n', '\r', '\0']) {
            return Err(refuse("config.dns_config", format!("{text:?} is more than one line")));
        }
    }
    Ok(Dns { servers: dns.servers, searches: dns.searches, options: dns.options })
}

fn port_mapping(mapping: cri::PortMapping) -> Result<PortMapping> {
    let field = "config.port_mappings";
    let protocol = match cri::Protocol::try_from(mapping.protocol) {
        Ok(cri::Protocol::Tcp) => Protocol::Tcp,
        Ok(cri::Protocol::Udp) => Protocol::Udp,
        Ok(cri::Protocol::Sctp) => Protocol::Sctp,
        Err(_) => return Err(refuse(field, format!("{} is no protocol", mapping.protocol))),
    };
    if !mapping.host_ip.is_empty() && mapping.host_ip.parse::<std::net::IpAddr>().is_err() {
        return Err(refuse(field, format!("host_ip {:?} is no address", mapping.host_ip)));
    }
    Ok(PortMapping {
        protocol,
        container_port: port(field, mapping.container_port.into())?,
        host_port: port_or_zero(field, mapping.host_port.into())?,
        host_ip: mapping.host_ip,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_spec::request::{NamespaceMode, Profile};

    fn config() -> cri::PodSandboxConfig {
        cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: "web".into(),
                uid: "u-1".into(),
                namespace: "shop".into(),
                attempt: 2,
            }),
            ..Default::default()
        }
    }

    fn refused(change: impl FnOnce(&mut cri::PodSandboxConfig)) -> String {
        let mut config = config();
        change(&mut config);
        from_cri(Some(config), String::new()).unwrap_err().to_string()
    }

    #[test]
    fn all_of_a_sandbox_arrives() {
        let config = cri::PodSandboxConfig {
            hostname: "web-0".into(),
            log_directory: "/var/log/pods/web".into(),
            dns_config: Some(cri::DnsConfig {
                servers: vec!["10.0.0.10".into()],
                searches: vec!["svc".into()],
                options: vec!["ndots:5".into()],
            }),
            port_mappings: vec![cri::PortMapping {
                protocol: cri::Protocol::Udp.into(),
                container_port: 53,
                host_port: 0,
                host_ip: "::1".into(),
            }],
            labels: [("a".to_owned(), "b".to_owned())].into(),
            annotations: [("c".to_owned(), "d".to_owned())].into(),
            linux: Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: "/kubepods/pod1".into(),
                security_context: Some(cri::LinuxSandboxSecurityContext {
                    namespace_options: Some(cri::NamespaceOption {
                        network: cri::NamespaceMode::Node.into(),
                        ..Default::default()
                    }),
                    privileged: true,
                    run_as_user: Some(cri::Int64Value { value: 65_535 }),
                    seccomp: Some(cri::SecurityProfile::default()),
                    ..Default::default()
                }),
                sysctls: [("net.ipv4.ip_forward".to_owned(), "1".to_owned())].into(),
                overhead: None,
                resources: Some(cri::LinuxContainerResources {
                    cpu_shares: 2,
                    ..Default::default()
                }),
            }),
            ..config()
        };
        let ours = from_cri(Some(config), "crun".into()).unwrap();
        assert_eq!((ours.name.as_str(), ours.uid.as_str()), ("web", "u-1"));
        assert_eq!((ours.namespace.as_str(), ours.attempt), ("shop", 2));
        assert_eq!(ours.hostname, "web-0");
        assert_eq!(ours.log_directory, "/var/log/pods/web");
        assert_eq!(ours.dns.unwrap().options, ["ndots:5"]);
        assert_eq!(ours.port_mappings[0].protocol, Protocol::Udp);
        assert_eq!(ours.port_mappings[0].host_ip, "::1");
        assert_eq!((ours.labels["a"].as_str(), ours.annotations["c"].as_str()), ("b", "d"));
        assert_eq!(ours.cgroup_parent, "/kubepods/pod1");
        assert_eq!(ours.namespaces.network, NamespaceMode::Node);
        assert!(ours.privileged && !ours.solo && !ours.network_isolated);
        assert_eq!(ours.run_as.uid, Some(65_535));
        assert_eq!(ours.seccomp, Profile::RuntimeDefault);
        assert_eq!(ours.sysctls["net.ipv4.ip_forward"], "1");
        assert_eq!(ours.resources.cpu_shares, Some(2));
        assert_eq!(ours.runtime_handler, "crun");
    }

    #[test]
    fn what_is_missing_is_named() {
        let nothing = from_cri(None, String::new()).unwrap_err().to_string();
        assert!(nothing.contains("config"), "{nothing}");
        assert!(refused(|c| c.metadata = None).contains("config.metadata"));
        assert!(refused(|c| c.metadata.as_mut().unwrap().uid.clear()).contains("uid"));
        assert!(refused(|c| c.hostname = "h".repeat(65)).contains("hostname"));
    }

    #[test]
    fn paths_and_lines_stay_what_they_are() {
        let linux = |linux| move |c: &mut cri::PodSandboxConfig| c.linux = Some(linux);
        let parent =
            cri::LinuxPodSandboxConfig { cgroup_parent: "/a/../../b".into(), ..Default::default() };
        assert!(refused(linux(parent)).contains("cgroup_parent"));
        for name in ["net..x", "../x", "", "/etc"] {
            let sysctl = cri::LinuxPodSandboxConfig {
                sysctls: [(name.to_owned(), String::new())].into(),
                ..Default::default()
            };
            assert!(refused(linux(sysctl)).contains("sysctl"), "{name}");
        }
        let dns = cri::DnsConfig { searches: vec!["a\nnameserver x".into()], ..Default::default() };
        assert!(refused(|c| c.dns_config = Some(dns)).contains("dns_config"));
        for (container_port, host_port) in [(0, 1), (70_000, 1), (1, -1)] {
            let mapping = cri::PortMapping { container_port, host_port, ..Default::default() };
            assert!(refused(|c| c.port_mappings = vec![mapping]).contains("port"));
        }
    }
}
