//! Plans there and back, and what becomes of damaged ones.

use corten_kernel::launch::{
    Capabilities, FdIndex, MountAttributes, NamespaceKind, Propagation, Step, TargetKind,
};

use super::*;
use crate::frame::LaunchFailure;

const SOME: MountAttributes = MountAttributes { set: 1 << 40, clear: 0x70, recursive: true };

/// One step of each kind, the command last.
fn steps<'a>(list: CStrList<'a>) -> Vec<Step<'a>> {
    let sets = Capabilities { bounding: 1, effective: 2, permitted: 3, inheritable: 4, ambient: 5 };
    vec![
        Step::EnterCgroups,
        Step::AwaitStart,
        Step::AwaitHooks { point: 0 },
        Step::JoinNamespace { fd: FdIndex(3), kind: NamespaceKind::Net },
        Step::NewNamespace { kind: NamespaceKind::Time },
        Step::Hostname { name: c"pod" },
        Step::Domainname { name: c"" },
        Step::NewSession,
        Step::BecomeNamespaceRoot,
        Step::RootPropagation { propagation: Propagation::Slave },
        Step::Root { fd: FdIndex(0) },
        Step::MountFd {
            fd: FdIndex(1),
            target: c"/data",
            kind: TargetKind::LikeSource,
            attributes: SOME,
            propagation: Some(Propagation::Shared),
        },
        Step::MountOwn { source: c"/shm", target: c"/dev/shm", attributes: SOME },
        Step::MountNew {
            fstype: c"proc",
            source: c"proc",
            options: list,
            target: c"/proc",
            attributes: SOME,
            copy_up: true,
        },
        Step::Remount { target: c"/x", attributes: MountAttributes::default() },
        Step::Device { path: c"/dev/null", mode: 0o20666, major: 1, minor: 3, uid: 0, gid: 5 },
        Step::Symlink { target: c"/proc/self/fd", path: c"/dev/fd" },
        Step::Console { uid: 1000, rows: 24, columns: 80 },
        Step::SwitchRoot,
        Step::ReadonlyRoot,
        Step::Mask { path: c"/proc/kcore" },
        Step::ReadonlyPath { path: c"/proc/sys" },
        Step::EnsureDirectory { path: c"/work", uid: 1, gid: 2 },
        Step::Sysctl { path: c"net/ipv4/ip_forward", value: c"1" },
        Step::OomScoreAdj { value: -999 },
        Step::Rlimit { resource: 7, soft: 1024, hard: u64::MAX },
        Step::Nice { value: -5 },
        Step::Umask { mask: 0o22 },
        Step::Groups { list: &[1, 0, 0, 0] },
        Step::User { uid: 1000, gid: 1000 },
        Step::WorkingDirectory { path: c"/work" },
        Step::Capabilities { sets },
        Step::BoundingSet { bounding: 9 },
        Step::NoNewPrivileges,
        Step::Seccomp { program: &[1, 2, 3, 4, 5, 6, 7, 8], flags: 4 },
        Step::ExecLabel { attribute: c"apparmor/exec", label: c"exec profile" },
        Step::Hook {
            args: list,
            env: CStrList::EMPTY,
            state_before_pid: b"{",
            state_after_pid: b"}",
            timeout_ms: 5,
        },
        Step::Exec { candidates: list, args: list, env: list },
    ]
}

fn header() -> Header<'static> {
    Header {
        new_namespaces: namespace_bit(NamespaceKind::Mount) | namespace_bit(NamespaceKind::Pid),
        join: JoinTarget::PidOf("abc"),
        user_namespace: true,
        console: true,
        fd_count: 4,
        hook_mounts: Some(FdIndex(2)),
        delegate: Some(Delegate {
            directory: FdIndex(3),
            pid_file: c"pid",
            console: Some(FdIndex(1)),
            inherit: None,
            timeout_ms: 5,
        }),
    }
}

fn plan(list: CStrList<'_>) -> Vec<u8> {
    let mut builder = PlanBuilder::new(&header());
    builder.hook(&hook(list));
    for step in steps(list) {
        builder.step(&step);
    }
    builder.finish().expect("plan")
}

fn hook(list: CStrList<'_>) -> Hook<'_> {
    Hook {
        point: HookPoint::PostStop,
        args: list,
        env: list,
        state_before_pid: b"before",
        state_after_pid: b"",
        timeout_ms: 77,
    }
}

#[test]
fn there_and_back() {
    let list = CStrings::new(["sh", "-c", ""]).expect("list");
    let bytes = plan(list.as_list());
    let view = PlanView::parse(&bytes).expect("sound");
    assert_eq!(view.header(), header());
    assert_eq!(view.hooks().collect::<Vec<_>>(), [hook(list.as_list())]);
    let expected = steps(list.as_list());
    assert_eq!(view.step_count() as usize, expected.len());
    assert_eq!(view.steps().collect::<Vec<_>>(), expected);
    for join in [JoinTarget::Own, JoinTarget::Container] {
        let header = Header { join, ..Header::default() };
        let mut builder = PlanBuilder::new(&header);
        builder.step(&Step::Init);
        let bytes = builder.finish().expect("plan");
        assert_eq!(PlanView::parse(&bytes).expect("sound").header(), header);
    }
}

#[test]
fn a_delegate_names_its_file_and_no_other() {
    let written = |pid_file, console| {
        let delegate =
            Delegate { directory: FdIndex(0), pid_file, console, inherit: console, timeout_ms: 9 };
        let header = Header { fd_count: 2, delegate: Some(delegate), ..Header::default() };
        let mut builder = PlanBuilder::new(&header);
        builder.step(&Step::Init);
        let bytes = builder.finish().expect("plan");
        PlanView::parse(&bytes).is_ok_and(|view| view.header() == header)
    };
    assert!(written(c"pid", Some(FdIndex(1))) && written(c"pid", None));
    assert!(!written(c"../pid", None) && !written(c"", None));
    assert!(!written(c"pid", Some(FdIndex(2))));
}

#[test]
fn a_large_environment() {
    let value = "v".repeat(1000);
    let env = CStrings::new((0..2000).map(|n| format!("N{n}={value}"))).expect("list");
    let mut builder = PlanBuilder::new(&Header::default());
    let args = CStrings::new(["x"]).expect("list");
    builder.step(&Step::Exec {
        candidates: args.as_list(),
        args: args.as_list(),
        env: env.as_list(),
    });
    let bytes = builder.finish().expect("plan");
    let view = PlanView::parse(&bytes).expect("sound");
    let Some(Step::Exec { env, .. }) = view.steps().next() else { panic!("no exec") };
    assert_eq!(env.iter().count(), 2000);
}

#[test]
fn what_is_refused() {
    assert_eq!(CStrings::new(["a\0b"]), Err(PlanError::Nul));
    assert_eq!(PlanView::parse(b"no").err(), Some(PlanError::NoPlan));
    let none = PlanBuilder::new(&Header::default());
    assert_eq!(none.finish().err(), Some(PlanError::NoEnd));
    let mut twice = PlanBuilder::new(&Header::default());
    twice.step(&Step::Init);
    twice.step(&Step::Init);
    assert_eq!(twice.finish().err(), Some(PlanError::NoEnd));
    let mut missing = PlanBuilder::new(&Header::default());
    missing.step(&Step::Root { fd: FdIndex(0) });
    missing.step(&Step::Init);
    let bytes = missing.finish().expect("plan");
    assert!(matches!(PlanView::parse(&bytes), Err(PlanError::Malformed(_))));
    let mut newer = bytes;
    newer[8] = 99;
    assert_eq!(PlanView::parse(&newer).err(), Some(PlanError::Version(99)));
}

#[test]
fn every_step_has_a_sentence() {
    let list = CStrings::new(["sh"]).expect("list");
    let bytes = plan(list.as_list());
    let view = PlanView::parse(&bytes).expect("sound");
    let texts: Vec<_> = (0..view.step_count()).map(|index| view.describe_step(index)).collect();
    assert!(texts.contains(&"mount proc at /proc".to_string()), "{texts:?}");
    assert!(texts.iter().all(|text| !text.is_empty() && !text.starts_with("perform")), "{texts:?}");
    assert_eq!(view.describe_step(LaunchFailure::HOOK), "run a hook of the runtime");
    assert_eq!(view.describe_step(LaunchFailure::RUNTIME), "run the OCI runtime");
}

#[test]
fn garbage_is_refused_or_read_and_never_panics() {
    let list = CStrings::new(["sh", "-c", "true"]).expect("list");
    let sound = plan(list.as_list());
    // A small generator of our own, so that a failure can be repeated.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for _ in 0..100_000 {
        let mut bytes = sound.clone();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(4) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes[at] ^= 1 << random(8),
                2 => bytes.truncate(at + 1),
                _ => bytes.insert(at, random(256) as u8),
            }
        }
        if let Ok(view) = PlanView::parse(&bytes) {
            let count = view.steps().count();
            assert_eq!(count, view.step_count() as usize);
            assert!(matches!(view.steps().last(), Some(Step::Exec { .. } | Step::Init)));
            view.hooks().for_each(drop);
        }
    }
}
