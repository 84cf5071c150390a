//! What is not as it should be: what the kernel lacks, and what is left over
//! and belongs to no record.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use corten_base::SandboxId;

use super::{Engine, Inner, blocking};
use crate::error::Result;
use crate::view::{Finding, Gravity};

/// The descriptor that every shim has of its file of exits.
const EXITS_FD: i32 = 4;
/// `CAP_SYS_RESOURCE`
const SYS_RESOURCE: u64 = 1 << 24;

/// What newer kernels have: since when, what, and what is done without it.
const FEATURES: [((u32, u32), &str, &str); 4] = [
    ((5, 19), "idmapped overlays", "pods with a user namespace need it"),
    ((6, 5), "layers by descriptor", "many layers are named by paths, up to a page of them"),
    ((6, 12), "mounts of image files", "layers are directories"),
    ((6, 14), "files filled when they are read", "images are fetched whole"),
];

impl Engine {
    /// Everything that is not as it should be, the worst first.
    pub async fn findings(&self) -> Result<Vec<Finding>> {
        let inner = self.inner.clone();
        let mut findings = blocking(move || {
            let mut findings = kernel(&inner);
            findings.extend(handlers(&inner));
            findings.extend(left_over(&inner));
            Ok(findings)
        })
        .await?;
        let status = self.status();
        if let Some(text) = status.runtime_problem {
            findings.push(Finding::new(Gravity::Error, "runtime", text, ""));
        }
        if let Some(text) = status.network_problem {
            findings.push(Finding::new(
                Gravity::Warning,
                "pod network",
                text,
                "only pods of the kubelet need it: install a network add-on, or set network.cri = \
                 \"builtin\"",
            ));
        }
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.gravity));
        Ok(findings)
    }
}

fn kernel(inner: &Inner) -> Vec<Finding> {
    let mut findings = Vec::new();
    let version = inner.node.policy.kernel;
    if version < (5, 15) {
        let text = format!("Linux {}.{} is older than what Corten needs", version.0, version.1);
        findings.push(Finding::new(Gravity::Error, "kernel", text, "run Linux 5.15 or newer"));
    }
    for (since, what, without) in FEATURES {
        if version < since {
            let text = format!("there are no {what}, so that {without}");
            let advice = format!("Linux {}.{} has them", since.0, since.1);
            findings.push(Finding::new(Gravity::Hint, "kernel", text, &advice));
        }
    }
    if !inner.cgroups.is_unified() {
        findings.push(Finding::new(
            Gravity::Hint,
            "cgroups",
            "limits are set by cgroup v1: starting a container waits for the kernel, and some \
             limits of v2 do not exist"
                .to_owned(),
            "boot with systemd.unified_cgroup_hierarchy=1, or without an option that asks for v1",
        ));
    }
    if inner.node.policy.machine_capabilities & SYS_RESOURCE == 0 {
        findings.push(Finding::new(
            Gravity::Warning,
            "capabilities",
            "the daemon has no CAP_SYS_RESOURCE: it cannot raise limits, nor protect shims when \
             memory is short"
                .to_owned(),
            "let the service manager give it all capabilities",
        ));
    }
    findings
}

fn handlers(inner: &Inner) -> Vec<Finding> {
    let missing = inner.config.runtimes.iter().filter_map(|handler| {
        let path = handler.path.as_ref()?;
        (!path.is_file()).then(|| {
            Finding::new(
                Gravity::Warning,
                "runtime handler",
                format!("{:?} names {}, which is not there", handler.name, path.display()),
                "install it, or take it out of the configuration",
            )
        })
    });
    missing.collect()
}

/// What no record owns. A daemon that starts takes such things away; what is
/// here now appeared since, or could not be taken away.
fn left_over(inner: &Arc<Inner>) -> Vec<Finding> {
    let state = &inner.config.state_dir;
    let unknown =
        |name: &str| name.parse::<SandboxId>().is_ok_and(|id| inner.table.sandbox(&id).is_none());
    let mut found = Vec::new();
    for (what, directory) in
        [("network namespace", state.join("netns")), ("sandbox directory", state.join("sandboxes"))]
    {
        let names = names_in(&directory).into_iter().filter(|name| unknown(name));
        found.extend(names.map(|name| (what, directory.join(name).display().to_string())));
    }
    let root = inner.config.cgroup_root.trim_start_matches('/');
    for base in cgroup_mounts() {
        let directory = base.join(root);
        let names = names_in(&directory).into_iter().filter(|name| unknown(name));
        found.extend(names.map(|name| ("cgroup", directory.join(name).display().to_string())));
    }
    for (pid, id) in shims(state) {
        if unknown(&id) {
            found.push(("shim", format!("process {pid}, of sandbox {id}")));
        }
    }
    let finding = |(what, which): (&str, String)| {
        Finding::new(
            Gravity::Warning,
            "left over",
            format!("a {what} belongs to no pod: {which}"),
            "restart cortend, which takes away what belongs to nobody; pods do not notice",
        )
    };
    found.into_iter().map(finding).collect()
}

fn names_in(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// Where cgroup hierarchies are mounted.
fn cgroup_mounts() -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounts = text.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (point, kind) = (fields.nth(1)?, fields.next()?);
        kind.starts_with("cgroup").then(|| PathBuf::from(point))
    });
    mounts.collect()
}

/// The shims that write their exits below our state directory: pid and sandbox.
fn shims(state: &Path) -> Vec<(i32, String)> {
    let of = |name: String| {
        let pid: i32 = name.parse().ok()?;
        let exits = std::fs::read_link(format!("/proc/{pid}/fd/{EXITS_FD}")).ok()?;
        let directory = exits.strip_prefix(state.join("sandboxes")).ok()?;
        if exits.file_name()? != "exits" {
            return None;
        }
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        if !line.starts_with(b"corten-shim\0") {
            return None;
        }
        Some((pid, directory.iter().next()?.to_str()?.to_owned()))
    };
    names_in(Path::new("/proc")).into_iter().filter_map(of).collect()
}
