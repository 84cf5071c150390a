//! Pods of three containers, and pods in user namespaces.

use anyhow::Result;
use corten_api::cri::{self, NamespaceMode};
use corten_tests::client::{Container, Pod};

use super::{Kind, nothing};
use crate::operations::catalogue as keys;
use crate::report::Report;
use crate::runtimes::Subject;

const RUNS: usize = 8;
/// The first id of the host that pods in user namespaces have, and how many.
const HOST_ID: u32 = 1 << 20;
const IDS: u32 = 1 << 16;

/// Measures both, runtimes in turns.
pub async fn measure(report: &mut Report, subjects: &mut [&mut Subject]) {
    let kinds = [
        Kind { start: Some(keys::THREE_START), stop: keys::THREE_STOP, shape: &three },
        Kind { start: Some(keys::USER_START), stop: keys::USER_STOP, shape: &in_user_namespace },
    ];
    for kind in kinds {
        kind.measure(report, subjects, RUNS, nothing).await;
    }
}

fn three(subject: &Subject, name: &str) -> Result<(Pod, Vec<Container>)> {
    Ok((subject.pod(name)?, ["one", "two", "three"].map(|name| subject.container(name)).into()))
}

fn in_user_namespace(subject: &Subject, name: &str) -> Result<(Pod, Vec<Container>)> {
    let mapping = cri::IdMapping { host_id: HOST_ID, container_id: 0, length: IDS };
    let options = cri::UserNamespace {
        mode: NamespaceMode::Pod.into(),
        uids: vec![mapping],
        gids: vec![mapping],
    };
    let (mut pod, mut container) = (subject.pod(name)?, subject.container("main"));
    pod.namespaces().userns_options = Some(options.clone());
    let security = container.security();
    security.namespace_options.get_or_insert_default().userns_options = Some(options);
    Ok((pod, vec![container]))
}
