//! What is the kubelet's, and what is not: its namespace belongs to it, also
//! what others put there; people's containers and images it never sees.

use corten_api::cri;
use corten_tests::kubelet::{Kubelet, Settings};
use corten_tests::tool::Tool;
use serde_json::json;

use crate::{idle, on_kubelet, simple};

#[test]
#[ignore = "run by cargo xtask kubelet"]
fn containers_and_images_of_others() {
    on_kubelet(Settings::default(), async |machine, daemon, kubelet| {
        let (busybox, nginx) = (machine.image("busybox"), machine.image("nginx"));
        // The same content as people's image.
        let unused = machine.image_as("nginx", "unused");
        kubelet.put(&simple("used", idle(&busybox)));
        kubelet.ready("used").await;
        let mut client = daemon.client().await;
        let (crictl, corten) = (Tool::crictl(machine, daemon), Tool::corten(machine, daemon));

        corten.run(&["run", "-d", "--name", "people", &nginx]);
        for image in [&busybox, &unused] {
            crictl.run(&["pull", image]);
        }
        let sandbox = json!({
            "metadata": { "name": "intruder", "namespace": "default", "uid": "u1", "attempt": 0 },
            "log_directory": machine.path("intruder-logs"),
            "linux": {},
        });
        let container = json!({
            "metadata": { "name": "intruder" },
            "image": { "image": busybox },
            "command": ["sleep", "1000"],
            "log_path": "intruder.log",
            "linux": {},
        });
        let (sandbox, container) =
            (crictl.file("sandbox.json", &sandbox), crictl.file("container.json", &container));
        let intruder = crictl.run(&["run", "--no-pull", &container, &sandbox]);

        // The kubelet kills in seconds, and removes once a minute.
        let gone = |_: &Kubelet| {
            let all = crictl.run(&["ps", "--all", "--quiet", "--no-trunc"]);
            (!all.contains(&intruder)).then_some(())
        };
        kubelet.waits("the intruder is removed", gone).await;

        // Images that nobody uses go when the disk is full; from now on it is.
        kubelet.kill();
        kubelet.settings().configuration =
            json!({ "evictionHard": { "nodefs.available": "99%", "imagefs.available": "99%" } });
        kubelet.start_again().await;
        let images = async |client: &mut corten_tests::Client| -> Vec<String> {
            let list = client.images.list_images(cri::ListImagesRequest::default()).await;
            let images = list.expect("a list").into_inner().images;
            images.into_iter().flat_map(|image| image.repo_tags).collect()
        };
        let collected = |_: &Kubelet| {
            let listed = crictl.run(&["images"]);
            (!listed.contains("/unused")).then_some(())
        };
        kubelet.waits("the unused image is collected", collected).await;
        assert!(images(&mut client).await.contains(&busybox), "an image in use was collected");
        let listed = corten.run(&["images"]);
        assert!(listed.contains("nginx"), "people's image was collected: {listed}");
        let running = corten.run(&["ps"]);
        assert!(running.contains("people"), "people's container is gone: {running}");
        corten.run(&["rm", "-f", "people"]);
        corten.run(&["rmi", &nginx]);
    });
}
