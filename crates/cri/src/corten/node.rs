//! The daemon and the machine, as people are told about them.

use corten_api::corten as api;
use corten_pods::{ContainerFilter, Finding, Gravity, ProcessView};
use tonic::Status;

use super::People;
use crate::status::Wire;

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
        let finding = |finding: Finding| api::Finding {
            severity: match finding.gravity {
                Gravity::Hint => api::Severity::Hint,
                Gravity::Warning => api::Severity::Warning,
                Gravity::Error => api::Severity::Error,
            }
            .into(),
            subject: finding.subject.to_owned(),
            text: finding.text,
            advice: finding.advice,
        };
        let findings = self.engine.findings().await.wire()?;
        let findings = findings.into_iter().map(finding).collect();
        let fact = |(group, name, value): &(String, String, String)| api::Fact {
            group: group.clone(),
            name: name.clone(),
            value: value.clone(),
        };
        Ok(api::InfoResponse { facts: self.facts.facts.iter().map(fact).collect(), findings })
    }

    pub(super) async fn processes(
        &self,
        request: api::ProcessesRequest,
    ) -> Result<api::ProcessesResponse, Status> {
        let (namespace, container) = self.find(&request.namespace, &request.container)?;
        let all = self.engine.processes(&namespace, container.id.as_str()).await.wire()?;
        let process = |process: ProcessView| api::Process {
            pid: process.pid,
            parent: process.parent,
            uid: process.uid,
            state: process.state.to_string(),
            threads: process.threads,
            cpu_ns: process.cpu_ns,
            memory_bytes: process.memory_bytes,
            command: process.command,
        };
        Ok(api::ProcessesResponse { processes: all.into_iter().map(process).collect() })
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
