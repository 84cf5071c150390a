//! Requests and what becomes of them.

use super::*;
use crate::fixture::Fixture;
use crate::request::NamespaceMode;
use crate::request::{
    ContainerConfig, IdMapping, MountPropagation, MountRequest, Profile, UserNamespace,
};

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn mount<'a>(spec: &'a oci::Spec, destination: &str) -> Option<&'a oci::Mount> {
    spec.mounts.iter().find(|mount| mount.destination == destination)
}

fn env(spec: &oci::Spec, name: &str) -> Option<Vec<u8>> {
    let process = spec.process.as_ref()?;
    let mut found = process.env.iter().filter(|entry| entry.name() == name.as_bytes());
    let value = found.next()?.value().map(<[u8]>::to_vec);
    assert!(found.next().is_none(), "{name} is there twice");
    value
}

#[test]
fn command_and_args_replace_entrypoint_and_cmd_as_kubernetes_says() {
    let cases: [(&[&str], &[&str], &[&str]); 4] = [
        (&[], &[], &["/entry", "cmd"]),
        (&["c"], &[], &["c"]),
        (&[], &["a"], &["/entry", "a"]),
        (&["c"], &["a"], &["c", "a"]),
    ];
    for (command, args, expected) in cases {
        let mut fixture = Fixture::new();
        fixture.image.entrypoint = strings(&["/entry"]);
        fixture.image.cmd = strings(&["cmd"]);
        fixture.container.command = strings(command);
        fixture.container.args = strings(args);
        assert_eq!(fixture.spec().process.unwrap().args, expected);
    }
    let mut fixture = Fixture::new();
    fixture.image = ImageSettings::default();
    fixture.container.command.clear();
    fixture.container.args.clear();
    assert!(matches!(fixture.try_spec(), Err(crate::Error::NoCommand { .. })));
}

#[test]
fn environment_of_image_and_request() {
    let mut fixture = Fixture::new();
    fixture.image.env = strings(&["PATH=/image", "A=image"]);
    fixture.container.envs = vec![("A".into(), b"asked".to_vec()), ("B".into(), b"\xff".to_vec())];
    fixture.user.home = "/home/app".into();
    let spec = fixture.spec();
    assert_eq!(env(&spec, "PATH").unwrap(), b"/image");
    assert_eq!(env(&spec, "A").unwrap(), b"asked");
    assert_eq!(env(&spec, "B").unwrap(), b"\xff");
    assert_eq!(env(&spec, "HOME").unwrap(), b"/home/app");
    assert_eq!(env(&spec, "HOSTNAME").unwrap(), b"web-0");
    assert_eq!(env(&spec, "TERM"), None);
    fixture.container.tty = true;
    assert_eq!(env(&fixture.spec(), "TERM").unwrap(), b"xterm");
    fixture.container.envs = vec![("A=B".into(), Vec::new())];
    assert!(fixture.try_spec().is_err());
}

#[test]
fn privileged_shows_everything() {
    let mut fixture = Fixture::new();
    fixture.container.security.privileged = true;
    fixture.container.security.seccomp = Profile::RuntimeDefault;
    assert!(fixture.try_spec().is_err(), "the pod must be privileged too");
    fixture.sandbox.privileged = true;
    let spec = fixture.spec();
    let linux = spec.linux.as_ref().unwrap();
    assert!(linux.seccomp.is_none());
    assert!(linux.masked_paths.is_empty() && linux.readonly_paths.is_empty());
    assert!(mount(&spec, "/sys").unwrap().has_option("rw"));
    assert!(linux.resources.as_ref().unwrap().devices[0].allow);
    let caps = spec.process.unwrap().capabilities.unwrap();
    assert_eq!(crate::capabilities::bits(&caps.effective), crate::capabilities::ALL);
}

#[test]
fn host_network_keeps_the_hosts_name_and_sysctls() {
    let mut fixture = Fixture::new();
    fixture.sandbox.namespaces.network = NamespaceMode::Node;
    let linux = fixture.spec().linux.unwrap();
    assert!(linux.namespace(oci::NamespaceType::Network).is_none());
    assert!(linux.namespace(oci::NamespaceType::Uts).is_none());
    assert!(linux.sysctl.is_empty());
}

#[test]
fn mounts_of_the_request_replace_those_of_the_pod() {
    let mut fixture = Fixture::new();
    fixture.mount("/etc/hosts", "/kubelet/hosts");
    fixture.mount("/dev/", "/dev");
    let spec = fixture.spec();
    assert_eq!(mount(&spec, "/etc/hosts").unwrap().source, "/kubelet/hosts");
    assert_eq!(mount(&spec, "/dev").unwrap().source, "/dev");
    assert!(mount(&spec, "/dev/pts").is_none() && mount(&spec, "/dev/shm").is_none());
}

#[test]
fn mounts_lie_after_what_they_lie_in() {
    let mut fixture = Fixture::new();
    fixture.mount("/data/inner/deep", "/b");
    fixture.mount("/data", "/a");
    let spec = fixture.spec();
    let at = |path: &str| spec.mounts.iter().position(|m| m.destination == path).unwrap();
    assert!(at("/data") < at("/data/inner/deep"));
    assert!(at("/sys") < at("/sys/fs/cgroup"));
}

#[test]
fn propagation_and_read_only_rules() {
    let refused = |change: &dyn Fn(&mut MountRequest, &mut MountFact)| {
        let mut fixture = Fixture::new();
        fixture.mount("/data", "/a");
        change(&mut fixture.container.mounts[0], &mut fixture.mounts[0]);
        fixture.try_spec().is_err()
    };
    assert!(refused(&|mount, _| mount.recursive_readonly = true));
    assert!(refused(&|mount, fact| {
        mount.recursive_readonly = true;
        mount.readonly = true;
        mount.propagation = MountPropagation::HostToContainer;
        fact.shared = true;
    }));
    assert!(refused(&|mount, _| mount.propagation = MountPropagation::Bidirectional));
    assert!(refused(&|mount, fact| {
        mount.propagation = MountPropagation::Bidirectional;
        fact.slave = true;
    }));
    assert!(refused(&|mount, _| mount.image = Some("image".into())));
    assert!(refused(&|mount, _| mount.options = vec!["suid".into()]));
    assert!(refused(&|mount, _| mount.container_path = "/a/../..".into()));
    assert!(!refused(&|mount, fact| {
        mount.propagation = MountPropagation::Bidirectional;
        fact.shared = true;
    }));
    let mut fixture = Fixture::new();
    fixture.mount("/data", "/a");
    fixture.container.mounts[0].propagation = MountPropagation::HostToContainer;
    fixture.mounts[0].slave = true;
    let spec = fixture.spec();
    assert_eq!(spec.linux.as_ref().unwrap().rootfs_propagation, "rslave");
    assert!(mount(&spec, "/data").unwrap().has_option("rslave"));
}

#[test]
fn user_namespaces_bring_their_mappings() {
    let mut fixture = Fixture::new();
    let mapping = vec![IdMapping { container_id: 0, host_id: 65536, length: 65536 }];
    fixture.sandbox.namespaces.user = Some(UserNamespace { uids: mapping.clone(), gids: mapping });
    let linux = fixture.spec().linux.unwrap();
    assert_eq!(linux.uid_mappings[0].host_id, 65536);
    assert!(linux.namespace(oci::NamespaceType::User).is_some());
    assert!(!linux.sysctl.contains_key("net.ipv4.ping_group_range"));
    fixture.container.security.namespaces.pid = NamespaceMode::Node;
    assert!(fixture.try_spec().is_err());
}

#[test]
fn seccomp_profiles() {
    let mut fixture = Fixture::new();
    assert!(fixture.spec().linux.unwrap().seccomp.is_none());
    fixture.container.security.seccomp = Profile::RuntimeDefault;
    assert!(fixture.spec().linux.unwrap().seccomp.is_some());
    fixture.container.security.seccomp = Profile::Localhost("a.json".into());
    assert!(fixture.try_spec().is_err());
    fixture.seccomp_profile = Some(br#"{"defaultAction":"SCMP_ACT_ALLOW"}"#.to_vec());
    let profile = fixture.spec().linux.unwrap().seccomp.unwrap();
    assert_eq!(profile.default_action, oci::Action::Allow);
}

#[test]
fn an_exec_inherits_and_changes() {
    let mut fixture = Fixture::new();
    fixture.container.security.no_new_privileges = true;
    let spec = fixture.spec();
    let request = ExecRequest {
        args: strings(&["ls"]),
        tty: true,
        cwd: "/tmp".into(),
        env: vec![("A".into(), b"b".to_vec())],
        ..ExecRequest::default()
    };
    let own = spec.process.unwrap();
    let process = exec_process(&own, &request).unwrap();
    assert!(process.no_new_privileges && process.terminal);
    assert_eq!((process.args, process.cwd.as_str()), (strings(&["ls"]), "/tmp"));
    assert!(process.env.contains(&"TERM=xterm".into()) && process.env.contains(&"A=b".into()));
    assert!(exec_process(&own, &ExecRequest::default()).is_err());
}

#[test]
fn nothing_asked_is_nothing_limited() {
    let limits = resources(&ContainerConfig::default().resources);
    assert_eq!(limits, oci::Resources::default());
}

#[test]
fn annotations_get_through_by_name_and_take_nobodys_place() {
    let mut fixture = Fixture::new();
    let map = |list: &[(&str, &str)]| {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    fixture.sandbox.annotations = map(&[("io.a/x", "pod"), ("io.b", "pod"), ("c", "pod")]);
    fixture.container.annotations =
        map(&[("c", "own"), ("io.kubernetes.cri.sandbox-id", "another")]);
    assert_eq!(fixture.spec().annotations.len(), 7);
    fixture.pod_annotations = strings(&["io.a/*", "c"]);
    fixture.container_annotations = strings(&["*"]);
    let spec = fixture.spec();
    assert_eq!(
        (spec.annotations["io.a/x"].as_str(), spec.annotations["c"].as_str()),
        ("pod", "own")
    );
    assert!(!spec.annotations.contains_key("io.b"));
    assert_eq!(spec.annotations["io.kubernetes.cri.sandbox-id"], "sandbox");
}
