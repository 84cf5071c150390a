//! Requests all the way to plans, printed and compared with checked-in texts.
//! With `UPDATE=1` in the environment the texts are written anew.

use std::fmt::Write;
use std::path::PathBuf;

use corten_kernel::launch::{CStrList, FdIndex, Step};
use corten_protocol::plan::PlanView;

use super::*;
use crate::fixture::Fixture;
use crate::oci::{Hook, LinuxDevice};
use crate::request::{IdMapping, NamespaceMode, Profile, UserNamespace};

fn filter_of(spec: &Spec) -> Result<Option<Filter>> {
    let linux = spec.linux.as_ref();
    linux.and_then(|linux| linux.seccomp.as_ref()).map(filter).transpose()
}

/// Lowers with as many descriptors as the spec asks for.
fn plan_of(spec: &Spec) -> Result<Vec<u8>> {
    plan_on(spec, &CgroupLayout::V2)
}

fn plan_on(spec: &Spec, layout: &CgroupLayout) -> Result<Vec<u8>> {
    let own = [("/pod/shm", "/shm")];
    let sources = bind_sources(spec, &own);
    let binds: Vec<FdIndex> = (10..).take(sources.len()).map(FdIndex).collect();
    lower(
        spec,
        &LowerInput {
            id: "web",
            bundle: "/run/corten/web",
            fd_count: 100,
            root: FdIndex(0),
            binds: &binds,
            namespaces: &[
                (NamespaceType::Network, FdIndex(1)),
                (NamespaceType::Ipc, FdIndex(2)),
                (NamespaceType::Uts, FdIndex(3)),
            ],
            pid_of: "",
            own_mounts: &own,
            v1_cgroups: &v1_cgroups(spec, layout, 50),
            host_mounts: Some(FdIndex(4)),
        },
        filter_of(spec)?.as_ref(),
    )
}

fn list(list: CStrList<'_>) -> Vec<String> {
    list.iter().map(|text| text.to_string_lossy().into_owned()).collect()
}

fn print(plan: &[u8]) -> String {
    let view = PlanView::parse(plan).expect("a sound plan");
    let mut text = format!("{:?}\n", view.header());
    for hook in view.hooks() {
        let _ = writeln!(text, "hook {:?} {:?}", hook.point, list(hook.args));
    }
    for step in view.steps() {
        let _ = match step {
            Step::Seccomp { program, flags } => {
                writeln!(text, "Seccomp {{ {} instructions, flags: {flags} }}", program.len() / 8)
            }
            Step::Exec { candidates, args, env } => writeln!(
                text,
                "Exec {{ candidates: {:?}, args: {:?}, env: {:?} }}",
                list(candidates),
                list(args),
                list(env)
            ),
            Step::MountNew { fstype, options, target, attributes, .. } => writeln!(
                text,
                "MountNew {{ {fstype:?} at {target:?}, set: {:#x}, options: {:?} }}",
                attributes.set,
                list(options)
            ),
            Step::Capabilities { sets } => writeln!(
                text,
                "Capabilities {{ effective: {:#x}, inheritable: {:#x}, ambient: {:#x} }}",
                sets.effective, sets.inheritable, sets.ambient
            ),
            Step::BoundingSet { bounding } => writeln!(text, "BoundingSet {{ {bounding:#x} }}"),
            Step::Hook { args, state_before_pid, state_after_pid, .. } => writeln!(
                text,
                "Hook {{ {:?}, {}…{} }}",
                list(args),
                String::from_utf8_lossy(state_before_pid),
                String::from_utf8_lossy(state_after_pid)
            ),
            step => writeln!(text, "{step:?}"),
        };
    }
    text
}

fn golden(name: &str, spec: &Spec) {
    let text = print(&plan_of(spec).expect("a plan"));
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("src/lower/golden/{name}.txt"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).expect("the text to be written");
    }
    let expected = std::fs::read_to_string(&path).expect("the checked-in text");
    assert_eq!(text, expected, "{}: if this is right, run with UPDATE=1", path.display());
}

#[test]
fn plain() {
    golden("plain", &Fixture::new().spec());
}

#[test]
fn privileged() {
    let mut fixture = Fixture::new();
    fixture.sandbox.privileged = true;
    fixture.container.security.privileged = true;
    golden("privileged", &fixture.spec());
}

/// A privileged container lists the host's devices, /dev/ptmx among them.
#[test]
fn terminals_are_the_containers_own() {
    let mut spec = Fixture::new().spec();
    let ptmx = LinuxDevice { path: "/dev/ptmx".into(), kind: "c".into(), ..Default::default() };
    spec.linux.as_mut().expect("a Linux section").devices.push(ptmx);
    let plan = print(&plan_of(&spec).expect("a plan"));
    let of_ptmx: Vec<_> = plan.lines().filter(|line| line.contains("dev/ptmx")).collect();
    assert_eq!(of_ptmx.len(), 1, "{of_ptmx:?}");
    assert!(of_ptmx[0].contains("pts/ptmx"), "{of_ptmx:?}");
}

#[test]
fn host_network() {
    let mut fixture = Fixture::new();
    fixture.sandbox.namespaces.network = NamespaceMode::Node;
    fixture.container.security.namespaces.pid = NamespaceMode::Node;
    let mut spec = fixture.spec();
    spec.hostname.clear();
    golden("host_network", &spec);
}

#[test]
fn user_namespace() {
    let mut fixture = Fixture::new();
    let mapping = vec![IdMapping { container_id: 0, host_id: 65536, length: 65536 }];
    fixture.sandbox.namespaces.user = Some(UserNamespace { uids: mapping.clone(), gids: mapping });
    golden("user_namespace", &fixture.spec());
}

#[test]
fn terminal_and_readonly_root_without_new_privileges() {
    let mut fixture = Fixture::new();
    fixture.container.tty = true;
    fixture.container.working_dir = "/srv".into();
    fixture.container.security.readonly_rootfs = true;
    fixture.container.security.no_new_privileges = true;
    fixture.container.security.seccomp = Profile::RuntimeDefault;
    fixture.mount("/data", "/srv/data");
    golden("terminal", &fixture.spec());
}

#[test]
fn hooks() {
    let mut spec = Fixture::new().spec();
    spec.mounts.retain(|mount| mount.destination != "/dev/shm");
    let hook = |path: &str| {
        vec![Hook {
            path: path.into(),
            args: vec!["name".into(), "argument".into()],
            timeout: Some(2),
            ..Hook::default()
        }]
    };
    spec.hooks.create_runtime = hook("/bin/create-runtime");
    spec.hooks.create_container = hook("/bin/create-container");
    spec.hooks.start_container = hook("/bin/start-container");
    spec.hooks.poststop = hook("/bin/poststop");
    golden("hooks", &spec);
}

#[test]
fn an_exec() {
    let mut fixture = Fixture::new();
    fixture.container.security.seccomp = Profile::RuntimeDefault;
    let spec = fixture.spec();
    let request =
        crate::container::ExecRequest { args: vec!["ls".into()], tty: true, ..Default::default() };
    let filter = filter_of(&spec).unwrap().map(Arc::new);
    let base = ExecBase::new(&spec, filter);
    let process = crate::container::exec_process(base.process(), &request).unwrap();
    let plan = lower_exec(&base, &process, false).unwrap();
    let text = print(&plan);
    assert!(text.contains("join: Container") && text.contains("Console"), "{text}");
    assert!(text.contains("\"/usr/bin/ls\""), "{text}");
    let at = |word: &str| text.find(word).unwrap_or_else(|| panic!("{word} in {text}"));
    // Without no_new_privs and CAP_SYS_ADMIN: filter, then capabilities.
    assert!(at("\nUser") < at("\nSeccomp") && at("\nSeccomp") < at("\nCapabilities"));
}

#[test]
fn nothing_is_ignored_in_silence() {
    let refuse = |change: &dyn Fn(&mut Spec)| {
        let mut spec = Fixture::new().spec();
        change(&mut spec);
        assert!(plan_of(&spec).is_err());
    };
    let linux = |spec: &mut Spec| spec.linux.take().unwrap_or_default();
    refuse(&|spec| {
        spec.linux = Some(Linux { intel_rdt: Some(serde_json::json!({})), ..linux(spec) });
    });
    refuse(&|spec| {
        spec.linux = Some(Linux {
            time_offsets: [("boottime".to_owned(), Default::default())].into(),
            ..linux(spec)
        });
    });
    refuse(&|spec| spec.process.as_mut().unwrap().args.clear());
    refuse(&|spec| spec.process.as_mut().unwrap().cwd = "relative".into());
    refuse(&|spec| spec.process.as_mut().unwrap().args[0] = "a\0b".into());
    refuse(&|spec| spec.mounts[0].destination = "relative".into());
    refuse(&|spec| {
        let sysctl = [("kernel/../vm/x".to_owned(), "1".to_owned())].into();
        spec.linux = Some(Linux { sysctl, ..linux(spec) });
    });
}

#[test]
fn descriptors_must_fit_the_spec() {
    let spec = Fixture::new().spec();
    let sources = bind_sources(&spec, &[("/pod/shm", "/shm")]);
    let paths: Vec<&str> = sources.iter().map(|source| source.path.as_str()).collect();
    assert_eq!(paths, ["/pod/hostname", "/pod/hosts", "/pod/resolv.conf"]);
}

#[test]
fn limits_reach_the_cgroup_code() {
    let mut fixture = Fixture::new();
    let limits = &mut fixture.container.resources;
    limits.memory_limit_bytes = Some(1 << 20);
    limits.cpu_quota = Some(-1);
    limits.cpuset_cpus = "0-1".into();
    limits.unified.insert("memory.high".into(), "1".into());
    let resources = cgroup_resources(&fixture.spec().linux.unwrap());
    assert_eq!(resources.memory_limit, Some(1 << 20));
    assert_eq!(resources.cpu_quota, Some(-1));
    assert_eq!(resources.cpus.as_deref(), Some("0-1"));
    assert_eq!(resources.unified, [("memory.high".to_owned(), "1".to_owned())]);
    let rules = resources.devices.unwrap();
    assert!(!rules[0].allow && rules[0].major.is_none());
    assert!(rules.iter().any(|rule| rule.allow && rule.major == Some(136) && rule.read));
}

#[test]
fn a_machine_with_v1_hierarchies_shows_each() {
    let hierarchies = ["cpu,cpuacct", "systemd"].map(str::to_owned).to_vec();
    let spec = Fixture::new().spec();
    let plan = plan_on(&spec, &CgroupLayout::V1 { hierarchies }).unwrap();
    let view = PlanView::parse(&plan).unwrap();
    let shown: Vec<String> = view
        .steps()
        .map(|step| format!("{step:?}"))
        .filter(|text| text.contains("/sys/fs/cgroup"))
        .collect();
    let begins = |at: usize, with: &str| {
        assert!(shown[at].starts_with(with), "{with}: {shown:#?}");
    };
    begins(0, "MountNew { fstype: \"tmpfs\"");
    begins(1, "MountFd { fd: FdIndex(50), target: \"/sys/fs/cgroup/cpu,cpuacct\"");
    begins(2, "Symlink { target: \"cpu,cpuacct\", path: \"/sys/fs/cgroup/cpu\"");
    begins(3, "Symlink { target: \"cpu,cpuacct\", path: \"/sys/fs/cgroup/cpuacct\"");
    begins(4, "MountFd { fd: FdIndex(51), target: \"/sys/fs/cgroup/systemd\"");
    // Nothing is made there once it is closed.
    begins(5, "Remount { target: \"/sys/fs/cgroup\"");
    assert_eq!(shown.len(), 6, "{shown:#?}");
}
