//! The daemon's start: what it makes, and for whose eyes.

use std::os::unix::fs::PermissionsExt as _;

use corten_tests::Machine;
use corten_tests::client::{Container, Pod};

#[test]
fn what_pods_are_told_is_roots_to_read() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let image = machine.image("busybox");
        client.pull(&image).await.unwrap();
        let pod = Pod::new(machine, "secret");
        let id = client.run_pod(&pod).await.unwrap();
        let mut container = Container::shell("main", &image, "exec sleep 1000");
        container.security().run_as_user = Some(corten_api::cri::Int64Value { value: 1000 });
        let main = client.run(&id, &pod, &container).await.unwrap();
        for directory in ["state/sandboxes", "data"] {
            let mode = std::fs::metadata(machine.path(directory)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{directory}: {mode:o}");
        }
        // But what is written for a container, its user reads.
        for file in ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname"] {
            client.shell(&main, &format!("cat {file}")).await;
        }
    });
}
