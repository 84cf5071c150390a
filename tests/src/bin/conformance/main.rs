//! critest against a daemon on a machine of its own.
//! `cargo xtask conformance` builds what this needs, and runs it.
//!
//! Specs that cannot run are listed in `tests/conformance.toml`. A failure that
//! is not listed, a listed spec that passes, one that is silently skipped, or
//! anything left on the machine, is a failure of this program.
#![forbid(unsafe_code)]

mod images;
mod report;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use corten_tests::Machine;
use corten_tests::machine::Settings;

use crate::report::Verdict;

const USAGE: &str = "usage: cargo xtask conformance [--websocket] [--handler NAME] [--seed N] \
    [--parallel N] [--focus RE] [--service]";

/// How long all specs together may take; critest then tells what hangs.
const PATIENCE: &str = "15m";
/// The same in a virtual machine, which is emulated.
const PATIENCE_EMULATED: &str = "90m";

/// A critest of other sources than we pin: what it skips is not held against us.
const ANOTHER: &str = "CORTEN_CRITEST";

/// How critest is run.
#[derive(Default)]
struct Plan {
    websocket: bool,
    handler: Option<String>,
    seed: Option<u64>,
    parallel: Option<u32>,
    focus: Option<String>,
    /// Against the service that is installed here, as the virtual machine has
    /// it.
    service: bool,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(|plan| run(&plan)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Plan> {
    let mut plan = Plan::default();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().context(USAGE);
        match argument.as_str() {
            "--websocket" => plan.websocket = true,
            "--handler" => plan.handler = Some(value()?),
            "--seed" => plan.seed = Some(value()?.parse().context(USAGE)?),
            "--parallel" => plan.parallel = Some(value()?.parse().context(USAGE)?),
            "--focus" => plan.focus = Some(value()?),
            "--service" => plan.service = true,
            _ => bail!("{USAGE}"),
        }
    }
    Ok(plan)
}

fn run(plan: &Plan) -> Result<()> {
    let settings = Settings {
        builtin_network: true,
        oci_runtimes: plan.handler.is_some(),
        ..Settings::default()
    };
    let mut outcome = None;
    // Told before the machine is looked at: a spec that fails leaves things.
    let told = |found: Result<_>| found.and_then(|(verdict, took)| tell(plan, &verdict, took));
    if plan.service {
        Machine::run_as_service(settings, async |machine, service| {
            outcome = Some(told(conform(plan, machine, service.socket(), || service.log())));
        });
    } else {
        Machine::run_with(settings, async |machine, daemon| {
            outcome = Some(told(conform(plan, machine, daemon.socket(), || daemon.log())));
        });
    }
    outcome.context("nothing was run")?
}

/// Runs critest: what it found, and how long it took.
fn conform(
    plan: &Plan,
    machine: &Machine,
    socket: &Path,
    log_of_daemon: impl FnOnce() -> String,
) -> Result<(Verdict, Duration)> {
    let by_digest = images::push(machine)?;
    let directory = plan.directory();
    fs::create_dir_all(&directory).context("unable to make a directory for the report")?;
    let (report, log) = (directory.join("report.json"), directory.join("critest.log"));
    let _ = fs::remove_file(&report);
    let output = File::create(&log).with_context(|| format!("unable to open {}", log.display()))?;
    let another = std::env::var_os(ANOTHER);
    let program = another.as_ref().map_or_else(xtask::tools::critest, |path| Ok(path.into()))?;
    let mut critest = Command::new(program);
    critest
        .args(plan.arguments())
        .arg(format!("-runtime-endpoint=unix://{}", socket.display()))
        .arg(format!("-ginkgo.json-report={}", report.display()))
        .env(xtask::tools::IMAGE_WITH_DIGEST, by_digest)
        .env("PATH", path()?)
        // Its reports and what it leaves in temporary places.
        .env("TMPDIR", temporary(machine)?)
        .current_dir(machine.path(""))
        .stdout(output.try_clone()?)
        .stderr(output);
    let start = Instant::now();
    critest.status().context("unable to start critest")?;
    let took = start.elapsed();
    fs::write(directory.join("cortend.log"), log_of_daemon())?;
    let report = fs::read_to_string(&report)
        .with_context(|| format!("critest wrote no report; see {}", log.display()))?;
    let listed = fs::read_to_string(xtask::shell::root().join("tests/conformance.toml"))
        .context("unable to read tests/conformance.toml")?;
    let all = plan.focus.is_none() && another.is_none();
    Ok((Verdict::of(&report, &listed, all)?, took))
}

impl Plan {
    /// What is run, in a few words.
    fn name(&self) -> String {
        let mut name = if self.websocket { "websocket" } else { "spdy" }.to_owned();
        if let Some(handler) = &self.handler {
            name += &format!("-{handler}");
        }
        if let Some(parallel) = self.parallel {
            name += &format!("-parallel{parallel}");
        }
        if self.service {
            name += "-service";
        }
        name
    }

    /// Where the logs and the report are kept.
    fn directory(&self) -> PathBuf {
        xtask::shell::target().join("conformance").join(self.name())
    }

    fn arguments(&self) -> Vec<String> {
        let patience = if self.service { PATIENCE_EMULATED } else { PATIENCE };
        let mut arguments = vec![format!("-ginkgo.timeout={patience}"), "-ginkgo.no-color".into()];
        if self.websocket {
            let streams = ["exec", "attach", "portforward"];
            arguments.extend(streams.map(|stream| format!("-websocket-{stream}")));
        }
        arguments.extend(self.handler.iter().map(|name| format!("-runtime-handler={name}")));
        arguments.extend(self.seed.iter().map(|seed| format!("-ginkgo.seed={seed}")));
        arguments.extend(self.parallel.iter().map(|count| format!("-parallel={count}")));
        arguments.extend(self.focus.iter().map(|focus| format!("-ginkgo.focus={focus}")));
        arguments
    }
}

/// Where critest finds the runner that it starts for parallel specs.
fn path() -> Result<std::ffi::OsString> {
    let tools = xtask::tools::ginkgo()?;
    let tools = tools.parent().context("a tool without a directory")?.to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(tools).chain(std::env::split_paths(&path));
    std::env::join_paths(all).context("unable to search tools")
}

fn temporary(machine: &Machine) -> Result<PathBuf> {
    let directory = machine.path("tmp");
    fs::create_dir_all(&directory).context("unable to make a temporary directory")?;
    Ok(directory)
}

/// Says what came of it, and fails unless all is well.
fn tell(plan: &Plan, verdict: &Verdict, took: Duration) -> Result<()> {
    for complaint in &verdict.complaints {
        println!("{complaint}");
    }
    println!("the slowest:");
    for (milliseconds, name) in &verdict.slow {
        println!("{:>8.1} s  {name}", *milliseconds as f64 / 1000.0);
    }
    for (reason, count) in &verdict.not_run {
        println!("{count:>4} not run: {reason}");
    }
    println!(
        "critest {}: {} passed, {} failed, {} not run, {:.1} s; see {}",
        plan.name(),
        verdict.passed,
        verdict.failed,
        verdict.not_run.values().sum::<usize>(),
        took.as_secs_f64(),
        plan.directory().display(),
    );
    if !verdict.complaints.is_empty() {
        bail!("{} specs are not as they should be", verdict.complaints.len());
    }
    Ok(())
}
