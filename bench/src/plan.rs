//! What is to be measured, as the command line says it.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Parser;

use crate::report::Role;
use crate::runtimes::{Choice, Subject};

/// Numbers of pods, unless `--sizes` says otherwise.
const SIZES: &[u32] = &[1, 50, 110, 300, 1000];
const SIZES_QUICK: &[u32] = &[1, 50];
/// With how many pods only Corten with its own bridge is measured, unless
/// `--full` says otherwise: a peer takes a minute or two for 300 of them.
const LARGE: u32 = 300;
/// Runs of each operation on a single pod.
const RUNS: usize = 30;
const RUNS_QUICK: usize = 10;
/// Up to this many pods, crowds (not one pod alone) are made several times.
const SMALL: u32 = 50;
/// How often that is.
const ROUNDS: usize = 3;

/// Measures runtimes of containers over their CRI sockets, side by side.
#[derive(Debug, Clone, Parser)]
#[command(name = "corten-bench")]
pub struct Plan {
    /// How often each thing is done with a single pod.
    #[arg(long, value_name = "N")]
    pub runs: Option<usize>,
    /// Numbers of pods: 1,50,110
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub sizes: Option<Vec<u32>>,
    /// Measure only these runtimes (corten, corten+cni, containerd+runc, containerd+crun, cri-o+crun)
    #[arg(long, value_name = "RUNTIME")]
    pub only: Vec<String>,
    /// Measure Corten alone, with few runs and few pods.
    #[arg(long)]
    pub quick: bool,
    /// Measure every runtime with every number of pods.
    #[arg(long, conflicts_with = "quick")]
    pub full: bool,
    /// Measure a runtime that you run yourself as well.
    #[arg(long, value_name = "NAME=PATH", requires = "image")]
    pub socket: Vec<String>,
    /// The image of that runtime's containers, which has `sleep` and `true`.
    #[arg(long, value_name = "REFERENCE")]
    pub image: Option<String>,
    /// Measure nothing: make tables and plots anew, beside the figures of this file.
    #[arg(long, value_name = "FILE", exclusive = true)]
    pub redraw: Option<PathBuf>,
    /// Where figures, tables and plots are written.
    #[arg(long, value_name = "DIRECTORY", default_value = "target/bench")]
    pub output: PathBuf,
}

impl Plan {
    /// The runtimes to measure.
    ///
    /// # Errors
    /// If one that is asked for is not known.
    pub fn choices(&self) -> Result<Vec<Choice>> {
        let mut choices: Vec<Choice> = match self.quick {
            true => vec![Choice::Corten],
            false => Choice::DEFAULT.to_vec(),
        };
        choices.retain(Choice::is_to_be_had);
        if !self.only.is_empty() {
            let known = |name: &String| Choice::DEFAULT.iter().any(|choice| choice.name() == name);
            if let Some(unknown) = self.only.iter().find(|name| !known(name)) {
                let names: Vec<&str> = Choice::DEFAULT.iter().map(Choice::name).collect();
                bail!("no runtime {unknown:?}; there are {}", names.join(", "));
            }
            choices = Choice::DEFAULT.to_vec();
            choices.retain(|choice| self.only.iter().any(|name| name == choice.name()));
        }
        for socket in &self.socket {
            let Some((name, path)) = socket.split_once('=') else {
                bail!("--socket wants NAME=PATH, not {socket:?}");
            };
            if name.is_empty() || choices.iter().any(|choice| choice.name() == name) {
                bail!("--socket wants a name that no other runtime has, not {name:?}");
            }
            choices.push(Choice::Socket(name.to_owned(), path.into()));
        }
        Ok(choices)
    }

    /// How often each thing is done with a single pod.
    pub fn runs(&self) -> usize {
        self.runs.unwrap_or(if self.quick { RUNS_QUICK } else { RUNS }).max(1)
    }

    /// Numbers of pods.
    pub fn sizes(&self) -> &[u32] {
        let default = if self.quick { SIZES_QUICK } else { SIZES };
        self.sizes.as_deref().unwrap_or(default)
    }

    /// How often a crowd of this size is made.
    pub fn rounds(&self, pods: u32) -> usize {
        if (2..=SMALL).contains(&pods) { ROUNDS.min(self.runs()) } else { 1 }
    }

    /// Whether a runtime is measured with so many pods.
    pub fn has(&self, subject: &Subject, pods: u32) -> bool {
        let ours = subject.role() == Role::Corten && subject.name() == Choice::Corten.name();
        self.full || pods <= LARGE || ours
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(arguments: &[&str]) -> Plan {
        Plan::parse_from([&["bench"], arguments].concat())
    }

    fn names(plan: &Plan) -> Vec<String> {
        let choices = plan.choices().expect("choices");
        choices.iter().map(|choice| choice.name().to_owned()).collect()
    }

    #[test]
    fn runtimes() {
        let all = names(&plan(&[]));
        assert_eq!(all[..4], ["corten", "corten+cni", "containerd+runc", "containerd+crun"]);
        assert_eq!(names(&plan(&["--quick"])), ["corten"]);
        assert_eq!(names(&plan(&["--only", "corten+cni"])), ["corten+cni"]);
        let other = ["--quick", "--socket", "mine=/run/mine.sock", "--image", "x"];
        assert_eq!(names(&plan(&other)), ["corten", "mine"]);
        assert!(plan(&["--only", "docker"]).choices().is_err());
        let twice = ["--socket", "corten=/run/x.sock", "--image", "x"];
        assert!(plan(&twice).choices().is_err(), "two would be one series");
        assert!(Plan::try_parse_from(["bench", "--socket", "a=/b"]).is_err(), "it needs an image");
    }

    #[test]
    fn extents() {
        assert_eq!(plan(&["--sizes", "1,7"]).sizes(), [1, 7]);
        assert_eq!(plan(&["--quick"]).sizes(), SIZES_QUICK);
        assert_eq!(plan(&["--runs", "0"]).runs(), 1);
        assert_eq!((plan(&[]).rounds(50), plan(&[]).rounds(300)), (ROUNDS, 1));
    }
}
