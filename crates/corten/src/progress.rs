//! A pull as people see it: bars on a terminal, plain lines elsewhere. Always
//! on stderr: stdout is for results.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use corten_api::corten::{LayerProgress, LayerState, PullProgress};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::output::{printable, short_id, size};

/// Shows how far a pull is.
pub enum Progress {
    /// A bar for each layer.
    Bars {
        /// Those on the screen.
        all: MultiProgress,
        /// By digest.
        bars: BTreeMap<String, ProgressBar>,
    },
    /// A line for each change of a layer.
    Lines {
        /// What was said last, by digest.
        said: BTreeMap<String, LayerState>,
    },
    /// Nothing is shown.
    Quiet,
}

impl Progress {
    /// As stderr is.
    pub fn start(quiet: bool) -> Self {
        if quiet {
            Self::Quiet
        } else if std::io::stderr().is_terminal() {
            Self::Bars { all: MultiProgress::new(), bars: BTreeMap::new() }
        } else {
            Self::Lines { said: BTreeMap::new() }
        }
    }

    /// The pull has come this far.
    pub fn update(&mut self, progress: &PullProgress) {
        for layer in &progress.layers {
            match self {
                Self::Quiet => {}
                Self::Lines { said } => {
                    if let Some(line) = line(said, layer) {
                        eprintln!("{line}");
                    }
                }
                Self::Bars { all, bars } => {
                    let bar = bars
                        .entry(layer.digest.clone())
                        .or_insert_with(|| all.add(new_bar(&layer.digest)));
                    show(bar, layer);
                }
            }
        }
    }

    /// The pull is over, well or not: the bars stay as they are.
    pub fn finish(self) {
        if let Self::Bars { bars, .. } = self {
            for bar in bars.values().filter(|bar| !bar.is_finished()) {
                bar.abandon();
            }
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are ours, and tested.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("█▉▊▋▌▍▎▏ ")
}

const FETCHING: &str = "{prefix}  {bar:30.cyan} {decimal_bytes:>10} of {decimal_total_bytes:<10} {decimal_bytes_per_sec}";
const FETCHING_UNKNOWN: &str = "{prefix}  {spinner} {decimal_bytes:>10}  {decimal_bytes_per_sec}";
const SAYING: &str = "{prefix}  {msg}";

fn new_bar(digest: &str) -> ProgressBar {
    let bar = ProgressBar::new(0).with_prefix(printable(short_id(digest)));
    bar.set_style(style(SAYING));
    bar
}

fn show(bar: &ProgressBar, layer: &LayerProgress) {
    if bar.is_finished() {
        return;
    }
    match layer.state() {
        LayerState::Unspecified | LayerState::Waiting => bar.set_message("waiting"),
        LayerState::Fetching => {
            if bar.length() != Some(layer.total_bytes) || bar.position() == 0 {
                let known = layer.total_bytes > 0;
                bar.set_style(style(if known { FETCHING } else { FETCHING_UNKNOWN }));
                bar.set_length(layer.total_bytes);
            }
            bar.set_position(layer.fetched_bytes);
        }
        LayerState::Done | LayerState::Present => {
            bar.set_style(style(SAYING));
            bar.finish_with_message(outcome(layer));
        }
    }
}

/// What is to be said about a layer, if anything is new.
fn line(said: &mut BTreeMap<String, LayerState>, layer: &LayerProgress) -> Option<String> {
    let state = layer.state();
    if said.insert(layer.digest.clone(), state) == Some(state) {
        return None;
    }
    let what = match state {
        LayerState::Unspecified | LayerState::Waiting => return None,
        LayerState::Fetching if layer.total_bytes > 0 => {
            format!("fetching {}", size(layer.total_bytes))
        }
        LayerState::Fetching => "fetching".to_owned(),
        LayerState::Done | LayerState::Present => outcome(layer),
    };
    Some(format!("{}: {what}", printable(short_id(&layer.digest))))
}

fn outcome(layer: &LayerProgress) -> String {
    match layer.state() {
        LayerState::Present => "was here before".to_owned(),
        _ if layer.total_bytes > 0 => format!("done, {}", size(layer.total_bytes)),
        _ => "done".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(state: LayerState) -> LayerProgress {
        LayerProgress {
            digest: "sha256:0123456789abcdef".into(),
            total_bytes: 2_500_000,
            fetched_bytes: 0,
            state: state.into(),
        }
    }

    #[test]
    fn each_change_is_one_line() {
        let mut said = BTreeMap::new();
        let mut lines = Vec::new();
        for state in [
            LayerState::Waiting,
            LayerState::Fetching,
            LayerState::Fetching,
            LayerState::Done,
            LayerState::Done,
        ] {
            lines.extend(line(&mut said, &layer(state)));
        }
        assert_eq!(lines, ["0123456789abc: fetching 2.50 MB", "0123456789abc: done, 2.50 MB"]);
        let present = line(&mut BTreeMap::new(), &layer(LayerState::Present));
        assert_eq!(present.as_deref(), Some("0123456789abc: was here before"));
    }

    #[test]
    fn the_templates_can_be_used() {
        for template in [FETCHING, FETCHING_UNKNOWN, SAYING] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn a_bar_goes_through_a_pull() {
        let bar = ProgressBar::hidden();
        for state in [LayerState::Waiting, LayerState::Fetching, LayerState::Done] {
            show(&bar, &layer(state));
        }
        assert!(bar.is_finished());
        assert_eq!(bar.message(), "done, 2.50 MB");
        show(&bar, &layer(LayerState::Fetching));
        assert!(bar.is_finished(), "what is done stays done");
    }
}
