//! What shims report, applied in the order in which it comes.

use std::sync::Arc;

use corten_base::SandboxId;
use corten_protocol::frame::{Event, Exit, LaunchFailure, Phase, Target};
use tokio::sync::mpsc;

use super::Inner;
use crate::error::Result;
use crate::events::EventKind;
use crate::record::ContainerRecord;
use crate::shim::ShimNews;
use crate::state::{ContainerEvent, Next, SandboxEvent};
use crate::table::{Container, Sandbox};

/// The exit code of a command that could not be started, as peers report it.
const START_ERROR_CODE: i32 = 128;
/// The exit code of a container of which nobody knows how it ended.
pub(super) const LOST_CODE: i32 = 255;

/// The word for a container that could not be started.
pub(super) const START_ERROR: &str = "StartError";

/// The word for a container that the kernel killed for want of memory.
pub(super) const OOM_KILLED: &str = "OOMKilled";

impl Inner {
    /// Applies news until the engine goes.
    pub(super) async fn follow_shims(
        self: Arc<Self>,
        mut news: mpsc::UnboundedReceiver<(SandboxId, ShimNews)>,
    ) {
        while let Some((sandbox, news)) = news.recv().await {
            let Some(sandbox) = self.table.sandbox(&sandbox) else { continue };
            match news {
                ShimNews::Event(event) => self.apply(&sandbox, event),
                ShimNews::Gone => self.shim_gone(&sandbox),
            }
        }
    }

    fn apply(self: &Arc<Self>, sandbox: &Arc<Sandbox>, event: Event) {
        match event {
            Event::Present { target, phase, pid, started_ns, exit, failure } => {
                let Some(container) = self.init_of(&target) else { return };
                self.apply_present(&container, phase, pid, started_ns, exit, failure);
            }
            Event::Exited { target, exit } => {
                let Some(container) = self.init_of(&target) else { return };
                self.container_ended(&container, exit);
            }
            Event::Failed { target, failure } => {
                let Some(container) = self.init_of(&target) else { return };
                self.launch_failed(&container, failure);
            }
            // That the command can be started is asked for with Start.
            Event::Created { .. } => {}
            Event::OutOfMemory { container } => {
                tracing::warn!(%container, "the kernel killed a process for want of memory");
                self.meters.out_of_memory.count();
                if let Some(container) = self.table.container(&container) {
                    self.tell_container(&container, EventKind::OutOfMemory);
                }
            }
            Event::Warning { target, step, errno } => {
                let step = self.init_of(&target).map_or_else(
                    || format!("step {step}"),
                    |container| self.step_text(&container, step),
                );
                let errno = std::io::Error::from_raw_os_error(errno);
                tracing::warn!(container = %target.container, "{step} was done only in part: {errno}");
            }
            Event::LogBroken { container, errno } => {
                let errno = std::io::Error::from_raw_os_error(errno);
                tracing::error!(%container, "the log cannot be written, output is lost: {errno}");
            }
        }
        let _ = sandbox;
    }

    /// The container whose first process `target` is. (Execs are delivered to
    /// those who run them.)
    fn init_of(&self, target: &Target) -> Option<Arc<Container>> {
        if target.exec.is_some() {
            return None;
        }
        self.table.container(&target.container)
    }

    fn apply_present(
        self: &Arc<Self>,
        container: &Arc<Container>,
        phase: Phase,
        pid: i32,
        started_ns: i64,
        exit: Option<Exit>,
        failure: Option<LaunchFailure>,
    ) {
        match (phase, exit, failure) {
            (Phase::Creating | Phase::Created, _, _) => {}
            (Phase::Running, _, _) => {
                self.log_failure(self.container_runs(container, pid, started_ns));
            }
            (Phase::Ended, _, Some(failure)) => self.launch_failed(container, failure),
            (Phase::Ended, Some(exit), None) => {
                if started_ns != 0 {
                    self.log_failure(self.container_runs(container, pid, started_ns));
                }
                self.container_ended(container, exit);
            }
            (Phase::Ended, None, None) => {
                self.container_lost(container, "its shim does not know how it ended")
            }
        }
    }

    /// Its command runs.
    pub(super) fn container_runs(
        &self,
        container: &Container,
        pid: i32,
        started_ns: i64,
    ) -> Result<()> {
        self.move_container(container, ContainerEvent::Started, |record| {
            record.pid = Some(pid);
            record.started_at_ns = started_ns;
        })
        .map(|_| ())
    }

    pub(super) fn container_ended(self: &Arc<Self>, container: &Arc<Container>, exit: Exit) {
        let (reason, message) = match (exit.oom_killed, exit.code) {
            (true, _) => (OOM_KILLED, "it used more memory than its limit"),
            (false, 0) => ("Completed", ""),
            (false, _) => ("Error", ""),
        };
        self.end(container, |record| {
            record.finished_at_ns = exit.at_ns;
            record.exit_code = exit.code;
            record.reason = reason.into();
            record.message = message.into();
        });
    }

    /// Its command could not be started.
    pub(super) fn launch_failed(
        self: &Arc<Self>,
        container: &Arc<Container>,
        failure: LaunchFailure,
    ) {
        let message = self.failure_text(container, failure);
        self.end(container, |record| {
            record.finished_at_ns = super::realtime_ns();
            record.exit_code = START_ERROR_CODE;
            record.reason = START_ERROR.into();
            record.message = message;
        });
    }

    /// Nobody will ever know how it ended.
    pub(super) fn container_lost(self: &Arc<Self>, container: &Arc<Container>, why: &str) {
        self.end(container, |record| {
            record.finished_at_ns = super::realtime_ns();
            record.exit_code = LOST_CODE;
            record.reason = "Unknown".into();
            record.message = why.into();
        });
    }

    /// Records an end, once, and clears what only a live container needs.
    fn end(
        self: &Arc<Self>,
        container: &Arc<Container>,
        describe: impl FnOnce(&mut ContainerRecord),
    ) {
        let moved = self.move_container(container, ContainerEvent::Ended, |record| {
            record.pid = None;
            describe(record);
        });
        match moved {
            Ok(Next::Go(_)) => {}
            Ok(Next::Stay | Next::Refuse(_) | Next::Undo) => return,
            Err(error) => {
                tracing::error!(container = %container.id, %error, "unable to record an end")
            }
        }
        let inner = self.clone();
        let container = container.clone();
        tokio::spawn(async move {
            if let Err(error) = inner.remove_container_cgroup(&container).await {
                // Removal of the container tries again.
                tracing::warn!(container = %container.id, %error, "unable to remove a cgroup now");
            }
            if container.sandbox.config.solo {
                inner.solo_ended(&container).await;
            }
        });
    }

    /// A shim's connection ended. While the sandbox is ready that means that
    /// the shim has died, and with it goes the pod.
    fn shim_gone(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        if sandbox.shim.borrow().is_none() {
            return;
        }
        let inner = self.clone();
        let sandbox = sandbox.clone();
        tokio::spawn(async move { inner.bury_shim(&sandbox).await });
    }

    /// The shim has died: its containers are killed by their cgroups, and what
    /// it wrote down of their ends before is believed; the rest is lost.
    pub(super) async fn bury_shim(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        tracing::error!(sandbox = %sandbox.id, "the shim has died; its pod is being stopped");
        self.meters.shims_lost.count();
        sandbox.shim.send_replace(None);
        self.lose_containers(sandbox).await;
        let next = self.move_sandbox(sandbox, SandboxEvent::ShimDied);
        self.log_failure(next.map(|_| ()));
        if let Err(error) = self.stop_sandbox(sandbox).await {
            tracing::error!(sandbox = %sandbox.id, %error, "unable to stop a pod whose shim has died; it is tried again when it is stopped");
        }
    }

    /// Kills what a dead shim left, and believes what it wrote down of ends.
    pub(super) async fn lose_containers(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        self.read_exits(sandbox);
        for container in self.table.containers_of(&sandbox.id) {
            if !container.record.borrow().state.may_live() {
                continue;
            }
            if let Err(error) = self.kill_by_cgroup(&container).await {
                tracing::error!(container = %container.id, %error, "unable to kill what a dead shim left");
            }
            self.container_lost(&container, "its shim has died");
        }
    }

    /// Applies an event to a container and changes its record if that moves
    /// it; the record is written down before anybody acts on it.
    pub(super) fn move_container(
        &self,
        container: &Container,
        event: ContainerEvent,
        change: impl FnOnce(&mut ContainerRecord),
    ) -> Result<Next<crate::state::ContainerState>> {
        let mut next = Next::Stay;
        let mut before = crate::state::ContainerState::Creating;
        container.record.send_if_modified(|record| {
            before = record.state;
            next = record.state.on(event);
            if let Next::Go(state) = next {
                record.state = state;
                change(record);
                return true;
            }
            false
        });
        if let Next::Go(after) = next {
            let saved = self.journal.save_container(container);
            self.tell_move(container, before, after);
            saved?;
        }
        Ok(next)
    }

    pub(super) fn log_failure(&self, outcome: Result<()>) {
        if let Err(error) = outcome {
            tracing::error!(%error, "unable to write a record");
        }
    }
}
