//! What another runtime is told.

use corten_protocol::plan::PlanView;

use super::*;
use crate::fixture::Fixture;
use crate::oci::LinuxIdMapping;

fn call<'a>(options: &'a [String], console: Option<FdIndex>) -> RuntimeCall<'a> {
    RuntimeCall {
        program: "/usr/sbin/runc",
        options,
        bundle: "/state/pod/container",
        id: "abc",
        timeout_ms: 7,
        host_mounts: FdIndex(7),
        directory: FdIndex(8),
        console,
    }
}

fn words(plan: &[u8]) -> Vec<String> {
    let view = PlanView::parse(plan).expect("a plan");
    let Some(Step::Exec { args, .. }) = view.steps().last() else { panic!("no command") };
    args.iter().map(|word| word.to_string_lossy().into_owned()).collect()
}

#[test]
fn descriptors_become_paths_of_the_stage() {
    let mut fixture = Fixture::new();
    fixture.mount("/data", "/host/data");
    fixture.container.mounts[0].readonly = true;
    fixture.container.mounts[0].recursive_readonly = true;
    let mut spec = fixture.spec();
    let bind = spec.mounts.iter_mut().find(|mount| mount.destination == "/data").unwrap();
    bind.uid_mappings = vec![LinuxIdMapping { container_id: 0, host_id: 9, size: 1 }];
    let sources = staged_sources(&spec);
    assert_eq!(sources.len(), 5);
    let binds: Vec<_> = (1..=5).map(FdIndex).collect();
    let namespaces: Vec<_> =
        [NamespaceType::Network, NamespaceType::Uts, NamespaceType::Ipc, NamespaceType::Pid]
            .map(|kind| (kind, FdIndex(6)))
            .into();
    let options = ["--root".to_owned(), "/state/runc".to_owned()];
    let staged = Staged {
        stage: "/state/stage",
        fd_count: 9,
        root: FdIndex(0),
        binds: &binds,
        namespaces: &namespaces,
    };
    let (config, plan) = delegate(&spec, &call(&options, None), &staged).expect("a plan");
    assert_eq!(config.root.as_ref().unwrap().path, "/state/stage/root");
    let data = config.mounts.iter().find(|mount| mount.destination == "/data").unwrap();
    assert!(data.source.starts_with("/state/stage/mount-") && data.uid_mappings.is_empty());
    assert!(data.has_option("ro") && !data.has_option("rro"), "{:?}", data.options);
    let linux = config.linux.as_ref().unwrap();
    let paths = linux.namespaces.iter().filter(|namespace| !namespace.path.is_empty());
    let paths: Vec<_> = paths.map(|namespace| namespace.path.as_str()).collect();
    assert_eq!(paths, ["/state/stage/network", "/state/stage/uts", "/state/stage/ipc"]);
    let view = PlanView::parse(&plan).expect("sound");
    let closed = view.steps().any(|step| {
        matches!(step, Step::MountFd { attributes, .. } if attributes.recursive && attributes.set == 1)
    });
    assert!(closed, "it is read-only all the way down on the stage");
    let delegate = view.header().delegate.expect("a delegate");
    assert_eq!((delegate.pid_file, delegate.timeout_ms), (c"create.pid", 7));
    let start: Vec<_> = view.hooks().map(|hook| hook.args.iter().count()).collect();
    assert_eq!(start, [9], "program, --root R, --log L, --log-format json, start, id");
    let said = words(&plan).join(" ");
    let log = "--log /state/pod/container/create.log --log-format json";
    let expected = format!(
        "/usr/sbin/runc --root /state/runc {log} create --bundle /state/pod/container --pid-file create.pid abc"
    );
    assert_eq!(said, expected);
}

#[test]
fn an_exec_with_a_terminal() {
    let spec = Fixture::new().spec();
    let process = Process { terminal: true, ..spec.process.unwrap() };
    let call = RuntimeCall {
        host_mounts: FdIndex(0),
        directory: FdIndex(1),
        ..call(&[], Some(FdIndex(2)))
    };
    let plan = delegate_exec(&call, &process, "exec-5").expect("a plan");
    let view = PlanView::parse(&plan).expect("sound");
    assert!(view.header().console && view.header().delegate.unwrap().console.is_some());
    let said = words(&plan).join(" ");
    let end = "exec --detach --process exec-5.json --pid-file exec-5.pid --console-socket exec-5.sock abc";
    assert!(said.ends_with(end), "{said}");
}
