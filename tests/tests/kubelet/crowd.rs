//! Thirty pods at once.

use std::time::Instant;

use corten_tests::kubelet::{Settings, condition};

use crate::{idle, on_kubelet, simple};

const PODS: usize = 30;

#[test]
#[ignore = "run by cargo xtask kubelet"]
fn thirty_pods() {
    on_kubelet(Settings::default(), async |machine, _, kubelet| {
        let image = machine.image("busybox");
        let begun = Instant::now();
        for number in 0..PODS {
            kubelet.put(&simple(&format!("pod-{number}"), idle(&image)));
        }
        kubelet
            .waits("all pods are ready", |kubelet| {
                let pods = kubelet.pods();
                let ready = pods.iter().filter(|pod| condition(pod, "Ready") == Some("True"));
                (ready.count() == PODS).then_some(())
            })
            .await;
        println!("{PODS} pods ready after {:.1} s", begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        for number in 0..PODS {
            kubelet.take(&format!("pod-{number}"));
        }
        kubelet.gone().await;
        println!("{PODS} pods gone after {:.1} s", begun.elapsed().as_secs_f64());
    });
}
