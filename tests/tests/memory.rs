//! What a daemon holds in memory: some of its own, little for each pod, and
//! little of pods that are gone. Of code nothing: so the kind of build does not
//! matter.

use corten_tests::client::{Container, Pod};
use corten_tests::{Client, Daemon, Machine, until};
use futures_util::StreamExt as _;
use futures_util::stream::iter;

/// Of a daemon that has pulled an image and has nothing to do: 2.9 MB were seen.
const IDLE_KB_MAX: u64 = 6 << 10;
/// For each pod that stands: 20 to 35 kB were seen.
const STANDING_KB_MAX: u64 = 70;
/// For each pod that is gone, until the ring of events has come around: 17 kB
/// were seen, and these are its events.
const GONE_KB_MAX: u64 = 40;
/// Pods of a crowd, and how many of them are made at once.
const PODS: u64 = 20;
const AT_ONCE: usize = 4;
/// Crowds, one after the other, beside a smaller first one that fills pools and
/// caches.
const CROWDS: u64 = 2;
const FIRST_PODS: u64 = 8;
/// So many calls, and the daemon tidies up when they are over.
const CALLS_THAT_COUNT: usize = 100;

#[test]
fn memory_is_little_and_given_back() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let image = machine.image("busybox");
        client.pull(&image).await.expect("the image is pulled");
        at_most(daemon, &mut client, "idle", 0, IDLE_KB_MAX).await;
        let first = up(machine, &client, &image, "first", FIRST_PODS).await;
        down(&client, first).await;

        ask(&mut client).await;
        let before = daemon.anonymous_kb();
        for crowd in 1..=CROWDS {
            let gone = (crowd - 1) * PODS * GONE_KB_MAX;
            let pods = up(machine, &client, &image, &format!("crowd{crowd}"), PODS).await;
            let standing = gone + PODS * STANDING_KB_MAX;
            at_most(daemon, &mut client, "with pods", before, standing).await;
            down(&client, pods).await;
        }
        at_most(daemon, &mut client, "without", before, CROWDS * PODS * GONE_KB_MAX).await;
    });
}

/// Waits until a daemon holds at most so much more than before.
async fn at_most(daemon: &Daemon, client: &mut Client, when: &str, before: u64, more: u64) {
    ask(client).await;
    let what = format!("the daemon's memory, {when}, is at most {before} + {more} kB");
    let found = until(&what, async || {
        let now = daemon.anonymous_kb();
        (now <= before + more).then_some(now)
    });
    let found = found.await;
    println!("{when}: {found} kB, before {before}, at most {more} more");
}

/// Gives a daemon a reason to tidy up.
async fn ask(client: &mut Client) {
    for _ in 0..CALLS_THAT_COUNT {
        client.pods().await;
    }
}

/// Pods that run, each with a container: their ids.
async fn up(machine: &Machine, client: &Client, image: &str, name: &str, pods: u64) -> Vec<String> {
    let run = async |number: u64| {
        let mut client = client.clone();
        let pod = Pod::of_kubelet(machine, &format!("{name}-{number}"));
        let id = client.run_pod(&pod).await.expect("the pod runs");
        let container = Container::of_kubelet(image);
        client.run(&id, &pod, &container).await.expect("the container runs");
        id
    };
    iter(0..pods).map(run).buffer_unordered(AT_ONCE).collect().await
}

async fn down(client: &Client, pods: Vec<String>) {
    let remove = async |id: String| {
        let mut client = client.clone();
        client.stop_pod(&id).await.expect("the pod stops");
        client.remove_pod(&id).await.expect("the pod is removed");
    };
    iter(pods).for_each_concurrent(AT_ONCE, remove).await;
}
