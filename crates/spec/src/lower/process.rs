//! The process section of a spec as steps.

use corten_kernel::launch::{Capabilities, Step};
use corten_protocol::plan::CStrings;

use super::{Plan, c_text, plan_error};
use crate::capabilities::{SYS_ADMIN, bits};
use crate::container::DEFAULT_PATH;
use crate::error::{Error, Result};
use crate::oci::{Process, Seccomp};
use crate::seccomp::{Arch, Filter, compile};

/// `RLIMIT_*` by number; the same on x86 and ARM.
const RLIMITS: [&str; 16] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];

pub(super) fn oom_score(plan: &mut Plan, process: &Process) {
    if let Some(value) = process.oom_score_adj {
        plan.step(Step::OomScoreAdj { value });
    }
}

pub(super) fn console(plan: &mut Plan, process: &Process) {
    if process.terminal {
        let size = process.console_size.unwrap_or_default();
        let short = |size: u32| u16::try_from(size).unwrap_or(u16::MAX);
        plan.step(Step::Console {
            uid: process.user.uid,
            rows: short(size.height),
            columns: short(size.width),
        });
    }
}

pub(super) fn ensure_directory(plan: &mut Plan, process: &Process) -> Result<()> {
    if directory(process)? != "/" {
        let path = c_text("working directory", &process.cwd)?;
        plan.step(Step::EnsureDirectory { path: &path, uid: 0, gid: 0 });
    }
    Ok(())
}

pub(super) fn working_directory(plan: &mut Plan, process: &Process) -> Result<()> {
    let path = c_text("working directory", directory(process)?)?;
    plan.step(Step::WorkingDirectory { path: &path });
    Ok(())
}

fn directory(process: &Process) -> Result<&str> {
    match process.cwd.as_str() {
        "" => Ok("/"),
        path if path.starts_with('/') => Ok(path),
        path => Err(Error::invalid("working directory", path, "it must be absolute")),
    }
}

pub(super) fn limits(plan: &mut Plan, process: &Process) -> Result<()> {
    for limit in &process.rlimits {
        let bare = limit.kind.strip_prefix("RLIMIT_").unwrap_or(&limit.kind);
        let number = RLIMITS.iter().position(|name| *name == bare).ok_or_else(|| {
            Error::invalid("resource limit", limit.kind.as_str(), "there is no such limit")
        })?;
        if limit.soft > limit.hard {
            return Err(Error::invalid(
                "resource limit",
                limit.kind.as_str(),
                "its soft limit is above its hard limit",
            ));
        }
        plan.step(Step::Rlimit { resource: number as u32, soft: limit.soft, hard: limit.hard });
    }
    if let Some(scheduler) = &process.scheduler {
        let nice_only = (scheduler.policy == "SCHED_OTHER" || scheduler.policy.is_empty())
            && scheduler.flags.is_empty()
            && scheduler.priority == 0;
        if !nice_only {
            return Err(Error::Unsupported {
                what: format!("process.scheduler {}", scheduler.policy),
                remedy: "use another runtime handler",
            });
        }
        plan.step(Step::Nice { value: scheduler.nice });
    }
    plan.step(Step::Umask { mask: process.user.umask.unwrap_or(0o022) });
    Ok(())
}

/// Everything that takes abilities away, in the order in which each can still
/// be done: the label (its file belongs to root), the bounding set (needs
/// CAP_SETPCAP), groups, user, capabilities, filter.
///
/// Without no_new_privs, loading a filter takes CAP_SYS_ADMIN. Where the
/// container's own set lacks it, the filter comes before that set, and must
/// allow `capset` and `prctl`; that is all that can be done.
pub(super) fn give_up(plan: &mut Plan, process: &Process, filter: Option<&Filter>) -> Result<()> {
    labels(plan, process)?;
    let sets = process.capabilities.as_ref().map(|sets| Capabilities {
        bounding: bits(&sets.bounding),
        effective: bits(&sets.effective),
        permitted: bits(&sets.permitted),
        inheritable: bits(&sets.inheritable),
        ambient: bits(&sets.ambient),
    });
    // A spec without sets gives none, as in other runtimes.
    let sets = sets.unwrap_or_default();
    plan.step(Step::BoundingSet { bounding: sets.bounding });
    let groups: Vec<u8> =
        process.user.additional_gids.iter().flat_map(|gid| gid.to_le_bytes()).collect();
    plan.step(Step::Groups { list: &groups });
    plan.step(Step::User { uid: process.user.uid, gid: process.user.gid });
    let last = process.no_new_privileges || sets.effective & SYS_ADMIN != 0;
    let load = |plan: &mut Plan| {
        if let Some(filter) = filter {
            plan.step(Step::Seccomp { program: &filter.program, flags: filter.flags });
        }
    };
    if !last {
        load(plan);
    }
    plan.step(Step::Capabilities { sets });
    if process.no_new_privileges {
        plan.step(Step::NoNewPrivileges);
    }
    if last {
        load(plan);
    }
    Ok(())
}

/// The filter of a profile, if our launcher can load it.
pub(super) fn compiled(seccomp: &Seccomp) -> Result<Filter> {
    let filter = compile(seccomp, Arch::NATIVE)?;
    if filter.notifies {
        return Err(Error::Unsupported {
            what: "a seccomp profile with SCMP_ACT_NOTIFY".into(),
            remedy: "use another runtime handler",
        });
    }
    Ok(filter)
}

fn labels(plan: &mut Plan, process: &Process) -> Result<()> {
    if !process.apparmor_profile.is_empty() {
        let label = c_text("AppArmor profile", &format!("exec {}", process.apparmor_profile))?;
        plan.step(Step::ExecLabel { attribute: c"apparmor/exec", label: &label });
    }
    if !process.selinux_label.is_empty() {
        let label = c_text("SELinux label", &process.selinux_label)?;
        plan.step(Step::ExecLabel { attribute: c"exec", label: &label });
    }
    Ok(())
}

pub(super) fn execute(plan: &mut Plan, process: &Process) -> Result<()> {
    let Some(program) = process.args.first().filter(|program| !program.is_empty()) else {
        return Err(Error::invalid("command", "", "there is none"));
    };
    let candidates = CStrings::new(candidates(program, process)).map_err(plan_error)?;
    let args = CStrings::new(&process.args).map_err(plan_error)?;
    let env =
        CStrings::new(process.env.iter().map(|entry| entry.as_bytes())).map_err(plan_error)?;
    plan.step(Step::Exec {
        candidates: candidates.as_list(),
        args: args.as_list(),
        env: env.as_list(),
    });
    Ok(())
}

/// Where the program may be: by its path, or in the directories of the PATH
/// that it will have itself.
fn candidates(program: &str, process: &Process) -> Vec<Vec<u8>> {
    if program.contains('/') {
        return vec![program.as_bytes().to_vec()];
    }
    let path = process.env.iter().rev().find(|entry| entry.name() == b"PATH");
    let path = path.and_then(|entry| entry.value()).unwrap_or(DEFAULT_PATH.as_bytes());
    path.split(|byte| *byte == b':')
        .map(|directory| {
            let directory = if directory.is_empty() { b"." } else { directory };
            [directory, b"/", program.as_bytes()].concat()
        })
        .collect()
}
