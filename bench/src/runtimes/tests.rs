//! A runtime of somebody else is left as it was found.

use corten_api::cri;
use corten_tests::Machine;
use corten_tests::client::Pod;

use super::*;

#[test]
fn what_others_have_in_their_runtime_stays_and_what_the_bench_had_goes() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let theirs = client.run_pod(&Pod::new(machine, "theirs")).await.expect("a pod");
        let image = machine.image("busybox");
        let choice = Choice::Socket("mine".into(), daemon.socket().to_owned());
        let subject = choice.settle(&machine.path(""), Some(&image)).await.expect("a subject");
        assert_eq!(subject.daemon(), Some(daemon.pid()));
        let running = subject.start_pod("ours").await.expect("a pod");
        let (code, ..) = client.exec(running.container(), &["true"], 10).await.expect("an exec");
        assert_eq!(code, 0);
        subject.leave().await.expect("everything of ours goes");
        let pods: Vec<_> = client.pods().await.into_iter().map(|pod| pod.id).collect();
        assert_eq!(pods, [theirs]);
        let request = cri::ListImagesRequest::default();
        let images = client.images.list_images(request).await.expect("a list").into_inner().images;
        assert!(images.is_empty(), "{images:?}");
    });
}
