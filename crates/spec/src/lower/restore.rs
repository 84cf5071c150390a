//! From an OCI spec to a plan that brings a checkpointed container back: CRIU
//! makes its processes where our launcher would make one.
//!
//! As with other OCI runtimes ([`super::delegate()`]) the plan has a mount
//! namespace of its own, with a stage on which the pod's and the host's part of
//! the container lie. The child stops there until Start; then it becomes CRIU.

use corten_kernel::launch::{FdIndex, MountAttributes, NamespaceKind, Propagation, Step};
use corten_protocol::plan::{CStrings, Delegate, Header, PlanBuilder};

use super::delegate::{ENVIRONMENT, make_stage, put};
use super::{Plan, c_text, plan_error};
use crate::error::{Error, Result};
use crate::oci::{NamespaceType, Spec};

/// The file in which CRIU leaves the number of the first process.
pub const RESTORE_PID: &str = "restore.pid";
/// What CRIU says of its work, in the container's directory.
pub const RESTORE_LOG: &str = "restore.log";

/// What a checkpointed container had from outside, and what that is now.
#[derive(Debug, Clone)]
pub struct Restore<'a> {
    /// CRIU's program.
    pub program: &'a str,
    /// Directory of the images.
    pub images: &'a str,
    /// Directory of the container, for the log and the number.
    pub bundle: &'a str,
    /// An empty directory of the host.
    pub stage: &'a str,
    /// How long CRIU may take, in milliseconds.
    pub timeout_ms: u32,
    /// How many descriptors there are.
    pub fd_count: u16,
    /// The host's mount namespace.
    pub host_mounts: FdIndex,
    /// The container's directory.
    pub directory: FdIndex,
    /// The root filesystem, a detached mount.
    pub root: FdIndex,
    /// One detached mount for each of [`super::staged_sources`].
    pub binds: &'a [FdIndex],
    /// The IPC and UTS namespaces that are joined: mounts of their files.
    pub namespaces: &'a [(NamespaceType, FdIndex)],
    /// The network namespace that it had from outside, by that name.
    pub network: Option<FdIndex>,
    /// Where mounts from outside were in the container.
    pub mounts: &'a [String],
    /// Mounts from outside that are no binds of the spec: where in the
    /// container, and the path on the host that takes their place.
    pub host_paths: &'a [(String, String)],
    /// What stdin, stdout and stderr were called.
    pub streams: &'a [(u8, String)],
}

/// The name of the network namespace in a checkpoint.
pub const NETWORK: &str = "network";

/// The plan that restores a container.
pub fn restore(spec: &Spec, input: &Restore<'_>) -> Result<Vec<u8>> {
    let pid_file = c_text("pid file", RESTORE_PID)?;
    let mut plan = Plan {
        builder: PlanBuilder::new(&Header {
            fd_count: input.fd_count,
            delegate: Some(Delegate {
                directory: input.directory,
                pid_file: &pid_file,
                console: None,
                inherit: input.network,
                timeout_ms: input.timeout_ms,
            }),
            ..Header::default()
        }),
    };
    plan.step(Step::EnterCgroups);
    plan.step(Step::JoinNamespace { fd: input.host_mounts, kind: NamespaceKind::Mount });
    plan.step(Step::NewNamespace { kind: NamespaceKind::Mount });
    // What CRIU is in, and it leaves cgroups alone, the container is in.
    plan.step(Step::NewNamespace { kind: NamespaceKind::Cgroup });
    plan.step(Step::NewSession);
    plan.step(Step::RootPropagation { propagation: Propagation::Slave });
    make_stage(&mut plan, input.stage)?;
    let none = MountAttributes::default();
    let root = format!("{}/root", input.stage);
    put(&mut plan, input.root, &root, none)?;
    for (number, fd) in input.binds.iter().enumerate() {
        put(&mut plan, *fd, &format!("{}/mount-{number}", input.stage), none)?;
    }
    let mut words = ["criu", "restore", "--restore-detached"].map(str::to_owned).to_vec();
    let mut option = |name: &str, value: String| words.push(format!("--{name}={value}"));
    option("images-dir", input.images.to_owned());
    option("work-dir", input.bundle.to_owned());
    option("log-file", RESTORE_LOG.to_owned());
    option("pidfile", format!("{}/{RESTORE_PID}", input.bundle));
    option("root", root);
    option("manage-cgroups", "ignore".to_owned());
    for (kind, fd) in input.namespaces {
        let kind = format!("{kind:?}").to_lowercase();
        let path = format!("{}/{kind}", input.stage);
        put(&mut plan, *fd, &path, none)?;
        option("join-ns", format!("{kind}:{path}"));
    }
    for target in input.mounts {
        option("external", format!("mnt[{target}]:{}", place(spec, input, target)?));
    }
    for (number, name) in input.streams {
        option("inherit-fd", format!("fd[{number}]:{name}"));
    }
    if input.network.is_some() {
        option("inherit-fd", format!("fd[3]:{NETWORK}"));
    }
    // Connections were of the pod that was: its address is another's now.
    words.extend(["--tcp-close", "--file-locks", "--ext-unix-sk"].map(str::to_owned));
    plan.step(Step::AwaitStart);
    let images = c_text("images", input.images)?;
    plan.step(Step::WorkingDirectory { path: &images });
    let candidates = CStrings::new([input.program]).map_err(plan_error)?;
    let args = CStrings::new(&words).map_err(plan_error)?;
    let env = CStrings::new(ENVIRONMENT).map_err(plan_error)?;
    plan.step(Step::Exec {
        candidates: candidates.as_list(),
        args: args.as_list(),
        env: env.as_list(),
    });
    plan.builder.finish().map_err(plan_error)
}

/// What takes the place of a mount that came from outside.
fn place(spec: &Spec, input: &Restore<'_>, target: &str) -> Result<String> {
    if let Some((_, path)) = input.host_paths.iter().find(|(known, _)| known == target) {
        return Ok(path.clone());
    }
    let below = |destination: &str| {
        let rest = target.strip_prefix(destination)?;
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    };
    let binds = spec.mounts.iter().filter(|mount| mount.is_bind()).enumerate();
    let found = binds
        .filter_map(|(number, mount)| Some((number, mount, below(&mount.destination)?)))
        .max_by_key(|(_, mount, _)| mount.destination.len());
    match found {
        Some((number, _, rest)) => Ok(format!("{}/mount-{number}{rest}", input.stage)),
        None => Err(Error::invalid(
            "checkpoint",
            target,
            "the container had a mount there, and the new one has none",
        )),
    }
}

#[cfg(test)]
mod tests {
    use corten_protocol::plan::PlanView;

    use super::*;
    use crate::fixture::Fixture;

    fn input<'a>(mounts: &'a [String]) -> Restore<'a> {
        Restore {
            program: "/usr/sbin/criu",
            images: "/images",
            bundle: "/bundle",
            stage: "/stage",
            timeout_ms: 5,
            fd_count: 9,
            host_mounts: FdIndex(1),
            directory: FdIndex(2),
            root: FdIndex(0),
            binds: &[FdIndex(3), FdIndex(4)],
            namespaces: &[(NamespaceType::Ipc, FdIndex(5))],
            network: Some(FdIndex(6)),
            mounts,
            host_paths: &[],
            streams: &[],
        }
    }

    #[test]
    fn mounts_from_outside_find_their_place_or_say_which_has_none() {
        let mut fixture = Fixture::new();
        fixture.mount("/data", "/host/data");
        let spec = fixture.spec();
        let number = spec.mounts.iter().filter(|mount| mount.is_bind());
        let number = number.into_iter().position(|mount| mount.destination == "/data").unwrap();
        let mounts = ["/data".to_owned(), "/data/below".to_owned()];
        let plan = restore(&spec, &input(&mounts)).unwrap();
        let view = PlanView::parse(&plan).unwrap();
        let delegate = view.header().delegate.unwrap();
        assert_eq!((delegate.inherit, delegate.timeout_ms), (Some(FdIndex(6)), 5));
        let steps: Vec<_> = view.steps().collect();
        assert!(matches!(steps[steps.len() - 3], Step::AwaitStart));
        let Some(Step::Exec { args, .. }) = steps.last() else { panic!("no command") };
        let words: Vec<_> = args.iter().map(|word| word.to_string_lossy()).collect();
        let words = words.join(" ");
        for part in [
            format!("--external=mnt[/data]:/stage/mount-{number} "),
            format!("--external=mnt[/data/below]:/stage/mount-{number}/below "),
            "--join-ns=ipc:/stage/ipc ".into(),
            "--inherit-fd=fd[3]:network ".into(),
        ] {
            assert!(words.contains(&part), "{part} is not in {words}");
        }
        let error = restore(&spec, &input(&["/database".to_owned()])).unwrap_err();
        assert!(error.to_string().contains("/database"), "{error}");
    }
}
