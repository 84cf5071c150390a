//! One pod's whole life.

use corten_tests::client::{Container, Pod, log_lines, log_path};
use corten_tests::{Machine, until};

#[test]
fn a_pod_lives_and_leaves_nothing() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let image = machine.image("busybox");
        client.pull(&image).await.unwrap();
        let pod = Pod::new(machine, "one");
        let id = client.run_pod(&pod).await.unwrap();
        let container =
            Container::shell("main", &image, "echo hello; echo oops >&2; exec sleep 1000");
        let main = client.run(&id, &pod, &container).await.unwrap();
        assert_eq!(client.shell(&main, "hostname").await, "one\n");
        let lines = until("the log has both lines", async || {
            let lines = log_lines(&log_path(&pod, &container));
            (lines.len() == 2).then_some(lines)
        })
        .await;
        assert!(lines.contains(&("stdout".into(), "F".into(), "hello".into())), "{lines:?}");
        assert!(lines.contains(&("stderr".into(), "F".into(), "oops".into())), "{lines:?}");
        client.stop(&main, 0).await.unwrap();
        assert_eq!(client.status(&main).await.unwrap().exit_code, 137);
        client.remove(&main).await.unwrap();
        client.stop_pod(&id).await.unwrap();
        client.remove_pod(&id).await.unwrap();
    });
}
