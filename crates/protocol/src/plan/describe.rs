//! Steps as parts of sentences: «unable to <mount proc at /proc>: …».

use std::ffi::CStr;

use corten_kernel::launch::{CStrList, NamespaceKind, STEP_BEFORE, Step};

use crate::frame::LaunchFailure;

fn text(text: &CStr) -> std::borrow::Cow<'_, str> {
    text.to_string_lossy()
}

fn first(list: CStrList<'_>) -> String {
    list.iter().next().map_or_else(String::new, |first| text(first).into_owned())
}

fn kind(kind: NamespaceKind) -> &'static str {
    match kind {
        NamespaceKind::Mount => "mount",
        NamespaceKind::Net => "network",
        NamespaceKind::Ipc => "IPC",
        NamespaceKind::Uts => "UTS",
        NamespaceKind::Pid => "PID",
        NamespaceKind::User => "user",
        NamespaceKind::Cgroup => "cgroup",
        NamespaceKind::Time => "time",
    }
}

/// A step, or what its number stands for.
pub(super) fn number(found: Option<Step<'_>>, index: u32) -> String {
    const _: () = assert!(STEP_BEFORE == LaunchFailure::CLONE);
    match found {
        Some(found) => step(&found),
        None if index == LaunchFailure::CLONE => {
            "make the process in its namespaces and cgroups".into()
        }
        None if index == LaunchFailure::HOOK => "run a hook of the runtime".into(),
        None if index == LaunchFailure::RUNTIME => "run the OCI runtime".into(),
        None => format!("perform step {index}"),
    }
}

fn step(step: &Step<'_>) -> String {
    match *step {
        Step::EnterCgroups => "enter its cgroups".into(),
        Step::AwaitStart => "wait for its start".into(),
        Step::AwaitHooks { .. } => "wait for the runtime's hooks".into(),
        Step::JoinNamespace { kind: which, .. } => format!("join the {} namespace", kind(which)),
        Step::NewNamespace { kind: which } => format!("make a {} namespace", kind(which)),
        Step::Hostname { name } => format!("set the host name to {}", text(name)),
        Step::Domainname { name } => format!("set the domain name to {}", text(name)),
        Step::NewSession => "begin a session".into(),
        Step::BecomeNamespaceRoot => "become root of the user namespace".into(),
        Step::RootPropagation { .. } => "set the propagation of the root filesystem".into(),
        Step::Root { .. } => "mount the root filesystem".into(),
        Step::MountFd { target, .. } => format!("mount at {}", text(target)),
        Step::MountOwn { source, target, .. } => {
            format!("mount the pod's {} at {}", text(source), text(target))
        }
        Step::MountNew { fstype, target, .. } => {
            format!("mount {} at {}", text(fstype), text(target))
        }
        Step::Remount { target, .. } => format!("change the mount at {}", text(target)),
        Step::Device { path, .. } => format!("make device {}", text(path)),
        Step::Symlink { target, path } => {
            format!("make link {} to {}", text(path), text(target))
        }
        Step::Console { .. } => "make the terminal".into(),
        Step::SwitchRoot => "change to the root filesystem".into(),
        Step::ReadonlyRoot => "make the root filesystem read-only".into(),
        Step::Mask { path } => format!("hide {}", text(path)),
        Step::ReadonlyPath { path } => format!("make {} read-only", text(path)),
        Step::EnsureDirectory { path, .. } => format!("make directory {}", text(path)),
        Step::Sysctl { path, value } => {
            format!("set sysctl {} to {}", text(path).replace('/', "."), text(value))
        }
        Step::OomScoreAdj { value } => format!("set oom_score_adj to {value}"),
        Step::Rlimit { resource, soft, hard } => {
            format!("set resource limit {resource} to {soft}:{hard}")
        }
        Step::Nice { value } => format!("set the nice value to {value}"),
        Step::Umask { mask } => format!("set the umask to {mask:03o}"),
        Step::Groups { .. } => "set the supplementary groups".into(),
        Step::User { uid, gid } => format!("become user {uid} of group {gid}"),
        Step::WorkingDirectory { path } => format!("change to directory {}", text(path)),
        Step::Capabilities { .. } => "set the capabilities".into(),
        Step::BoundingSet { .. } => "cut the capability bounding set".into(),
        Step::NoNewPrivileges => "set no_new_privs".into(),
        Step::Seccomp { .. } => "load the seccomp filter".into(),
        Step::ExecLabel { label, .. } => format!("set the security label {}", text(label)),
        Step::Hook { args, .. } => format!("run hook {}", first(args)),
        Step::Exec { candidates, args, .. } => {
            let command = first(args);
            if command.contains('/') || candidates.count == 0 {
                format!("execute {command}")
            } else {
                format!("execute {command} (looked up in PATH)")
            }
        }
        Step::Init => "become the init of the pod".into(),
    }
}
