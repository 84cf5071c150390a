//! What is written down in batches is not missed when the daemon dies before.

use corten_tests::Machine;
use corten_tests::client::{Container, Pod};

#[test]
fn what_was_removed_does_not_come_back() {
    Machine::run(async |machine, daemon| {
        let image = machine.image("busybox");
        daemon.client().await.pull(&image).await.unwrap();
        for round in 0..3 {
            let mut client = daemon.client().await;
            let pod = Pod::new(machine, &format!("pod-{round}"));
            let id = client.run_pod(&pod).await.unwrap();
            let main = Container::shell("main", &image, "exec sleep 1000");
            client.run(&id, &pod, &main).await.unwrap();
            // The durable store has the pod, and a new daemon takes it up.
            daemon.restart().await;
            let mut client = daemon.client().await;
            assert_eq!(client.pods().await.len(), 1);
            client.stop_pod(&id).await.unwrap();
            client.remove_pod(&id).await.unwrap();
            daemon.restart().await;
            let mut client = daemon.client().await;
            assert_eq!(client.pods().await.len(), 0, "round {round}");
            assert_eq!(client.containers().await.len(), 0, "round {round}");
        }
    });
}
