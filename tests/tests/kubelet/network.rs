//! A node before and after its network add-on.

use corten_tests::cable;
use corten_tests::kubelet::{Kubelet, Settings, condition};
use corten_tests::machine::Settings as MachineSettings;
use serde_json::json;

use crate::{idle, on_machine, simple};

#[test]
#[ignore = "run by cargo xtask kubelet"]
fn pods_wait_for_a_network() {
    let bare = MachineSettings::default();
    on_machine(bare, Settings::default(), async |machine, _, kubelet| {
        let image = machine.image("busybox");
        let mut host = simple("host", idle(&image));
        host["spec"]["hostNetwork"] = true.into();
        kubelet.put(&simple("waits", idle(&image)));
        kubelet.put(&host);
        // What brings the network runs before there is one.
        kubelet.ready("host").await;
        let refused = |kubelet: &Kubelet| {
            let log = kubelet.log();
            log.contains("network is not ready").then_some(())
        };
        kubelet.waits("the kubelet knows that there is no network", refused).await;
        let waits = kubelet.pod("waits").expect("the pod");
        assert_ne!(condition(&waits, "Ready"), Some("True"), "{waits:#}");

        let network = json!({
            "cniVersion": "1.0.0",
            "name": "debian",
            "plugins": [{
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": machine.path("ipam"),
                    "ranges": [[{ "subnet": "10.78.0.0/24" }]],
                },
            }],
        });
        let directory = machine.path("cni");
        std::fs::create_dir_all(&directory).expect("a directory is made");
        std::fs::write(directory.join("10-debian.conflist"), network.to_string())
            .expect("a network is written");
        let up = kubelet.ready("waits").await;
        let address = up["status"]["podIP"].as_str().expect("an address");
        assert!(address.starts_with("10.78.0."), "{address}");
        for name in ["waits", "host"] {
            kubelet.take(name);
        }
        kubelet.gone().await;
        cable::ip("link del cni0");
    });
}
