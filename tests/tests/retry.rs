//! Clients that give up, ask again, ask twice, and ask for what is not there.

use std::collections::HashSet;
use std::time::Duration;

use corten_api::cri::{self, PodSandboxState};
use corten_tests::client::{CALL_TIMEOUT, Container, Pod};
use corten_tests::{Client, Machine, until};
use tokio::task::JoinSet;
use tonic::Code;

/// Rounds of calls that are given up, each after a longer time.
const ROUNDS: u64 = 16;

/// Waits for a call for so long only; dropping it cancels it.
async fn give_up<T>(round: u64, call: impl Future<Output = T>) {
    let _ = tokio::time::timeout(Duration::from_micros(round * round * 150), call).await;
}

/// A request with a deadline that the server is told.
fn hurried<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(Duration::from_millis(1));
    request
}

fn run_pod(pod: &Pod) -> cri::RunPodSandboxRequest {
    cri::RunPodSandboxRequest { config: Some(pod.config.clone()), ..Default::default() }
}

async fn pods_named(client: &mut Client, name: &str) -> Vec<cri::PodSandbox> {
    let mut pods = client.pods().await;
    pods.retain(|pod| pod.metadata.as_ref().is_some_and(|data| data.name == name));
    pods
}

#[test]
fn a_pod_that_was_given_up_is_there_when_asked_for_again() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        for round in 0..ROUNDS {
            let name = format!("given{round}");
            let pod = Pod::new(machine, &name);
            if round % 4 == 0 {
                let _ = client.runtime.run_pod_sandbox(hurried(run_pod(&pod))).await;
            } else {
                let mut other = daemon.client().await;
                give_up(round, other.run_pod(&pod)).await;
            }
            let id = client.run_pod(&pod).await.unwrap();
            assert_eq!(client.run_pod(&pod).await.unwrap(), id);
            let pods = pods_named(&mut client, &name).await;
            assert_eq!(pods.len(), 1, "{pods:?}");
            assert_eq!((&pods[0].id, pods[0].state()), (&id, PodSandboxState::SandboxReady));
        }
    });
}

#[test]
fn a_container_that_was_given_up_is_there_when_asked_for_again() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let image = machine.image("busybox");
        client.pull(&image).await.unwrap();
        let pod = Pod::new(machine, "given");
        let id = client.run_pod(&pod).await.unwrap();
        for round in 0..ROUNDS {
            let container = Container::shell(&format!("c{round}"), &image, "exec sleep 1000");
            let mut other = daemon.client().await;
            give_up(round, other.create(&id, &pod, &container)).await;
            let created = client.create(&id, &pod, &container).await.unwrap();
            assert_eq!(client.create(&id, &pod, &container).await.unwrap(), created);
            client.start(&created).await.unwrap();
        }
        assert_eq!(client.containers().await.len() as u64, ROUNDS);
    });
}

#[test]
fn an_image_that_was_given_up_is_pulled_when_asked_for_again() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let image = machine.image("nginx");
        for round in 0..ROUNDS {
            let mut other = daemon.client().await;
            give_up(round * 3, other.pull(&image)).await;
            let id = client.pull(&image).await.unwrap();
            assert_eq!(client.pull(&image).await.unwrap(), id);
            let image = Some(cri::ImageSpec { image: id, ..Default::default() });
            client.images.remove_image(cri::RemoveImageRequest { image }).await.unwrap();
        }
    });
}

#[test]
fn what_was_given_up_and_never_asked_for_again_can_be_removed() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let image = machine.image("busybox");
        client.pull(&image).await.unwrap();
        let mut kept = Vec::new();
        for round in 0..ROUNDS {
            let pod = Pod::new(machine, &format!("given{round}"));
            let mut other = daemon.client().await;
            give_up(round, other.run_pod(&pod)).await;
            if round % 2 == 0 {
                let id = client.run_pod(&pod).await.unwrap();
                let container = Container::shell("main", &image, "exec sleep 1000");
                give_up(round, other.create(&id, &pod, &container)).await;
                kept.push(id);
            }
        }
        // As a kubelet does it: what the list shows is stopped and removed, until
        // it shows nothing any more and nothing is being made.
        until("nothing is left", async || {
            for pod in client.pods().await {
                client.stop_pod(&pod.id).await.unwrap();
                client.remove_pod(&pod.id).await.unwrap();
            }
            let left = std::fs::read_dir(machine.path("state/sandboxes")).unwrap().count();
            (left == 0).then_some(())
        })
        .await;
        assert!(client.containers().await.is_empty());
    });
}

#[test]
fn many_who_ask_for_the_same_get_the_same() {
    Machine::run(async |machine, daemon| {
        let client = daemon.client().await;
        let image = machine.image("busybox");
        let pulled = all_get_one(&client, async |mut client| client.pull(&image).await).await;
        assert!(!pulled.is_empty());
        let pod = Pod::new(machine, "same");
        let id = all_get_one(&client, async |mut client| client.run_pod(&pod).await).await;
        let container = Container::shell("main", &image, "exec sleep 1000");
        let main =
            all_get_one(&client, async |mut client| client.create(&id, &pod, &container).await)
                .await;
        let mut client = client;
        client.start(&main).await.unwrap();
        // Another attempt is another object.
        let mut again = pod.clone();
        again.config.metadata.as_mut().unwrap().attempt = 1;
        let other = client.run_pod(&again).await.unwrap();
        assert_ne!(other, id);
        let mut again = container;
        let error = client.create(&id, &pod, &again).await.unwrap_err();
        assert_eq!(error.code(), Code::AlreadyExists, "{error}");
        again.config.metadata.as_mut().unwrap().attempt = 1;
        assert_ne!(client.create(&id, &pod, &again).await.unwrap(), main);
        assert_eq!((client.pods().await.len(), client.containers().await.len()), (2, 2));
    });
}

/// The one answer that all get who ask at the same time.
async fn all_get_one(
    client: &Client,
    ask: impl AsyncFn(Client) -> Result<String, tonic::Status>,
) -> String {
    let mut answers = HashSet::new();
    let asked: Vec<_> = (0..12).map(|_| Box::pin(ask(client.clone()))).collect();
    let mut asked: std::collections::VecDeque<_> = asked.into();
    // Polled in turn: all are under way before the first is waited for.
    let waker = std::task::Waker::noop();
    let mut context = std::task::Context::from_waker(waker);
    for call in &mut asked {
        if let std::task::Poll::Ready(answer) = call.as_mut().poll(&mut context) {
            answers.insert(answer.expect("an answer"));
        }
    }
    while let Some(call) = asked.pop_front() {
        answers.insert(call.await.expect("an answer"));
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    answers.into_iter().next().unwrap()
}

/// A small generator; its seed makes a failing order come again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit
    }
}

/// The whole life of a pod, with duplicates and in an order of the dice.
async fn live(mut client: Client, pod: Pod, image: String, mut dice: Dice) {
    let id = client.run_pod(&pod).await.unwrap();
    let mut containers = Vec::new();
    for number in 0..1 + dice.below(2) {
        let container = Container::shell(&format!("c{number}"), &image, "exec sleep 1000");
        let created = client.create(&id, &pod, &container).await.unwrap();
        if dice.below(4) > 0 {
            client.start(&created).await.unwrap();
            if dice.below(2) == 0 {
                assert_eq!(client.shell(&created, "echo here").await, "here\n");
            }
        }
        containers.push(created);
    }
    let mut ends = JoinSet::new();
    for _ in 0..2 + dice.below(6) {
        let mut client = client.clone();
        let (id, container) =
            (id.clone(), containers[dice.below(containers.len() as u64) as usize].clone());
        let what = dice.below(4);
        ends.spawn(async move {
            match what {
                0 => client.stop(&container, 0).await,
                1 => client.remove(&container).await,
                2 => client.stop_pod(&id).await,
                _ => client.remove_pod(&id).await,
            }
        });
    }
    while let Some(ended) = ends.join_next().await {
        ended.unwrap().unwrap();
    }
    for _ in 0..2 {
        client.stop_pod(&id).await.unwrap();
        client.remove_pod(&id).await.unwrap();
    }
    assert_eq!(client.pod_status(&id).await.unwrap_err().code(), Code::NotFound);
}

#[test]
fn thirty_pods_that_end_in_any_order() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let image = machine.image("busybox");
        client.pull(&image).await.unwrap();
        let mut lives = JoinSet::<Result<(), tokio::time::error::Elapsed>>::new();
        for number in 0..30 {
            while lives.len() >= 8 {
                lives.join_next().await.unwrap().unwrap().expect("a life within its time");
            }
            let pod = Pod::new(machine, &format!("pod{number}"));
            let life = live(client.clone(), pod, image.clone(), Dice(number + 1));
            lives.spawn(tokio::time::timeout(CALL_TIMEOUT, life));
        }
        while let Some(life) = lives.join_next().await {
            life.unwrap().expect("a life within its time");
        }
        assert!(client.pods().await.is_empty() && client.containers().await.is_empty());
    });
}

#[test]
fn stop_and_remove_may_be_asked_twice_and_of_nothing() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let image = machine.image("busybox");
        client.pull(&image).await.unwrap();
        let pod = Pod::new(machine, "twice");
        let id = client.run_pod(&pod).await.unwrap();
        let container = Container::shell("main", &image, "exec sleep 1000");
        let main = client.run(&id, &pod, &container).await.unwrap();
        for _ in 0..2 {
            client.stop(&main, 0).await.unwrap();
        }
        assert_eq!(client.status(&main).await.unwrap().exit_code, 137);
        for _ in 0..2 {
            client.remove(&main).await.unwrap();
        }
        for _ in 0..2 {
            client.stop_pod(&id).await.unwrap();
        }
        for _ in 0..2 {
            client.remove_pod(&id).await.unwrap();
        }
        let nobody = "0123456789abcdef".repeat(4);
        client.stop(&nobody, 0).await.unwrap();
        client.remove(&nobody).await.unwrap();
        client.stop_pod(&nobody).await.unwrap();
        client.remove_pod(&nobody).await.unwrap();
        assert_eq!(client.start(&nobody).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(client.status(&nobody).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(client.pod_status(&nobody).await.unwrap_err().code(), Code::NotFound);
        let error = client.exec(&nobody, &["true"], 1).await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
        let error = client.create(&nobody, &pod, &container).await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
        let image = Some(cri::ImageSpec { image: nobody, ..Default::default() });
        client.images.remove_image(cri::RemoveImageRequest { image }).await.unwrap();
        // An empty id would begin every other.
        assert_eq!(client.remove_pod("").await.unwrap_err().code(), Code::InvalidArgument);
    });
}

#[test]
fn a_running_pod_is_removed_at_once() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let image = machine.image("busybox");
        client.pull(&image).await.unwrap();
        let pod = Pod::new(machine, "running");
        let id = client.run_pod(&pod).await.unwrap();
        for name in ["one", "two"] {
            let container = Container::shell(name, &image, "exec sleep 1000");
            client.run(&id, &pod, &container).await.unwrap();
        }
        client.remove_pod(&id).await.unwrap();
        assert!(client.pods().await.is_empty() && client.containers().await.is_empty());
        // The name is free again, and gives another one.
        assert_ne!(client.run_pod(&pod).await.unwrap(), id);
    });
}

#[test]
fn a_pod_that_is_removed_while_it_is_used() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let image = machine.image("busybox");
        client.pull(&image).await.unwrap();
        for round in 0..8 {
            let pod = Pod::new(machine, &format!("used{round}"));
            let id = client.run_pod(&pod).await.unwrap();
            let mut uses = JoinSet::new();
            for number in 0..4 {
                let (mut client, id, pod) = (client.clone(), id.clone(), pod.clone());
                let container = Container::shell(&format!("c{number}"), &image, "exec sleep 1000");
                uses.spawn(async move {
                    let created = client.create(&id, &pod, &container).await?;
                    client.start(&created).await
                });
            }
            tokio::time::sleep(Duration::from_millis(round * 4)).await;
            client.remove_pod(&id).await.unwrap();
            while let Some(used) = uses.join_next().await {
                let _ = used.unwrap();
            }
            assert!(client.containers().await.is_empty());
        }
    });
}
