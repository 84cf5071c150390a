//! Making a container: root filesystem, user, OCI spec, plan, cgroup, log; then
//! all of that goes to the shim in one frame.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, mpsc};

use corten_base::ContainerId;
use corten_image::Image;
use corten_kernel::cgroup;
use corten_protocol::frame::{CgroupFds, Refusal, Reply, Request, Stdio};
use corten_spec::request::ContainerConfig;
use tokio::sync::watch;

use super::launch::Plan;
use super::prepare::{PREPARE_TIMEOUT, Prepared};
use super::sandbox::{failed, under_way, wait_made};
use super::{Inner, blocking, realtime_ns};
use crate::error::{Error, Kind, Result};
use crate::record::ContainerRecord;
use crate::state::{ContainerEvent, ContainerState, SandboxState};
use crate::stats::CpuRate;
use crate::table::{Claim, Container, Sandbox};
use crate::view::ProcessUser;

/// The log of a container without one.
const NOWHERE: &str = "/dev/null";

impl Inner {
    /// Makes a container, or joins the work on one with the same metadata.
    pub(super) async fn create_container(
        self: &Arc<Self>,
        sandbox: &Arc<Sandbox>,
        config: ContainerConfig,
    ) -> Result<Arc<Container>> {
        check_ready(sandbox)?;
        let image = self.image(sandbox, &config)?;
        let container = Arc::new(self.new_container(sandbox, config, &image)?);
        match self.claim_container(&container).await? {
            Claim::New => {
                // A stop that began meanwhile has not seen this container.
                if let Err(error) = check_ready(sandbox) {
                    self.table.forget_container(&container);
                    container.made.send_replace(Some(Err(error.clone())));
                    return Err(error);
                }
                let inner = self.clone();
                let made = container.clone();
                tokio::spawn(async move { inner.make_container(&made, &image).await });
                wait_made(&container.made).await?;
                Ok(container)
            }
            Claim::Taken(there) => {
                wait_made(&there.made).await?;
                let state = there.record.borrow().state;
                // A retry of the same request finds its container as it left it.
                if state == ContainerState::Created {
                    return Ok(there);
                }
                Err(taken(&there))
            }
        }
    }

    /// Takes the name; what is left of an attempt that failed, or of one that
    /// an earlier daemon did not finish, goes first.
    async fn claim_container(
        self: &Arc<Self>,
        container: &Arc<Container>,
    ) -> Result<Claim<Container>> {
        loop {
            match self.table.claim_container(container) {
                Claim::Taken(there) if failed(&there.made) => {
                    self.remove_container(&there).await.map_err(|error| {
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

    fn image(&self, sandbox: &Sandbox, config: &ContainerConfig) -> Result<Arc<Image>> {
        self.images.find(&sandbox.namespace, &config.image).ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                format!("image {:?} is not on this node: pull it first", config.image),
            )
        })
    }

    fn new_container(
        &self,
        sandbox: &Arc<Sandbox>,
        config: ContainerConfig,
        image: &Image,
    ) -> Result<Container> {
        let id = ContainerId::from_random(corten_kernel::random::bytes());
        let log_path = self.log_path(sandbox, &config)?;
        let volumes = self.find_volumes(&sandbox.namespace, &config)?;
        let config = Arc::new(config);
        let stop_signal =
            corten_spec::signal::stop_signal(config.stop_signal, &image.config.stop_signal);
        let record = ContainerRecord {
            id: id.clone(),
            sandbox: sandbox.id.clone(),
            namespace: sandbox.namespace.clone(),
            config: config.clone(),
            state: ContainerState::Creating,
            created_at_ns: realtime_ns(),
            started_at_ns: 0,
            finished_at_ns: 0,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image_id: image.id,
            image_ref: image
                .digests
                .first()
                .map_or_else(|| image.id.to_string(), |digest| digest.to_string()),
            layers: image.layers.clone(),
            volumes,
            cgroup: format!("{}/{id}", sandbox.record.borrow().cgroup),
            log_path,
            resources: config.resources.clone(),
            user: ProcessUser::default(),
            stop_signal,
            pid: None,
        };
        Ok(Container {
            id,
            sandbox: sandbox.clone(),
            config,
            record: watch::Sender::new(record),
            saving: Mutex::new(()),
            made: watch::Sender::new(None),
            orphaned: false,
            cpu: CpuRate::default(),
            operation: tokio::sync::Mutex::new(()),
            runtime: tokio::sync::Mutex::new(()),
            plan: Mutex::new(None),
        })
    }

    async fn make_container(self: &Arc<Self>, container: &Arc<Container>, image: &Arc<Image>) {
        let outcome = match self.build_container(container, image).await {
            Ok(()) => {
                self.move_container(container, ContainerEvent::HandedOver, |_| {}).map(|_| ())
            }
            Err(error) => Err(error),
        };
        let Err(error) = outcome else {
            container.made.send_replace(Some(Ok(())));
            return;
        };
        // It may have ended since, if its launch failed: that is undone as well.
        let _ = self.move_container(container, ContainerEvent::CreateFailed, |_| {});
        self.undo_container(container).await;
        let error = error.during(format!("unable to create container {:?}", container.config.name));
        container.made.send_replace(Some(Err(error)));
    }

    async fn build_container(
        self: &Arc<Self>,
        container: &Arc<Container>,
        image: &Arc<Image>,
    ) -> Result<()> {
        self.journal.make_container_dir(&container.sandbox.id, &container.id)?;
        self.journal.save_container(container)?;
        self.hand_over(container, image).await
    }

    /// Prepares everything and gives it to the shim. Also what a solo
    /// container that is started again goes through.
    pub(super) async fn hand_over(
        self: &Arc<Self>,
        container: &Arc<Container>,
        image: &Arc<Image>,
    ) -> Result<()> {
        let shim = self.shim_of(container).await?;
        // The group is made while the spec is, and gets its limits from there.
        let (found, limits) = mpsc::channel();
        let (prepared, log, group) = tokio::join!(
            self.prepare(container, image, found),
            self.open_log(container),
            self.make_cgroup(container, limits)
        );
        let Prepared { plan, user } = prepared?;
        let (log, (entry, groups)) = (log?, group?);
        container.keep_plan(plan.bytes.clone());
        container.record.send_modify(|record| record.user = user);
        let config = &container.config;
        let request = Request::Create {
            container: container.id.clone(),
            stdio: Stdio {
                terminal: config.tty,
                stdin: config.stdin,
                stdin_once: config.stdin_once,
                log: true,
                hand_over: false,
            },
            cgroup: CgroupFds {
                into: entry.into.is_some(),
                kill: entry.kill.is_some(),
                tasks: entry.tasks.len() as u8,
                oom: entry.oom.is_some(),
            },
        };
        let Plan { memfd, fds: plan_fds, shows_cgroups, .. } = plan;
        let mut fds = vec![memfd.as_fd()];
        fds.push(log.as_fd());
        let of_cgroup = entry.into.iter().chain(&entry.kill).chain(&entry.tasks).chain(&entry.oom);
        fds.extend(of_cgroup.map(AsFd::as_fd));
        let groups = groups.iter().filter(|_| shows_cgroups);
        fds.extend(plan_fds.iter().chain(groups).map(AsFd::as_fd));
        match shim.call(&request, &fds).await?.0 {
            Reply::Done => {
                if self.oci_runtime(container)?.is_none() {
                    let group = self.cgroups.open(&container.record.borrow().cgroup)?;
                    self.gates.keep(&container.id, cgroup::Gate::of_entry(&group, entry));
                }
                Ok(())
            }
            Reply::Refused(Refusal::Full) => Err(Error::new(
                Kind::ResourceExhausted,
                "the pod has as many containers as its shim can hold",
            )),
            other => Err(Error::internal(format!("the shim refused the container: {other:?}"))),
        }
    }

    /// Where nobody wants a log, its output is read nevertheless, since clients
    /// may attach to it, and goes nowhere.
    async fn open_log(&self, container: &Container) -> Result<std::fs::File> {
        let path = container.record.borrow().log_path.clone();
        let path = if path.is_empty() { NOWHERE } else { &path };
        super::logs::open(path.into()).await
    }

    /// Makes the container's cgroup, and sets the limits as soon as they are
    /// known. With it what the container sees of its v1 groups.
    async fn make_cgroup(
        &self,
        container: &Container,
        limits: mpsc::Receiver<cgroup::Resources>,
    ) -> Result<(cgroup::Entry, Vec<OwnedFd>)> {
        let restored = container.config.restore_from.is_some();
        let delegated = self.oci_runtime(container)?.is_some() && !restored;
        let cgroups = self.cgroups.clone();
        let path = container.record.borrow().cgroup.clone();
        blocking(move || {
            let group = cgroups.create(&path, &cgroup::Resources::default())?;
            let limits = limits
                .recv_timeout(PREPARE_TIMEOUT)
                .map_err(|_| Error::internal("its limits were not found out"))?;
            group.set(&limits)?;
            let entry = group.entry()?;
            // An OCI runtime enters with what it makes, and not before.
            Ok(if delegated {
                (cgroup::Entry { into: None, tasks: Vec::new(), ..entry }, Vec::new())
            } else {
                (entry, group.mounts()?)
            })
        })
        .await
    }
}

fn check_ready(sandbox: &Sandbox) -> Result<()> {
    let state = sandbox.record.borrow().state;
    if state == SandboxState::Ready {
        return Ok(());
    }
    Err(Error::precondition(format!(
        "unable to create a container in sandbox {}: it is not ready",
        sandbox.id.short()
    )))
}

fn taken(there: &Container) -> Error {
    let state = there.record.borrow().state;
    Error::new(
        Kind::AlreadyExists,
        format!(
            "container {:?} exists already in its pod as {} ({state:?}): remove it, or ask with another attempt",
            there.config.name,
            there.id.short()
        ),
    )
}
