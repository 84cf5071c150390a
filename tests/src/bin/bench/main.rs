//! What a pod costs: measured over the CRI socket, as the kubelet would feel
//! it. `cargo xtask bench` builds what is shipped and runs this.
//!
//! Every figure is the median of as many runs as are asked for; nothing here
//! passes or fails.
#![forbid(unsafe_code)]

mod crowd;
mod facts;
mod life;
mod pod;
mod process;
mod report;

use std::path::PathBuf;

use corten_tests::machine::Settings;
use corten_tests::{Daemon, Machine};

use crate::report::Report;

/// How often each thing is done, unless `--runs` says otherwise.
const RUNS: usize = 30;

/// What to measure.
struct Plan {
    runs: usize,
    crowds: bool,
    cni: bool,
    json: Option<PathBuf>,
}

fn main() {
    let plan = match parse(std::env::args().skip(1)) {
        Ok(plan) => plan,
        Err(problem) => {
            eprintln!(
                "bench: {problem}\nusage: bench [--runs N] [--no-crowd] [--no-cni] [--json FILE]"
            );
            std::process::exit(2);
        }
    };
    let mut report = Report::new(facts::gather());
    let builtin = Settings { builtin_network: true, ..Settings::default() };
    Machine::run_with(builtin, async |machine, daemon| {
        measure(&mut report, "built-in bridge", &plan, machine, daemon).await;
    });
    if plan.cni {
        Machine::run_with(Settings::default(), async |machine, daemon| {
            pod::configure_cni(machine);
            measure(&mut report, "CNI bridge plugin", &plan, machine, daemon).await;
        });
    }
    report.finish();
    println!("{report}");
    if let Some(path) = &plan.json {
        std::fs::write(path, report.json()).expect("the figures are written");
    }
}

async fn measure(
    report: &mut Report,
    network: &str,
    plan: &Plan,
    machine: &Machine,
    daemon: &mut Daemon,
) {
    report.section(network);
    life::measure(report, plan.runs, machine, daemon).await;
    if plan.crowds {
        crowd::measure(report, plan.runs, machine, daemon).await;
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Plan, String> {
    let mut plan = Plan { runs: RUNS, crowds: true, cni: true, json: None };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--runs" => {
                let number = arguments.next().and_then(|text| text.parse().ok());
                plan.runs =
                    number.filter(|runs| *runs > 0).ok_or("--runs wants a number above 0")?;
            }
            "--no-crowd" => plan.crowds = false,
            "--no-cni" => plan.cni = false,
            "--json" => plan.json = Some(arguments.next().ok_or("--json wants a file")?.into()),
            unknown => return Err(format!("unknown argument {unknown:?}")),
        }
    }
    Ok(plan)
}
