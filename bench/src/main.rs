//! Corten and its peers, measured over CRI. `cargo xtask bench` builds what is
//! shipped and runs this.
//!
//! Nothing here passes or fails but the measuring itself.
#![forbid(unsafe_code)]

use std::io::{BufReader, stdin, stdout};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use corten_bench::floor::{self, FLOOR};
use corten_bench::home::{KEEPER, keeper};
use corten_bench::output;
use corten_bench::plan::Plan;
use corten_bench::report::{Report, history};
use corten_bench::session::Session;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let outcome = match arguments.as_slice() {
        [_, first, task] if first == KEEPER => keeper::keep(task),
        [_, first, below] if first == FLOOR => {
            floor::serve(below.as_ref(), BufReader::new(stdin()), stdout())
        }
        _ => bench(Plan::parse()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(plan: Plan) -> Result<()> {
    if let Some(figures) = &plan.redraw {
        let directory = figures.parent().unwrap_or(Path::new("."));
        return output::write_views(&Report::read(figures)?, directory);
    }
    if !rustix::process::geteuid().is_root() {
        bail!("pods are root's to run: sudo make bench");
    }
    let output = plan.output.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("unable to make a runtime")?;
    let (mut report, left) = runtime.block_on(measure(plan))?;
    history::add(&mut report);
    print!("{}", corten_bench::report::text(&report));
    output::write(&report, &output)?;
    println!("\n{}", output.display());
    if !left.is_empty() {
        bail!("something was left behind: {}", left.join("; "));
    }
    Ok(())
}

/// Measures, or as much of it as there is time for until somebody presses
/// Ctrl-C; then nothing is reported. Everything is removed again: what could
/// not be is told.
async fn measure(plan: Plan) -> Result<(Report, Vec<String>)> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut session = Session::new(plan)?;
    let outcome = tokio::select! {
        outcome = session.run() => Some(outcome),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
        _ = hangup.recv() => None,
    };
    let Some(outcome) = outcome else {
        eprintln!("bench: interrupted; everything is removed again");
        session.abandon().await;
        bail!("interrupted");
    };
    let report = session.report.clone();
    let left = session.leave().await;
    outcome.map(|()| (report, left))
}
