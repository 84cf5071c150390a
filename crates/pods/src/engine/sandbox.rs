//! Making a sandbox: namespaces, then its network beside its shim.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use corten_base::{Namespace, SandboxId};
use corten_protocol::frame::{PodNamespaces, Reply, Request};
use corten_spec::request::{NamespaceMode, SandboxConfig};
use tokio::sync::watch;

use super::namespaces::Namespaces;
use super::{Inner, blocking, realtime_ns};
use crate::error::{Error, Kind, Result};
use crate::record::SandboxRecord;
use crate::shim::{Shim, Started};
use crate::state::{Next, SandboxEvent, SandboxState};
use crate::stats::CpuRate;
use crate::table::{Claim, Made, Sandbox};

impl Inner {
    /// Makes a sandbox, or joins the work on one with the same metadata.
    pub(super) async fn run_sandbox(
        self: &Arc<Self>,
        namespace: &Namespace,
        config: SandboxConfig,
    ) -> Result<Arc<Sandbox>> {
        self.runtimes.usable(&config.runtime_handler)?;
        let sandbox = Arc::new(self.new_sandbox(namespace, config)?);
        match self.claim_sandbox(&sandbox).await? {
            Claim::New => {
                let inner = self.clone();
                let made = sandbox.clone();
                // An own task: the work goes on when the client leaves, and a
                // retry with the same metadata finds it.
                tokio::spawn(async move { inner.make_sandbox(&made).await });
                wait_made(&sandbox.made).await?;
                Ok(sandbox)
            }
            Claim::Taken(there) => {
                wait_made(&there.made).await?;
                let state = there.record.borrow().state;
                if state == SandboxState::Ready && !there.config.solo {
                    return Ok(there);
                }
                Err(taken(&there))
            }
        }
    }

    /// Takes the name; what is left of an attempt that failed, or of one that
    /// an earlier daemon did not finish, goes first.
    async fn claim_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<Claim<Sandbox>> {
        loop {
            match self.table.claim_sandbox(sandbox) {
                Claim::Taken(there) if failed(&there.made) => {
                    self.remove_sandbox(&there).await.map_err(|error| {
                        error.during("unable to take back what is left of an attempt that failed")
                    })?;
                }
                Claim::Taken(there) if there.orphaned && under_way(&there.made) => {
                    let _ = wait_made(&there.made).await;
                }
                claim => return Ok(claim),
            }
        }
    }

    fn new_sandbox(&self, namespace: &Namespace, config: SandboxConfig) -> Result<Sandbox> {
        let id = SandboxId::from_random(corten_kernel::random::bytes());
        let place = self.config.cgroup_driver.place(
            &self.config.cgroup_root,
            &config.cgroup_parent,
            &id,
        )?;
        let config = Arc::new(config);
        let record = SandboxRecord {
            id: id.clone(),
            namespace: namespace.clone(),
            config: config.clone(),
            state: SandboxState::Starting,
            created_at_ns: realtime_ns(),
            boot_id: self.boot_id.clone(),
            shim_pid: None,
            cgroup: place.cgroup,
            owns_cgroup: place.owned,
            scope: place.scope,
            network_intended: false,
            attachment: None,
            netns: None,
            selinux_level: String::new(),
            resources: config.resources.clone(),
            overhead: config.overhead.clone(),
        };
        Ok(Sandbox {
            id,
            namespace: namespace.clone(),
            config,
            record: watch::Sender::new(record),
            saving: Mutex::new(()),
            made: watch::Sender::new(None),
            orphaned: false,
            shim: watch::Sender::new(None),
            cpu: CpuRate::default(),
            teardown: tokio::sync::Mutex::new(()),
        })
    }

    async fn make_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        let outcome = match self.build_sandbox(sandbox).await {
            Ok(()) => self.move_sandbox(sandbox, SandboxEvent::Started).map(|_| ()),
            Err(error) => Err(error),
        };
        let Err(error) = outcome else {
            sandbox.made.send_replace(Some(Ok(())));
            return;
        };
        match self.move_sandbox(sandbox, SandboxEvent::StartFailed) {
            Ok(Next::Undo) => self.undo_sandbox(sandbox).await,
            Ok(_) => {}
            Err(error) => {
                tracing::error!(sandbox = %sandbox.id, %error, "unable to record a failure")
            }
        }
        let error = error.during(format!("unable to run sandbox {:?}", sandbox.config.name));
        sandbox.made.send_replace(Some(Err(error)));
    }

    async fn build_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        self.journal.make_sandbox_dir(&sandbox.id)?;
        let host_network = sandbox.config.namespaces.network == NamespaceMode::Node;
        let networked = !host_network && !sandbox.config.network_isolated;
        let selinux_level = self.choose_level(sandbox)?;
        self.change_sandbox(sandbox, |record| {
            record.selinux_level = selinux_level;
            record.network_intended = networked;
            record.netns = (!host_network).then(|| self.namespaces.path(&sandbox.id));
        })?;
        // The shim first: what takes longest is that its program begins.
        let (shim, namespaces) =
            tokio::join!(biased; self.start_shim(sandbox), self.make_namespaces(sandbox));
        let (shim, namespaces) = (shim?, Arc::new(namespaces?));
        let network = async { if networked { self.attach_network(sandbox).await } else { Ok(()) } };
        let shim = self.prepare_shim(sandbox, &shim, &namespaces);
        let files = self.write_sandbox_files(sandbox);
        let (shim, network, files) = tokio::join!(biased; shim, network, files);
        network?;
        files?;
        let shim = shim?;
        self.limit_sandbox(sandbox).await?;
        if sandbox.config.namespaces.pid == NamespaceMode::Pod {
            self.start_pod_init(sandbox, &shim).await?;
        }
        sandbox.shim.send_replace(Some(shim.clone()));
        // From here on its death is noticed; before, it went unheard.
        shim.check_alive()
    }

    /// Asks the network for addresses. What plugins answer is in the record
    /// before anything else happens, since only with it can they be given back;
    /// the bridge finds what it gave by the sandbox.
    async fn attach_network(&self, sandbox: &Sandbox) -> Result<()> {
        let request = self.network_request(sandbox)?;
        let attach = async {
            let attached = self.network_of(sandbox).attach(&request).await;
            attached.map_err(|error| Error::new(Kind::Unavailable, error.to_string()))
        };
        let attachment = self.meters.attach.of(attach).await?;
        sandbox.record.send_modify(|record| record.attachment = Some(attachment));
        if self.uses_cni(sandbox) { self.journal.save_sandbox(sandbox) } else { Ok(()) }
    }

    /// Starts the shim. Its pid is written down with what comes next; a daemon
    /// that starts before that looks for a shim of this sandbox anyhow.
    async fn start_shim(&self, sandbox: &Sandbox) -> Result<Started> {
        let dir = self.journal.sandbox_dir(&sandbox.id);
        let own_group = sandbox.record.borrow().scope.is_none();
        let started = self.shims.start(&sandbox.id, &dir, own_group).await?;
        sandbox.record.send_modify(|record| record.shim_pid = Some(started.pid));
        Ok(started)
    }

    /// Hands the pod's namespaces to the shim, and settles them.
    async fn prepare_shim(
        self: &Arc<Self>,
        sandbox: &Sandbox,
        started: &Started,
        namespaces: &Arc<Namespaces>,
    ) -> Result<Shim> {
        let settle = {
            let (inner, namespaces) = (self.clone(), namespaces.clone());
            let config = sandbox.config.clone();
            blocking(move || namespaces.settle(&config, &inner.node.policy, &inner.sysctls))
        };
        let handed = self.hand_namespaces(sandbox, started, namespaces);
        let scope = self.start_scope(sandbox, started.pid);
        let (shim, scope, settled) = tokio::join!(biased; handed, scope, settle);
        let shim = shim.map_err(|error| started.explain(error))?;
        scope?;
        settled?;
        Ok(shim)
    }

    /// All of it is said at once, while the shim's program is being loaded.
    async fn hand_namespaces(
        &self,
        sandbox: &Sandbox,
        started: &Started,
        namespaces: &Namespaces,
    ) -> Result<Shim> {
        let (flags, fds) = namespaces.for_frame();
        let root = namespaces.root_ids;
        let request = Request::Sandbox {
            namespaces: flags,
            shm_bytes: self.shm_bytes(&sandbox.config),
            shm_uid: root.0,
            shm_gid: root.1,
            shm_label: self.shared_label(sandbox),
        };
        let shim = Shim::open(&sandbox.id, &started.socket, self.news.clone())?;
        let (greeted, taken) = tokio::join!(biased; shim.greet(), shim.call(&request, &fds));
        greeted?;
        expect_done("hand over the namespaces", taken?.0)?;
        Ok(shim)
    }

    fn shm_bytes(&self, config: &SandboxConfig) -> u64 {
        const SHM_BYTES: u64 = 64 << 20;
        if config.namespaces.ipc == NamespaceMode::Node { 0 } else { SHM_BYTES }
    }

    /// The files that containers of the pod see in /etc.
    async fn write_sandbox_files(&self, sandbox: &Sandbox) -> Result<()> {
        let dir = self.journal.sandbox_dir(&sandbox.id);
        let config = sandbox.config.clone();
        let label = self.shared_label(sandbox);
        blocking(move || super::files::write(&dir, &config, &label)).await
    }

    /// Applies an event to a sandbox, and writes the new state down before
    /// anybody acts on it.
    pub(super) fn move_sandbox(
        &self,
        sandbox: &Sandbox,
        event: SandboxEvent,
    ) -> Result<Next<SandboxState>> {
        let mut next = Next::Stay;
        let mut before = SandboxState::Starting;
        sandbox.record.send_modify(|record| {
            before = record.state;
            next = record.state.on(event);
            if let Next::Go(state) = next {
                record.state = state;
            }
        });
        if let Next::Go(after) = next {
            let saved = self.journal.save_sandbox(sandbox);
            self.tell_sandbox_move(sandbox, before, after);
            saved?;
        }
        Ok(next)
    }

    /// Changes a sandbox's record, and writes it down.
    pub(super) fn change_sandbox(
        &self,
        sandbox: &Sandbox,
        change: impl FnOnce(&mut SandboxRecord),
    ) -> Result<()> {
        sandbox.record.send_modify(change);
        self.journal.save_sandbox(sandbox)
    }
}

impl Namespaces {
    /// Which namespaces there are, and their descriptors, as a frame has them.
    fn for_frame(&self) -> (PodNamespaces, Vec<BorrowedFd<'_>>) {
        let all = [&self.user, &self.net, &self.ipc, &self.uts];
        let flags = PodNamespaces {
            user: self.user.is_some(),
            net: self.net.is_some(),
            ipc: self.ipc.is_some(),
            uts: self.uts.is_some(),
        };
        (flags, all.into_iter().flatten().map(|fd| fd.as_fd()).collect())
    }
}

/// Waits until something was made, and says how that ended.
pub(super) async fn wait_made(made: &Made) -> Result<()> {
    let mut made = made.subscribe();
    match made.wait_for(Option::is_some).await {
        Ok(outcome) => outcome.clone().unwrap_or(Ok(())),
        Err(_) => Err(Error::internal("the work was given up")),
    }
}

/// Whether making it has failed already.
pub(super) fn failed(made: &Made) -> bool {
    made.borrow().as_ref().is_some_and(Result::is_err)
}

/// Whether making it, or taking it back, goes on.
pub(super) fn under_way(made: &Made) -> bool {
    made.borrow().is_none()
}

/// A reply that must be `Done`.
pub(super) fn expect_done(doing: &str, reply: Reply) -> Result<()> {
    match reply {
        Reply::Done => Ok(()),
        other => Err(Error::internal(format!("unable to {doing}: the shim answered {other:?}"))),
    }
}

fn taken(there: &Sandbox) -> Error {
    let name = &there.config.name;
    let id = there.id.short();
    let state = match there.record.borrow().state {
        SandboxState::Starting => "being made",
        SandboxState::Ready => "ready",
        SandboxState::Stopping => "being stopped",
        SandboxState::Stopped => "stopped",
        SandboxState::Removing => "being removed",
    };
    let message = if there.config.solo {
        format!(
            "the name {name:?} is in use by container {id}: remove it first (corten rm {name}), or choose another name"
        )
    } else {
        format!(
            "sandbox {name:?} exists already as {id}, which is {state}: remove it, or ask with another attempt"
        )
    };
    Error::new(Kind::AlreadyExists, message)
}

/// The path of a sandbox's shim socket.
pub(super) fn shim_socket(dir: &std::path::Path) -> PathBuf {
    dir.join("shim.sock")
}
