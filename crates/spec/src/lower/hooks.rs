//! Hooks of a spec in a plan.
//!
//! Those in the runtime's namespaces are run by the shim, in the host's mount
//! namespace. Those in the container's are steps. A createContainer hook has
//! its program on the host and works on the container's mounts, and the shim's
//! mount namespace shows neither: such a container's mount namespace begins as
//! a copy of the host's.

use corten_kernel::launch::{NamespaceKind, Step};
use corten_protocol::plan::{CStrings, Hook as PlanHook, HookPoint, PlanBuilder};

use super::{LowerInput, Plan, plan_error};
use crate::error::{Error, Result};
use crate::oci::{Hook, Linux, NamespaceType, Spec};

/// The parts of a hook, owned.
struct Parts {
    args: CStrings,
    env: CStrings,
    before: Vec<u8>,
    after: Vec<u8>,
    timeout_ms: u32,
}

/// Hooks for the shim to run.
pub(super) fn of_runtime(
    builder: &mut PlanBuilder,
    spec: &Spec,
    input: &LowerInput<'_>,
) -> Result<()> {
    let hooks = &spec.hooks;
    let moments = [
        (HookPoint::CreateRuntime, &hooks.prestart, "creating"),
        (HookPoint::CreateRuntime, &hooks.create_runtime, "creating"),
        (HookPoint::PostStart, &hooks.poststart, "running"),
        (HookPoint::PostStop, &hooks.poststop, "stopped"),
    ];
    for (point, list, status) in moments {
        for hook in list {
            let parts = parts(hook, spec, input, status)?;
            builder.hook(&PlanHook {
                point,
                args: parts.args.as_list(),
                env: parts.env.as_list(),
                state_before_pid: &parts.before,
                state_after_pid: &parts.after,
                timeout_ms: parts.timeout_ms,
            });
        }
    }
    Ok(())
}

/// Hooks as steps of the child.
pub(super) fn in_container(
    plan: &mut Plan,
    list: &[Hook],
    spec: &Spec,
    input: &LowerInput<'_>,
    status: &str,
) -> Result<()> {
    for hook in list {
        let parts = parts(hook, spec, input, status)?;
        plan.step(Step::Hook {
            args: parts.args.as_list(),
            env: parts.env.as_list(),
            state_before_pid: &parts.before,
            state_after_pid: &parts.after,
            timeout_ms: parts.timeout_ms,
        });
    }
    Ok(())
}

/// With createContainer hooks: begin from the host's mounts.
pub(super) fn enter_host_mounts(
    plan: &mut Plan,
    spec: &Spec,
    linux: &Linux,
    input: &LowerInput<'_>,
) -> Result<()> {
    if spec.hooks.create_container.is_empty() {
        return Ok(());
    }
    let own = spec
        .mounts
        .iter()
        .any(|mount| input.own_mounts.iter().any(|(host, _)| *host == mount.source));
    if linux.namespace(NamespaceType::User).is_some() || own {
        return Err(Error::Unsupported {
            what: "a createContainer hook in a pod with a user namespace or a /dev/shm of its own"
                .into(),
            remedy: "use a createRuntime or startContainer hook, or another runtime handler",
        });
    }
    let Some(fd) = input.host_mounts else {
        return Err(Error::invalid("hooks", "", "they need the host's mount namespace"));
    };
    plan.step(Step::JoinNamespace { fd, kind: NamespaceKind::Mount });
    plan.step(Step::NewNamespace { kind: NamespaceKind::Mount });
    Ok(())
}

fn parts(hook: &Hook, spec: &Spec, input: &LowerInput<'_>, status: &str) -> Result<Parts> {
    if !hook.path.starts_with('/') {
        return Err(Error::invalid("hook", hook.path.as_str(), "its path must be absolute"));
    }
    // The shim and the child execute the first word; a different argv[0] is
    // of no use to a hook.
    let args = std::iter::once(&hook.path).chain(hook.args.iter().skip(1));
    let (before, after) = state(spec, input, status);
    Ok(Parts {
        args: CStrings::new(args).map_err(plan_error)?,
        env: CStrings::new(&hook.env).map_err(plan_error)?,
        before,
        after,
        timeout_ms: hook.timeout.map_or(0, |seconds| seconds.saturating_mul(1000).max(1)),
    })
}

/// The state document, around the pid that nobody knows yet.
fn state(spec: &Spec, input: &LowerInput<'_>, status: &str) -> (Vec<u8>, Vec<u8>) {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let before = format!(
        "{{\"ociVersion\":{},\"id\":{},\"status\":{},\"pid\":",
        text(&spec.oci_version),
        text(input.id),
        text(status)
    );
    // A map of texts can always be written.
    let annotations = serde_json::to_string(&spec.annotations).unwrap_or_default();
    let after = format!(",\"bundle\":{},\"annotations\":{annotations}}}", text(input.bundle));
    (before.into_bytes(), after.into_bytes())
}
