//! The namespaces of a pod: from the pool, or made in its user namespace.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use corten_kernel::launch::NamespaceKind;
use corten_kernel::ns;
use corten_kernel::sysctl::Sysctls;
use corten_spec::container::{NodePolicy, Sysctl, sandbox_sysctls};
use corten_spec::oci::NamespaceType;
use corten_spec::request::{IdMapping, NamespaceMode, SandboxConfig, UserNamespace};

use super::{Inner, blocking};
use crate::error::{Error, Result};
use crate::table::Sandbox;

/// What a pod has of its own; an absent one is the host's.
#[derive(Default)]
pub struct Namespaces {
    /// User namespace.
    pub user: Option<OwnedFd>,
    /// Network.
    pub net: Option<OwnedFd>,
    /// IPC.
    pub ipc: Option<OwnedFd>,
    /// Host name.
    pub uts: Option<OwnedFd>,
    /// User and group that are root in the pod, as the host sees them.
    pub root_ids: (u32, u32),
}

impl Inner {
    /// Makes the namespaces that a sandbox asks for.
    pub(super) async fn make_namespaces(&self, sandbox: &Arc<Sandbox>) -> Result<Namespaces> {
        let options = &sandbox.config.namespaces;
        let own_net = options.network != NamespaceMode::Node;
        let own_ipc = options.ipc != NamespaceMode::Node;
        if let Some(user) = &options.user {
            return self.make_user_namespaces(sandbox, user, own_net, own_ipc).await;
        }
        if !own_net && !own_ipc {
            return Ok(Namespaces::default());
        }
        if !own_net {
            let set = blocking(|| Ok(ns::NamespaceSet::create(&[NamespaceKind::Ipc])?)).await?;
            return Ok(Namespaces { ipc: set.ipc, ..Namespaces::default() });
        }
        let taken = self
            .namespaces
            .take(&sandbox.id)
            .await
            .map_err(|error| Error::internal(error.to_string()))?;
        Ok(Namespaces {
            net: Some(taken.net),
            ipc: own_ipc.then_some(taken.ipc),
            uts: Some(taken.uts),
            ..Namespaces::default()
        })
    }

    /// A pod in a user namespace owns its other namespaces by it, so they are
    /// made inside it, and cannot come from the pool.
    async fn make_user_namespaces(
        &self,
        sandbox: &Arc<Sandbox>,
        user: &UserNamespace,
        own_net: bool,
        own_ipc: bool,
    ) -> Result<Namespaces> {
        let root_ids = (host_root(&user.uids, "user")?, host_root(&user.gids, "group")?);
        let uids = to_kernel(&user.uids);
        let gids = to_kernel(&user.gids);
        let mut kinds = Vec::new();
        if own_net {
            kinds.extend([NamespaceKind::Net, NamespaceKind::Uts]);
        }
        if own_ipc {
            kinds.push(NamespaceKind::Ipc);
        }
        let set = blocking(move || {
            let set = ns::NamespaceSet::create_in_user(&uids, &gids, &kinds)?;
            if let Some(net) = &set.net {
                corten_kernel::netlink::loopback_up(net.as_fd())?;
            }
            Ok(set)
        })
        .await?;
        if let Some(net) = &set.net {
            let pinned = self.namespaces.pin(&sandbox.id, net).await;
            pinned.map_err(|error| Error::internal(error.to_string()))?;
        }
        Ok(Namespaces { user: set.user, net: set.net, ipc: set.ipc, uts: set.uts, root_ids })
    }
}

impl Namespaces {
    /// Host name and sysctls, before anything runs in the pod.
    pub fn settle(
        &self,
        config: &SandboxConfig,
        policy: &NodePolicy,
        settings: &Sysctls,
    ) -> Result<()> {
        let sysctls =
            sandbox_sysctls(config, policy).map_err(|error| Error::invalid(error.to_string()))?;
        for sysctl in &sysctls {
            let there = match sysctl.namespace {
                NamespaceType::Network => self.net.is_some(),
                _ => self.ipc.is_some(),
            };
            if !there {
                let name = &sysctl.name;
                return Err(Error::internal(format!("the pod has no namespace for {name}")));
            }
        }
        let name = self.uts.as_ref().map(|_| config.hostname.as_str());
        let name = name.filter(|name| !name.is_empty());
        if name.is_none() && sysctls.is_empty() {
            return Ok(());
        }
        let own = [&self.uts, &self.net, &self.ipc];
        let own: Vec<_> = own.into_iter().flatten().map(AsFd::as_fd).collect();
        ns::run_in(&own, || {
            name.map_or(Ok(()), ns::set_hostname)?;
            sysctls.iter().try_for_each(|sysctl| write_sysctl(settings, sysctl))
        })?
    }
}

fn write_sysctl(settings: &Sysctls, sysctl: &Sysctl) -> Result<()> {
    let Sysctl { name, value, path, .. } = sysctl;
    settings.write(path, value).map_err(|error| {
        let errno = std::io::Error::from(error.errno);
        Error::invalid(format!("unable to set the sysctl {name} to {value:?}: {errno}"))
    })
}

fn to_kernel(mappings: &[IdMapping]) -> Vec<ns::IdMap> {
    mappings
        .iter()
        .map(|m| ns::IdMap { inside: m.container_id, outside: m.host_id, count: m.length })
        .collect()
}

pub(super) fn host_root(mappings: &[IdMapping], what: &str) -> Result<u32> {
    mappings
        .iter()
        .find(|mapping| mapping.container_id == 0 && mapping.length > 0)
        .map(|mapping| mapping.host_id)
        .ok_or_else(|| {
            Error::invalid(format!("the {what} mapping of the pod's user namespace has no id 0"))
        })
}
