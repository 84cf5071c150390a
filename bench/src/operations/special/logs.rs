//! What stands by a pod, after each of its three containers has said a
//! megabyte.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use corten_tests::client::log_path;

use crate::measure::process;
use crate::operations::{attempt, catalogue as keys, note};
use crate::report::{Report, Unit};
use crate::runtimes::Subject;

/// Programs are shared: of one pod alone, its monitor would seem to have all
/// of it.
const PODS: usize = 4;
const CONTAINERS: [&str; 3] = ["one", "two", "three"];
/// What each container says.
const BYTES: u64 = 1 << 20;
/// Waits for a word, talks, and is quiet.
const SCRIPT: &str = "mkfifo /go; read word < /go; \
    yes 'It is not the rust that kills a bridge, but the paint that hides it.' | head -c 1048576; \
    sleep 1000000";
/// A line's stamp and stream make a log longer than what was said.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long all of it may take.
const PATIENCE_FOR_ALL: Duration = Duration::from_secs(120);

/// Measures it.
pub async fn measure(report: &mut Report, subjects: &mut [&mut Subject]) {
    for subject in subjects.iter_mut().filter(|subject| subject.knows_monitors()) {
        attempt(report, subject, keys::TALKED, None, PATIENCE_FOR_ALL, talk).await;
    }
}

async fn talk(report: &mut Report, subject: &mut Subject) -> Result<()> {
    let (mut pods, mut logs) = (Vec::new(), Vec::new());
    for number in 0..PODS {
        let pod = subject.pod(&format!("logs-{number}"))?;
        let containers = CONTAINERS.map(|name| {
            let mut container = subject.container(name);
            container.config.command = ["sh", "-c", SCRIPT].map(str::to_owned).into();
            container
        });
        logs.extend(containers.iter().map(|container| log_path(&pod, container)));
        pods.push(subject.start_prepared(&pod, &containers).await?);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let silent = monitors(subject)?;
    let mut client = subject.client();
    for container in pods.iter().flat_map(|pod| &pod.containers) {
        let word = ["sh", "-c", "until [ -p /go ]; do sleep 0.1; done; echo > /go"];
        let (code, _, said) = client.exec(container, &word, 20).await.context("ExecSync")?;
        ensure!(code == 0, "the word was not given: {said}");
    }
    written(&logs).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let figures = [(keys::SILENT, silent), (keys::TALKED, monitors(subject)?)];
    for (key, value) in figures {
        note(report, subject, key, None, Unit::Kilobytes, [value]);
    }
    for pod in &pods {
        subject.end_pod(pod).await?;
        subject.forget(&pod.name);
    }
    Ok(())
}

/// PSS of the monitors, for each pod.
fn monitors(subject: &Subject) -> Result<f64> {
    let all = subject.monitors()?.into_iter().filter_map(process::pss_kb);
    Ok(all.sum::<f64>() / PODS as f64)
}

/// Waits until all has been written.
async fn written(logs: &[PathBuf]) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let whole = |log: &PathBuf| std::fs::metadata(log).is_ok_and(|log| log.len() > BYTES);
    while !logs.iter().all(whole) {
        ensure!(Instant::now() < deadline, "the logs are not written");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
