//! One run of the bench, from the first home to the last.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::home::Places;
use crate::measure::facts;
use crate::operations::floor::Measured;
use crate::operations::{crowd, exec, single, special, start};
use crate::plan::Plan;
use crate::report::{Failure, Report};
use crate::runtimes::Subject;

/// How often fifty execs, and a daemon's start, are measured at most.
const EXEC_ROUNDS: usize = 10;
const STARTS: usize = 10;
/// How often each list is asked for.
const LISTS: usize = 20;

/// Everything that is alive during a run.
pub struct Session {
    plan: Plan,
    /// What was measured so far.
    pub report: Report,
    subjects: Vec<Subject>,
    /// Where homes are; removed with what is left of them.
    directory: tempfile::TempDir,
    /// Goes after all homes.
    _places: Places,
}

impl Session {
    /// Begins.
    ///
    /// # Errors
    /// Without a place for files.
    pub fn new(plan: Plan) -> Result<Self> {
        // Not /tmp, which can be in memory: snapshots are to lie on a disk.
        let disk = Some(Path::new("/var/tmp")).filter(|path| path.is_dir());
        let below = disk.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let directory = tempfile::Builder::new()
            .prefix("corten-bench-")
            .tempdir_in(below)
            .context("unable to make a directory for homes")?;
        let mut report = Report::default();
        facts::note(&mut report, directory.path());
        let places = Places::make()?;
        Ok(Self { plan, report, subjects: Vec::new(), directory, _places: places })
    }

    /// Measures everything.
    ///
    /// # Errors
    /// If there is nothing to measure.
    pub async fn run(&mut self) -> Result<()> {
        self.settle().await?;
        let (report, subjects) = (&mut self.report, self.subjects.as_mut_slice());
        let runs = self.plan.runs();
        progress("single pods");
        let mut floor = Measured::prepare(report, self.directory.path());
        single::measure(report, subjects, &mut floor, runs).await;
        drop(floor);
        progress("execs");
        exec::measure(report, subjects, runs.min(EXEC_ROUNDS)).await;
        progress("starts of daemons");
        start::measure(report, subjects, runs.min(STARTS)).await;
        if !self.plan.quick {
            progress("special pods");
            special::measure(report, subjects).await;
        }
        for pods in self.plan.sizes() {
            progress(&format!("{pods} pods"));
            let extent = crowd::Extent {
                pods: *pods,
                rounds: self.plan.rounds(*pods),
                lists: runs.min(LISTS),
            };
            let has = |subject: &Subject| self.plan.has(subject, *pods);
            crowd::measure(report, subjects, extent, has).await;
        }
        report.fact("load after", facts::load());
        Ok(())
    }

    async fn settle(&mut self) -> Result<()> {
        for choice in self.plan.choices()? {
            progress(choice.name());
            match choice.settle(self.directory.path(), self.plan.image.as_deref()).await {
                Ok(subject) => {
                    self.report.runtimes.push(subject.runtime().clone());
                    self.subjects.push(subject);
                }
                Err(error) => {
                    eprintln!("bench: {}: {error:#}", choice.name());
                    self.report.failures.push(Failure {
                        runtime: choice.name().to_owned(),
                        operation: "everything".to_owned(),
                        pods: None,
                        error: format!("{error:#}"),
                    });
                }
            }
        }
        if self.subjects.is_empty() {
            bail!("no runtime could be started");
        }
        Ok(())
    }

    /// Ends all runtimes and removes what they made: what stayed.
    pub async fn leave(self) -> Vec<String> {
        let mut left = Vec::new();
        for subject in self.subjects {
            let name = subject.name().to_owned();
            if let Err(error) = subject.leave().await {
                left.push(format!("{name}: {error:#}"));
            }
        }
        let directory: PathBuf = self.directory.path().to_owned();
        if let Err(error) = self.directory.close() {
            left.push(format!("{}: {error}", directory.display()));
        }
        left
    }

    /// Likewise at once, whatever the runtimes are at: their keepers kill
    /// them.
    pub async fn abandon(self) {
        for subject in self.subjects {
            // In a runtime of somebody else, pods have to be removed.
            if !subject.is_at_home() {
                let _ = subject.leave().await;
            }
        }
    }
}

/// Says what is measured next, and how much time has passed.
fn progress(what: &str) {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    eprintln!("bench: {:>4} s: {what}", BEGUN.elapsed().as_secs());
}
