//! The daemon and the machine, as people are told about them.

use corten_api::corten as api;
use corten_pods::ContainerFilter;
use tonic::Status;

use super::People;

impl People {
    pub(super) async fn version(
        &self,
        _: api::VersionRequest,
    ) -> Result<api::VersionResponse, Status> {
        // A file of /proc: it cannot block.
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(api::VersionResponse {
            version: self.facts.version.clone(),
            api_version: "v1".to_owned(),
            cri_version: "v1".to_owned(),
            kernel: kernel.trim().to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            pid: std::process::id(),
        })
    }

    pub(super) async fn info(&self, _: api::InfoRequest) -> Result<api::InfoResponse, Status> {
        let status = self.engine.status();
        let mut findings = Vec::new();
        if let Some(text) = status.runtime_problem {
            findings.push(api::Finding {
                severity: api::Severity::Error.into(),
                subject: "runtime".to_owned(),
                text,
                advice: String::new(),
            });
        }
        if let Some(text) = status.network_problem {
            findings.push(api::Finding {
                severity: api::Severity::Warning.into(),
                subject: "pod network".to_owned(),
                text,
                advice: "only pods of the kubelet need it: install a network add-on, or set \
                         network.cri = \"builtin\""
                    .to_owned(),
            });
        }
        let fact = |(group, name, value): &(String, String, String)| api::Fact {
            group: group.clone(),
            name: name.clone(),
            value: value.clone(),
        };
        Ok(api::InfoResponse { facts: self.facts.facts.iter().map(fact).collect(), findings })
    }

    pub(super) async fn list_namespaces(
        &self,
        _: api::ListNamespacesRequest,
    ) -> Result<api::ListNamespacesResponse, Status> {
        let mut names = self.engine.namespaces();
        names.extend(self.engine.images().namespaces());
        names.sort();
        names.dedup();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let namespaces = names
            .iter()
            .map(|name| {
                let all = ContainerFilter::default();
                api::NamespaceSummary {
                    name: name.to_string(),
                    containers: count(self.engine.containers(name, &all).len()),
                    images: count(self.engine.images().list(name).len()),
                }
            })
            .collect();
        Ok(api::ListNamespacesResponse { namespaces })
    }
}
