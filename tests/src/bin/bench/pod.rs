//! A pod as the kubelet makes it: what it sends for a small Deployment.

use corten_api::cri::{self, security_profile::ProfileType};
use corten_tests::client::{Container, Pod};
use corten_tests::{Client, Machine, until};

/// The memory limit of the container.
const MEMORY_BYTES: i64 = 128 << 20;
/// What the kubelet gives to containers that asked for nothing special.
const OOM_SCORE_ADJ: i64 = 1000;
const CPU_SHARES: i64 = 102;

/// The default profile of the runtime.
fn runtime_default() -> Option<cri::SecurityProfile> {
    Some(cri::SecurityProfile {
        profile_type: ProfileType::RuntimeDefault.into(),
        localhost_ref: String::new(),
    })
}

/// A pod of this name.
pub fn pod(machine: &Machine, name: &str) -> Pod {
    let mut pod = Pod::new(machine, name);
    let linux = pod.config.linux.get_or_insert_default();
    linux.security_context.get_or_insert_default().seccomp = runtime_default();
    pod
}

/// Its container.
pub fn container(image: &str) -> Container {
    let mut container = Container::new("main", image, &["sleep", "1000000"]);
    container.security().seccomp = runtime_default();
    container.linux().resources = Some(cri::LinuxContainerResources {
        cpu_shares: CPU_SHARES,
        memory_limit_in_bytes: MEMORY_BYTES,
        oom_score_adj: OOM_SCORE_ADJ,
        ..Default::default()
    });
    container
}

/// Ids of a running pod.
pub struct Running {
    /// The sandbox.
    pub pod: String,
    /// Its container.
    pub container: String,
}

/// Makes a pod and starts its container.
pub async fn start(machine: &Machine, client: &mut Client, name: &str, image: &str) -> Running {
    let (config, main) = (pod(machine, name), container(image));
    let pod = client.run_pod(&config).await.expect("a sandbox");
    let container = client.run(&pod, &config, &main).await.expect("a container");
    Running { pod, container }
}

/// Takes it away, as the kubelet does.
pub async fn end(client: &mut Client, running: Running) {
    client.stop(&running.container, 0).await.expect("the container stops");
    client.remove(&running.container).await.expect("the container goes");
    client.stop_pod(&running.pod).await.expect("the pod stops");
    client.remove_pod(&running.pod).await.expect("the pod goes");
}

/// Gives the machine the network that most nodes of one machine have: the
/// bridge plugin, addresses from host-local, host ports. The bridge has the
/// name of the built-in one, which may stay behind in a machine.
pub fn configure_cni(machine: &Machine) {
    let list = serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "bench",
        "plugins": [
            {
                "type": "bridge", "bridge": "corten0", "isGateway": true, "ipMasq": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": machine.path("cni-leases"),
                    "ranges": [[{"subnet": "10.88.0.0/16"}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    let dir = machine.path("cni");
    std::fs::create_dir_all(&dir).expect("a directory");
    std::fs::write(dir.join("10-bench.conflist"), list.to_string()).expect("a configuration");
}

/// Waits until pods can have a network.
pub async fn network_ready(client: &mut Client) {
    until("the network is ready", async || {
        let request = cri::StatusRequest { verbose: false };
        let status = client.runtime.status(request).await.expect("a status").into_inner().status;
        let conditions = status.expect("a status").conditions;
        conditions.iter().all(|condition| condition.status).then_some(())
    })
    .await;
}
