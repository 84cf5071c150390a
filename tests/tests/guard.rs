//! What each operation may cost, counted and never timed: `tests/guard.toml`
//! has the bounds.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use corten_api::cri;
use corten_tests::client::{Container, Pod};
use corten_tests::drift::mounts;
use corten_tests::group::by_systemd;
use corten_tests::trace::Counts;
use corten_tests::{Client, Daemon, Machine, Trace};
use futures_util::StreamExt as _;
use futures_util::stream::iter;
use serde::{Deserialize, Serialize};

/// How much more than in the file the calls of an operation may be, in all:
/// what is sent and received comes in more or fewer pieces.
const CALLS_SLACK_PERCENT: u64 = 6;
/// At least so many.
const CALLS_SLACK_MIN: u64 = 4;
/// On a busy machine the records of an operation come in three commits instead
/// of one, each with two calls.
const COMMITS_SLACK: usize = 4;
/// Each operation is done so often; see [`fewest`].
const ROUNDS: usize = 3;
/// Pods among which another one lives.
const FEW: usize = 10;
const MANY: usize = 100;
/// How many calls more an operation may take among many, for the reason of
/// [`CALLS_SLACK_PERCENT`]: less than one for ten of the pods that came.
const GROWTH_MAX: u64 = 8;
/// How many pods are made at once.
const AT_ONCE: usize = 8;
/// Pods that rest.
const PODS_AT_REST: usize = 8;
/// How long nothing may happen in them.
const REST: Duration = Duration::from_secs(5);
/// How often that is tried: threads that had work leave when there was none for
/// ten seconds.
const RESTS: usize = 5;
/// Mounts that the host sees of a pod: its network namespace, as a path.
const MOUNTS_OF_A_POD: usize = 1;
/// Writes the bounds as they were found instead of judging by them.
const WRITE: &str = "CORTEN_GUARD_WRITE";

/// What an operation may cost.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Bounds {
    /// All calls.
    calls: u64,
    /// Of some kinds; of others that have a name there, none.
    kinds: BTreeMap<String, usize>,
    /// What all were when they were written down, to show what has grown.
    by_call: BTreeMap<String, u64>,
}

type Table = BTreeMap<String, Bounds>;

/// What was counted, round by round.
#[derive(Default)]
struct Found(BTreeMap<&'static str, Vec<Counts>>);

impl Found {
    async fn count<T>(
        &mut self,
        trace: &mut Trace,
        operation: &'static str,
        work: impl Future<Output = T>,
    ) -> T {
        let (outcome, counts) = trace.during(work).await;
        self.0.entry(operation).or_default().push(counts);
        outcome
    }

    /// The bounds that fit.
    fn table(&self) -> Table {
        let bounds = |rounds: &Vec<Counts>| {
            let calls = fewest(rounds, Counts::calls);
            let kinds = calls.kinds.keys().map(|kind| {
                let count = |counts: &Counts| counts.of(kind).len();
                ((*kind).to_owned(), count(fewest(rounds, count)))
            });
            Bounds { calls: calls.calls(), kinds: kinds.collect(), by_call: calls.by_call.clone() }
        };
        self.0.iter().map(|(operation, rounds)| ((*operation).to_owned(), bounds(rounds))).collect()
    }

    /// What is more than so many times what it was, in words.
    fn growth(&self, before: &Self, times: u64) -> String {
        let mut text = String::new();
        for (operation, rounds) in &self.0 {
            let few = &before.0[operation];
            let (now, then) = (fewest(rounds, Counts::calls), fewest(few, Counts::calls));
            let most = times * then.calls() + GROWTH_MAX;
            if now.calls() > most {
                text += &format!("{operation}: {} calls → {}\n", then.calls(), now.calls());
                text += &grown_calls(&then.by_call, &now.by_call, times);
            }
            for kind in now.kinds.keys().filter(|kind| **kind != "commits") {
                let count = |rounds| fewest(rounds, |counts| counts.of(kind).len()).of(kind).len();
                let (then, now) = (count(few), count(rounds));
                if now as u64 > times * then as u64 {
                    text += &format!("{operation}: {kind}: {then} → {now}\n");
                }
            }
        }
        text
    }

    /// What is more than it may be, in words.
    fn excesses(&self, table: &Table) -> String {
        let mut text = String::new();
        for (operation, rounds) in &self.0 {
            let Some(bounds) = table.get(*operation) else {
                text += &format!("{operation} has no bounds\n");
                continue;
            };
            excess_of_kinds(operation, rounds, bounds, &mut text);
            excess_of_calls(operation, rounds, bounds, &mut text);
        }
        text
    }
}

/// The round with the fewest: a retry in one of them is no regression.
fn fewest<N: Ord>(rounds: &[Counts], count: impl Fn(&Counts) -> N) -> &Counts {
    rounds.iter().min_by_key(|counts| count(counts)).expect("there was a round")
}

fn excess_of_kinds(operation: &str, rounds: &[Counts], bounds: &Bounds, text: &mut String) {
    for kind in rounds.iter().flat_map(|counts| counts.kinds.keys()).collect::<BTreeSet<_>>() {
        let slack = if *kind == "commits" { COMMITS_SLACK } else { 0 };
        let most = bounds.kinds.get(*kind).copied().unwrap_or(0) + slack;
        let calls = fewest(rounds, |counts| counts.of(kind).len()).of(kind);
        if calls.len() > most {
            let (count, calls) = (calls.len(), calls.join("\n    "));
            *text += &format!("{operation}: {kind}: {most} → {count}\n    {calls}\n");
        }
    }
}

fn excess_of_calls(operation: &str, rounds: &[Counts], bounds: &Bounds, text: &mut String) {
    let counts = fewest(rounds, Counts::calls);
    let (before, now) = (bounds.calls, counts.calls());
    let most = before + (before * CALLS_SLACK_PERCENT).div_ceil(100).max(CALLS_SLACK_MIN);
    if now <= most {
        return;
    }
    *text += &format!("{operation}: calls: {before} → {now}, at most {most}\n");
    *text += &grown_calls(&bounds.by_call, &counts.by_call, 1);
}

/// The calls that there are more of than so many times as before.
fn grown_calls(before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>, times: u64) -> String {
    let mut text = String::new();
    for (call, count) in now {
        let before = before.get(call).copied().unwrap_or(0);
        if *count > times * before {
            text += &format!("    {call}: {before} → {count}\n");
        }
    }
    text
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("guard.toml")
}

/// One pod's life, operation by operation.
async fn live(found: &mut Found, trace: &mut Trace, client: &mut Client, pod: &Pod, image: &str) {
    let container = Container::of_kubelet(image);
    let id = found.count(trace, "RunPodSandbox", client.run_pod(pod)).await.unwrap();
    let create = client.create(&id, pod, &container);
    let main = found.count(trace, "CreateContainer", create).await.unwrap();
    found.count(trace, "StartContainer", client.start(&main)).await.unwrap();
    let exec = client.exec(&main, &["true"], 10);
    assert_eq!(found.count(trace, "ExecSync", exec).await.unwrap().0, 0);
    let exec = client.exec(&main, &["true"], 10);
    assert_eq!(found.count(trace, "ExecSync, the second", exec).await.unwrap().0, 0);
    found.count(trace, "StopContainer", client.stop(&main, 0)).await.unwrap();
    found.count(trace, "RemoveContainer", client.remove(&main)).await.unwrap();
    found.count(trace, "StopPodSandbox", client.stop_pod(&id)).await.unwrap();
    found.count(trace, "RemovePodSandbox", client.remove_pod(&id)).await.unwrap();
}

/// What is asked about so many pods that run, each with one container.
async fn look(found: &mut Found, trace: &mut Trace, client: &mut Client, pods: usize) {
    let containers = found.count(trace, "ListContainers", client.containers()).await;
    assert_eq!(containers.len(), pods);
    let sandboxes = found.count(trace, "ListPodSandbox", client.pods()).await;
    assert_eq!(sandboxes.len(), pods);
    let stats = client.runtime.list_container_stats(cri::ListContainerStatsRequest::default());
    let stats = found.count(trace, "ListContainerStats", stats).await.unwrap();
    assert_eq!(stats.into_inner().stats.len(), pods);
    let stats = client.runtime.list_pod_sandbox_stats(cri::ListPodSandboxStatsRequest::default());
    let stats = found.count(trace, "ListPodSandboxStats", stats).await.unwrap();
    assert_eq!(stats.into_inner().stats.len(), pods);
    let metrics = cri::ListPodSandboxMetricsRequest::default();
    let metrics = client.runtime.list_pod_sandbox_metrics(metrics);
    let metrics = found.count(trace, "ListPodSandboxMetrics", metrics).await.unwrap();
    assert_eq!(metrics.into_inner().pod_metrics.len(), pods);
}

#[test]
fn operations_cost_what_they_did() {
    Machine::run(async |machine, daemon| {
        let (mut client, image) = ready(machine, daemon).await;
        // The first of all fills pools and caches.
        let first = run(machine, &mut client, "first", &image).await;
        client.stop_pod(&first).await.unwrap();
        client.remove_pod(&first).await.unwrap();
        let mut trace = Trace::of(machine, daemon).await;
        trace.settle().await;
        let mut found = Found::default();
        for round in 0..ROUNDS {
            let pod = Pod::of_kubelet(machine, &format!("pod{round}"));
            live(&mut found, &mut trace, &mut client, &pod, &image).await;
        }
        judge("operations", &found);
    });
}

#[test]
fn a_pod_costs_among_many_what_it_costs_among_few() {
    Machine::run(async |machine, daemon| {
        let (mut client, image) = ready(machine, daemon).await;
        stand(machine, &client, &image, 0..FEW).await;
        let (few, few_lists) = among(machine, daemon, &mut client, &image, FEW, 1).await;
        stand(machine, &client, &image, FEW..MANY).await;
        let mut grown = String::new();
        for round in 1..=ROUNDS {
            let (many, many_lists) = among(machine, daemon, &mut client, &image, MANY, round).await;
            let times = (MANY / FEW) as u64;
            grown = many.growth(&few, 1) + &many_lists.growth(&few_lists, times);
            if grown.is_empty() {
                return;
            }
        }
        panic!("among {MANY} pods, against {FEW}:\n{grown}");
    });
}

#[test]
fn pods_at_rest_cost_nothing_and_lists_little() {
    Machine::run(async |machine, daemon| {
        let (mut client, image) = ready(machine, daemon).await;
        let before = mounts(machine).len();
        for number in 0..PODS_AT_REST {
            run(machine, &mut client, &format!("pod{number}"), &image).await;
        }
        assert_eq!(mounts(machine).len() - before, PODS_AT_REST * MOUNTS_OF_A_POD);
        let mut trace = Trace::of(machine, daemon).await;
        trace.settle().await;
        let mut found = Found::default();
        for _ in 0..ROUNDS {
            look(&mut found, &mut trace, &mut client, PODS_AT_REST).await;
        }
        judge("lists", &found);
        let mut seen = Vec::new();
        for _ in 0..RESTS {
            seen = trace.disturbances(REST).await;
            if seen.is_empty() {
                return;
            }
        }
        panic!("in {REST:?} of rest, with {PODS_AT_REST} pods:\n{}", seen.concat());
    });
}

/// What a pod's life costs among so many, and what is asked about them.
async fn among(
    machine: &Machine,
    daemon: &Daemon,
    client: &mut Client,
    image: &str,
    pods: usize,
    round: usize,
) -> (Found, Found) {
    let mut trace = Trace::of(machine, daemon).await;
    trace.settle().await;
    let (mut life, mut lists) = (Found::default(), Found::default());
    let pod = Pod::of_kubelet(machine, &format!("among{pods}-{round}"));
    live(&mut life, &mut trace, client, &pod, image).await;
    look(&mut lists, &mut trace, client, pods).await;
    (life, lists)
}

/// Makes pods with these numbers, each with a container that runs.
async fn stand(machine: &Machine, client: &Client, image: &str, numbers: Range<usize>) {
    let make = async |number: usize| {
        run(machine, &mut client.clone(), &format!("standing{number}"), image).await;
    };
    iter(numbers).for_each_concurrent(AT_ONCE, make).await;
}

async fn ready(machine: &Machine, daemon: &Daemon) -> (Client, String) {
    let mut client = daemon.client().await;
    let image = machine.image("busybox");
    client.pull(&image).await.expect("the image is pulled");
    (client, image)
}

/// A pod whose container runs: its id.
async fn run(machine: &Machine, client: &mut Client, name: &str, image: &str) -> String {
    let pod = Pod::of_kubelet(machine, name);
    let id = client.run_pod(&pod).await.expect("the pod runs");
    client.run(&id, &pod, &Container::of_kubelet(image)).await.expect("the container runs");
    id
}

/// Whether the machine is of the kind that the bounds are of: with hierarchies
/// of v1 and v2 side by side. One group for each takes other calls than one.
fn is_comparable() -> bool {
    Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() && !by_systemd()
}

fn judge(part: &str, found: &Found) {
    if !is_comparable() {
        eprintln!("not judged: tests/guard.toml is of machines with cgroups of v1 and v2");
        return;
    }
    let text = std::fs::read_to_string(file()).expect("the bounds are read");
    let mut all: BTreeMap<String, Table> = toml::from_str(&text).expect("bounds");
    if std::env::var_os(WRITE).is_some() {
        all.insert(part.to_owned(), found.table());
        let head: String = text
            .lines()
            .take_while(|line| line.starts_with('#'))
            .fold(String::new(), |head, line| head + line + "\n");
        let table = toml::to_string(&all).expect("a table");
        std::fs::write(file(), format!("{head}\n{table}")).expect("the bounds are written");
        return;
    }
    let excesses = found.excesses(&all.remove(part).unwrap_or_default());
    assert!(excesses.is_empty(), "more than in tests/guard.toml:\n{excesses}");
}
