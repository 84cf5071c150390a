//! The network of pods, whoever provides it.

use corten_base::SandboxId;

use crate::{Attachment, Bridge, Cni, CniView, NetworkRequest, Result};

/// A provider of networks. Cheap to clone; all calls may be made at once.
#[derive(Debug, Clone)]
pub enum Network {
    /// CNI plugins, as configured on the node.
    Cni(Cni),
    /// The built-in bridge.
    Bridge(Bridge),
}

/// A sandbox that lives on, for [`Network::reconcile`].
#[derive(Debug, Clone)]
pub struct Kept {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// Its attachment, where one is recorded.
    pub attachment: Option<Attachment>,
}

impl Network {
    /// Attaches a pod. Done again for the same sandbox it replaces what an
    /// earlier attempt left. On failure nothing is left behind.
    pub async fn attach(&self, request: &NetworkRequest) -> Result<Attachment> {
        match self {
            Self::Cni(cni) => cni.attach(request).await,
            Self::Bridge(bridge) => bridge.attach(request).await,
        }
    }

    /// Detaches a pod. Idempotent; works without the attachment (a crash before
    /// it was recorded) and when the network namespace is gone.
    pub async fn detach(
        &self,
        request: &NetworkRequest,
        attachment: Option<&Attachment>,
    ) -> Result<()> {
        match self {
            Self::Cni(cni) => cni.detach(request, attachment).await,
            Self::Bridge(bridge) => bridge.detach(request, attachment).await,
        }
    }

    /// Whether pods can be attached; if not, what is missing and where it was
    /// searched. Cheap: no plugin is run.
    pub fn status(&self) -> std::result::Result<(), String> {
        match self {
            Self::Cni(cni) => cni.status(),
            Self::Bridge(bridge) => bridge.status(),
        }
    }

    /// The configuration of the CNI client, where this is one.
    pub fn cni(&self) -> Option<CniView> {
        match self {
            Self::Cni(cni) => Some(cni.view()),
            Self::Bridge(_) => None,
        }
    }

    /// Frees what belongs to no kept sandbox and puts back what the kept ones
    /// need (rules that somebody flushed). Once, at the start of the daemon.
    pub async fn reconcile(&self, kept: &[Kept]) -> Result<()> {
        match self {
            Self::Cni(cni) => cni.reconcile(kept).await,
            Self::Bridge(bridge) => bridge.reconcile(kept).await,
        }
    }
}
