//! The end of a container that has just written 200 MB, none of it on the disk
//! yet.

use anyhow::{Context as _, Result, ensure};
use corten_tests::client::{Container, Pod};

use super::Kind;
use crate::operations::catalogue as keys;
use crate::report::Report;
use crate::runtimes::{Running, Subject};

const RUNS: usize = 4;
/// What is written, and what the container may use: its cache counts.
const SCRIPT: &str = "dd if=/dev/zero of=/big bs=1M count=200";
const MEMORY_BYTES: i64 = 512 << 20;

/// Measures it, runtimes in turns.
pub async fn measure(report: &mut Report, subjects: &mut [&mut Subject]) {
    let kind = Kind { start: None, stop: keys::DIRTY_STOP, shape: &roomy };
    kind.measure(report, subjects, RUNS, write).await;
}

fn roomy(subject: &Subject, name: &str) -> Result<(Pod, Vec<Container>)> {
    let mut container = subject.container("main");
    container.linux().resources.get_or_insert_default().memory_limit_in_bytes = MEMORY_BYTES;
    Ok((subject.pod(name)?, vec![container]))
}

async fn write(subject: &Subject, running: &Running) -> Result<()> {
    let exec = ["sh", "-c", SCRIPT];
    let mut client = subject.client();
    let written = client.exec(running.container(), &exec, 30).await.context("ExecSync")?;
    ensure!(written.0 == 0, "dd ended with {}: {}", written.0, written.2);
    Ok(())
}
