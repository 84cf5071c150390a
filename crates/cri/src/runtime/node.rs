//! The node over CRI: versions, status, and what the kubelet must know.

use std::collections::BTreeMap;

use corten_api::cri::*;
use tonic::Status;

use super::Runtime;
use crate::NodeFacts;

/// The version of the kubelet's side of CRI that `Version` has always echoed.
const KUBELET_API_VERSION: &str = "0.1.0";

impl Runtime {
    pub(super) async fn version(&self, _: VersionRequest) -> Result<VersionResponse, Status> {
        Ok(version(&self.facts))
    }

    pub(super) async fn status(&self, request: StatusRequest) -> Result<StatusResponse, Status> {
        let status = self.engine.status();
        let info = if request.verbose { self.verbose_status() } else { BTreeMap::new() };
        Ok(StatusResponse {
            status: Some(RuntimeStatus {
                conditions: vec![
                    condition("RuntimeReady", "RuntimeNotReady", status.runtime_problem),
                    condition("NetworkReady", "NetworkPluginNotReady", status.network_problem),
                ],
            }),
            info,
            runtime_handlers: self.engine.handlers().into_iter().map(handler).collect(),
            features: Some(RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: true,
                mount_options: true,
            }),
        })
    }

    /// What tools read beside the conditions; the values are JSON, but for the
    /// load status, as other runtimes have it.
    fn verbose_status(&self) -> BTreeMap<String, String> {
        let mut info = BTreeMap::from([("config".to_owned(), self.facts.config.to_string())]);
        if let Some(view) = self.engine.cni() {
            info.insert("cniconfig".to_owned(), super::cni::config(&view).to_string());
            info.insert("lastCNILoadStatus".to_owned(), super::cni::load_status(&view));
        }
        info
    }

    pub(super) async fn runtime_config(
        &self,
        _: RuntimeConfigRequest,
    ) -> Result<RuntimeConfigResponse, Status> {
        let cgroup_driver = self.facts.cgroup_driver.into();
        Ok(RuntimeConfigResponse { linux: Some(LinuxRuntimeConfiguration { cgroup_driver }) })
    }

    /// CNI configuration is the network add-on's: no template is filled in
    /// with the pod CIDR, which is all that the kubelet tells here.
    pub(super) async fn update_runtime_config(
        &self,
        request: UpdateRuntimeConfigRequest,
    ) -> Result<UpdateRuntimeConfigResponse, Status> {
        let network = request.runtime_config.and_then(|config| config.network_config);
        if let Some(network) = network.filter(|network| !network.pod_cidr.is_empty()) {
            tracing::info!(pod_cidr = network.pod_cidr, "the kubelet told the pod CIDR");
        }
        Ok(UpdateRuntimeConfigResponse {})
    }
}

/// What we are.
pub fn version(facts: &NodeFacts) -> VersionResponse {
    VersionResponse {
        version: KUBELET_API_VERSION.to_owned(),
        runtime_name: "corten".to_owned(),
        runtime_version: facts.version.clone(),
        runtime_api_version: "v1".to_owned(),
    }
}

/// A condition: what it is when all is well, and the reason when it is not.
fn condition(kind: &str, reason: &str, problem: Option<String>) -> RuntimeCondition {
    RuntimeCondition {
        r#type: kind.to_owned(),
        status: problem.is_none(),
        reason: if problem.is_some() { reason.to_owned() } else { String::new() },
        message: problem.unwrap_or_default(),
    }
}

fn handler(facts: corten_pods::HandlerView) -> RuntimeHandler {
    RuntimeHandler {
        name: facts.name,
        features: Some(RuntimeHandlerFeatures {
            recursive_read_only_mounts: facts.recursive_read_only_mounts,
            user_namespaces: facts.user_namespaces,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_says_what_is_wrong() {
        let well = condition("NetworkReady", "R", None);
        assert!(well.status && well.reason.is_empty() && well.message.is_empty());
        let ill = condition("NetworkReady", "R", Some("no configuration in /etc/cni".into()));
        assert!(!ill.status);
        assert_eq!(
            (ill.reason.as_str(), ill.message.as_str()),
            ("R", "no configuration in /etc/cni")
        );
    }
}
