//! Fifty pods: made and taken away by several clients at once, and what they
//! cost while they do nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use corten_api::cri;
use corten_tests::{Client, Daemon, Machine};
use tokio::sync::Mutex;

use crate::pod::{self, Running};
use crate::process;
use crate::report::{Report, Unit};

const PODS: usize = 50;
const CONCURRENCY: usize = 8;
/// A crowd takes seconds, so there are fewer of them.
const ROUNDS_MAX: usize = 10;
/// How long the daemon's use of the processor is watched.
const IDLE: Duration = Duration::from_secs(30);

/// Measures crowds.
pub async fn measure(report: &mut Report, runs: usize, machine: &Machine, daemon: &mut Daemon) {
    let rounds = runs.min(ROUNDS_MAX);
    let (mut up, mut down) = (Vec::new(), Vec::new());
    let mut client = daemon.client().await;
    client.pull(&machine.image("busybox")).await.expect("the image");
    for round in 0..rounds {
        let start = Instant::now();
        let pods = make(machine, &client, round).await;
        up.push(start.elapsed().as_secs_f64() * 1e3);
        if round + 1 == rounds {
            standing(report, runs, &pods, daemon).await;
            client = daemon.client().await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let start = Instant::now();
        take_away(&client, pods).await;
        down.push(start.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    report.row("50 pods up, 8 at once", Unit::Milliseconds, up);
    report.row("50 pods down, 8 at once", Unit::Milliseconds, down);
}

/// What fifty pods cost that only stand there.
async fn standing(report: &mut Report, runs: usize, pods: &[Running], daemon: &mut Daemon) {
    tokio::time::sleep(Duration::from_secs(1)).await;
    let shims = pods.iter().filter_map(|running| process::shim_of(&running.pod));
    report.row("shim PSS, 50 pods", Unit::Kilobytes, shims.filter_map(process::pss_kb).collect());
    let pss = process::pss_kb(daemon.pid()).unwrap_or_default();
    report.row("daemon PSS, 50 pods", Unit::Kilobytes, vec![pss]);
    let before = process::CpuTime::of(daemon.pid());
    tokio::time::sleep(IDLE).await;
    let used = process::CpuTime::of(daemon.pid()).ms_since(&before);
    report.row("daemon CPU, 30 s idle, 50 pods", Unit::Milliseconds, vec![used]);
    let mut client = daemon.client().await;
    let (mut containers, mut sandboxes, mut restarts) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let start = Instant::now();
        let listed = client.containers().await.len();
        containers.push(start.elapsed().as_secs_f64() * 1e3);
        assert_eq!(listed, PODS, "every container is listed");
        let start = Instant::now();
        let listed = client.pods().await.len();
        sandboxes.push(start.elapsed().as_secs_f64() * 1e3);
        assert_eq!(listed, PODS, "every pod is listed");
    }
    report.row("ListContainers of 50", Unit::Milliseconds, containers);
    report.row("ListPodSandbox of 50", Unit::Milliseconds, sandboxes);
    figures(report, runs, &mut client).await;
    for _ in 0..runs.min(ROUNDS_MAX) {
        daemon.kill();
        let start = Instant::now();
        daemon.spawn();
        first_list(daemon).await;
        restarts.push(start.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    report.row("daemon start to first list of 50", Unit::Milliseconds, restarts);
}

/// What kubelets and Prometheus ask for again and again.
async fn figures(report: &mut Report, runs: usize, client: &mut Client) {
    let (mut containers, mut pods, mut metrics) = (Vec::new(), Vec::new(), Vec::new());
    let runtime = &mut client.runtime;
    for _ in 0..runs {
        let start = Instant::now();
        let request = cri::ListContainerStatsRequest::default();
        let listed = runtime.list_container_stats(request).await.expect("a list");
        containers.push(start.elapsed().as_secs_f64() * 1e3);
        assert_eq!(listed.get_ref().stats.len(), PODS, "every container has figures");
        let start = Instant::now();
        let request = cri::ListPodSandboxStatsRequest::default();
        let listed = runtime.list_pod_sandbox_stats(request).await.expect("a list");
        pods.push(start.elapsed().as_secs_f64() * 1e3);
        assert_eq!(listed.get_ref().stats.len(), PODS, "every pod has figures");
        let start = Instant::now();
        let request = cri::ListPodSandboxMetricsRequest::default();
        let listed = runtime.list_pod_sandbox_metrics(request).await.expect("a list");
        metrics.push(start.elapsed().as_secs_f64() * 1e3);
        assert_eq!(listed.get_ref().pod_metrics.len(), PODS, "every pod has metrics");
    }
    report.row("ListContainerStats of 50", Unit::Milliseconds, containers);
    report.row("ListPodSandboxStats of 50", Unit::Milliseconds, pods);
    report.row("ListPodSandboxMetrics of 50", Unit::Milliseconds, metrics);
}

/// Asks until the daemon lists all containers.
async fn first_list(daemon: &Daemon) {
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(mut client) = Client::try_connect(daemon.socket()).await {
            let listed =
                client.runtime.list_containers(cri::ListContainersRequest::default()).await;
            if listed.is_ok_and(|list| list.get_ref().containers.len() == PODS) {
                return;
            }
        }
        assert!(Instant::now() < patience, "the daemon does not answer");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn make(machine: &Machine, client: &Client, round: usize) -> Vec<Running> {
    let next = AtomicUsize::new(0);
    let image = machine.image("busybox");
    let work = |mut client: Client| {
        let (next, image) = (&next, &image);
        async move {
            let mut made = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= PODS {
                    return made;
                }
                let name = format!("pod-{round}-{number}");
                made.push(pod::start(machine, &mut client, &name, image).await);
            }
        }
    };
    let made = at_once(client, work).await;
    made.into_iter().flatten().collect()
}

async fn take_away(client: &Client, pods: Vec<Running>) {
    let pods = Arc::new(Mutex::new(pods));
    at_once(client, |mut client: Client| {
        let pods = pods.clone();
        async move {
            loop {
                let Some(running) = pods.lock().await.pop() else { return };
                pod::end(&mut client, running).await;
            }
        }
    })
    .await;
}

/// Several clients, each with its own share of the work.
async fn at_once<T, F: Future<Output = T>>(client: &Client, work: impl Fn(Client) -> F) -> Vec<T> {
    let all: Vec<_> = (0..CONCURRENCY).map(|_| work(client.clone())).collect();
    futures_util::future::join_all(all).await
}
