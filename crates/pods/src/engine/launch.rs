//! What the engine and a shim say to each other about launches.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use corten_kernel::memfd;
use corten_protocol::frame::{LaunchFailure, Refusal, Reply, Request};
use corten_protocol::plan::PlanView;

use corten_spec::lower::CREATE;

use super::events::START_ERROR;
use super::{Inner, LAUNCH_TIMEOUT};
use crate::error::{Error, Kind, Result};
use crate::state::{ContainerEvent, ContainerState, Next};
use crate::table::Container;

/// A plan, ready to be handed to a shim.
pub(super) struct Plan {
    /// The bytes, to explain failures with.
    pub bytes: Arc<Vec<u8>>,
    /// The same bytes, sealed.
    pub memfd: OwnedFd,
    /// What the steps refer to.
    pub fds: Vec<OwnedFd>,
    /// Whether the container's groups are to follow, a mount of each.
    pub shows_cgroups: bool,
}

impl Plan {
    /// Seals a plan.
    pub fn seal(bytes: Vec<u8>, fds: Vec<OwnedFd>) -> Result<Self> {
        let memfd = memfd::sealed("corten-plan", &bytes)?;
        Ok(Self { bytes: Arc::new(bytes), memfd, fds, shows_cgroups: false })
    }
}

impl Inner {
    /// Lets a created container run.
    pub(super) async fn start_container(
        self: &Arc<Self>,
        container: &Arc<Container>,
    ) -> Result<()> {
        super::sandbox::wait_made(&container.made).await?;
        let _turn = container.operation.lock().await;
        let id = container.id.short().to_owned();
        let state = container.record.borrow().state;
        if state == ContainerState::Exited && container.sandbox.config.solo {
            self.revive_solo(container).await?;
        }
        match self.move_container(container, ContainerEvent::StartAsked, |_| {})? {
            Next::Go(_) | Next::Stay | Next::Undo => {}
            Next::Refuse(why) => {
                let record = container.record.borrow();
                // Its launch failed between Create and Start: say how.
                if record.reason == START_ERROR {
                    return Err(start_failed(&id, &record.message));
                }
                return Err(Error::precondition(format!("unable to start container {id}: {why}")));
            }
        }
        let shim = self.shim_of(container).await?;
        let request = Request::Start { container: container.id.clone() };
        let (reply, _) = shim.call_within(&request, &[], LAUNCH_TIMEOUT).await?;
        match reply {
            Reply::Running { pid, at_ns } => {
                self.container_runs(container, pid, at_ns)?;
                container.forget_plan();
                if container.config.restore_from.is_some() {
                    self.name_pod_again(container).await?;
                }
                Ok(())
            }
            Reply::Refused(Refusal::Launch(failure)) => {
                self.launch_failed(container, failure);
                Err(start_failed(&id, &self.failure_text(container, failure)))
            }
            other => Err(Error::internal(format!("unable to start container {id}: {other:?}"))),
        }
    }

    /// Why a launch failed, as a sentence.
    pub(super) fn failure_text(&self, container: &Container, failure: LaunchFailure) -> String {
        if failure.step == LaunchFailure::RUNTIME {
            if container.config.restore_from.is_some() {
                return self.restore_failure(container, failure);
            }
            return self.runtime_failure(container, CREATE, failure);
        }
        match container.plan() {
            Some(plan) => failure_text(&plan, failure),
            None => failure_text(&[], failure),
        }
    }

    /// What a step of a container's plan does.
    pub(super) fn step_text(&self, container: &Container, step: u32) -> String {
        let plan = container.plan().unwrap_or_default();
        step_text(&plan, step)
    }
}

impl Container {
    /// The plan, while its launch may fail.
    pub(super) fn plan(&self) -> Option<Arc<Vec<u8>>> {
        self.plan.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Keeps the plan until its launch can no longer fail.
    pub(super) fn keep_plan(&self, plan: Arc<Vec<u8>>) {
        *self.plan.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(plan);
    }

    /// The launch is over.
    pub(super) fn forget_plan(&self) {
        *self.plan.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
    }
}

fn start_failed(id: &str, why: &str) -> Error {
    Error::new(Kind::Internal, format!("unable to start container {id}: {why}"))
}

/// Why a launch by this plan failed.
pub(super) fn failure_text(plan: &[u8], failure: LaunchFailure) -> String {
    let step = step_text(plan, failure.step);
    if failure.step == LaunchFailure::HOOK {
        return format!("{step}: it ended with status {}", failure.errno);
    }
    let errno = std::io::Error::from_raw_os_error(failure.errno);
    format!("unable to {step}: {errno}")
}

fn step_text(plan: &[u8], step: u32) -> String {
    match PlanView::parse(plan) {
        Ok(plan) => plan.describe_step(step),
        // The daemon was restarted since, and the plan is the shim's alone.
        Err(_) => format!("carry out step {step} of its launch"),
    }
}
