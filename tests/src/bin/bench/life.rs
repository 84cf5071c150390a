//! One pod after another on a quiet node: each call of its life.

use std::time::{Duration, Instant};

use corten_tests::{Client, Daemon, Machine};

use crate::pod;
use crate::process;
use crate::report::{Report, Unit};

/// Pods before the first that counts.
const WARM_UP: usize = 3;
/// Between two pods: what the daemon does in the background is done by then,
/// and the kernel has gone quiet. Pods seldom come in a row.
const PAUSE: Duration = Duration::from_millis(150);

/// Milliseconds of every call.
#[derive(Default)]
struct Times {
    run_pod: Vec<f64>,
    create: Vec<f64>,
    start: Vec<f64>,
    up: Vec<f64>,
    exec: Vec<f64>,
    stop: Vec<f64>,
    remove: Vec<f64>,
    stop_pod: Vec<f64>,
    remove_pod: Vec<f64>,
    down: Vec<f64>,
    shim_pss: Vec<f64>,
}

/// Measures `runs` pods.
pub async fn measure(report: &mut Report, runs: usize, machine: &Machine, daemon: &Daemon) {
    let mut client = daemon.client().await;
    pod::network_ready(&mut client).await;
    let image = machine.image("busybox");
    client.pull(&image).await.expect("the image");
    let mut times = Times::default();
    for run in 0..WARM_UP + runs {
        if run == WARM_UP {
            times = Times::default();
        }
        live(&mut times, machine, &mut client, &format!("pod-{run}"), &image).await;
        tokio::time::sleep(PAUSE).await;
    }
    let rows = [
        ("pod start", times.up),
        ("  RunPodSandbox", times.run_pod),
        ("  CreateContainer", times.create),
        ("  StartContainer", times.start),
        ("ExecSync true", times.exec),
        ("stop and remove", times.down),
        ("  StopContainer", times.stop),
        ("  RemoveContainer", times.remove),
        ("  StopPodSandbox", times.stop_pod),
        ("  RemovePodSandbox", times.remove_pod),
    ];
    for (name, values) in rows {
        report.row(name, Unit::Milliseconds, values);
    }
    report.row("shim PSS, one pod", Unit::Kilobytes, times.shim_pss);
    let idle = process::pss_kb(daemon.pid()).unwrap_or_default();
    report.row("daemon PSS, idle", Unit::Kilobytes, vec![idle]);
}

async fn live(times: &mut Times, machine: &Machine, client: &mut Client, name: &str, image: &str) {
    let (config, main) = (pod::pod(machine, name), pod::container(image));
    let mut clock = Clock::start();
    let id = client.run_pod(&config).await.expect("a sandbox");
    clock.lap(&mut times.run_pod);
    let container = client.create(&id, &config, &main).await.expect("a container");
    clock.lap(&mut times.create);
    client.start(&container).await.expect("it starts");
    clock.lap(&mut times.start);
    clock.total(&mut times.up);

    tokio::time::sleep(PAUSE).await;
    times.shim_pss.extend(process::shim_of(&id).and_then(process::pss_kb));
    let mut clock = Clock::start();
    let (code, ..) = client.exec(&container, &["true"], 10).await.expect("an exec");
    clock.lap(&mut times.exec);
    assert_eq!(code, 0, "true is true");

    tokio::time::sleep(PAUSE).await;
    let mut clock = Clock::start();
    client.stop(&container, 0).await.expect("it stops");
    clock.lap(&mut times.stop);
    client.remove(&container).await.expect("it goes");
    clock.lap(&mut times.remove);
    client.stop_pod(&id).await.expect("the pod stops");
    clock.lap(&mut times.stop_pod);
    client.remove_pod(&id).await.expect("the pod goes");
    clock.lap(&mut times.remove_pod);
    clock.total(&mut times.down);
}

/// A stop watch with laps, in milliseconds.
struct Clock {
    start: Instant,
    lap: Instant,
}

impl Clock {
    fn start() -> Self {
        let now = Instant::now();
        Self { start: now, lap: now }
    }

    fn lap(&mut self, into: &mut Vec<f64>) {
        let now = Instant::now();
        into.push((now - self.lap).as_secs_f64() * 1e3);
        self.lap = now;
    }

    fn total(&self, into: &mut Vec<f64>) {
        into.push((self.lap - self.start).as_secs_f64() * 1e3);
    }
}
