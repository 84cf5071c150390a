//! How often which latency was met: the share of calls that took no longer,
//! for the operations on a single pod.

use super::panel::Panel;
use super::scale::Scale;
use super::{MARGIN, TOP, WIDTH, legend, legend_height, looks, picture};
use crate::operations::catalogue as keys;
use crate::report::{Report, Role, Series};

/// Single-pod operations, by their keys.
const OPERATIONS: [&str; 6] = [
    keys::POD_START.0,
    keys::RUN_SANDBOX.0,
    keys::CREATE.0,
    keys::START.0,
    keys::EXEC.0,
    keys::POD_STOP.0,
];

/// Diagrams in a row, and the pixels of one.
const COLUMNS: usize = 3;
const HEIGHT: f64 = 170.0;
const ABOVE: f64 = 34.0;
const BELOW: f64 = 44.0;
const BESIDE: f64 = 40.0;
const GAP: f64 = 24.0;
/// Fewer values make no distribution.
const VALUES_MIN: usize = 3;

/// The picture, if there is anything to show.
pub fn draw(report: &Report) -> Option<String> {
    let mut looks = looks(report);
    looks.retain(|look| {
        let known = |key: &&str| report.find(&look.runtime, key, None).is_some();
        look.role != Role::History && OPERATIONS.iter().any(known)
    });
    let of = |key: &str| -> Vec<(usize, &Series)> {
        let found = looks.iter().enumerate().filter_map(|(at, look)| {
            let series = report.find(&look.runtime, key, None)?;
            (series.values.len() >= VALUES_MIN).then_some((at, series))
        });
        found.collect()
    };
    let diagrams: Vec<Vec<(usize, &Series)>> =
        OPERATIONS.iter().map(|key| of(key)).filter(|all| !all.is_empty()).collect();
    if diagrams.is_empty() {
        return None;
    }
    let head = legend_height(&looks) + 8.0;
    let rows = diagrams.len().div_ceil(COLUMNS);
    let body = head + rows as f64 * (ABOVE + HEIGHT + BELOW);
    let title = "What pods cost: latencies";
    let explained = "Share of calls that took no longer than this. Further left is faster, steeper is steadier.";
    let mut svg = picture(report, title, explained, body);
    legend(&mut svg, &looks, TOP);
    let column = (WIDTH - 2.0 * MARGIN - GAP * (COLUMNS - 1) as f64) / COLUMNS as f64;
    for (at, all) in diagrams.iter().enumerate() {
        let values = all.iter().flat_map(|(_, series)| series.values.iter().copied());
        let panel = Panel {
            left: MARGIN + (at % COLUMNS) as f64 * (column + GAP) + BESIDE,
            top: TOP + head + (at / COLUMNS) as f64 * (ABOVE + HEIGHT + BELOW) + ABOVE,
            width: column - BESIDE,
            height: HEIGHT,
            x: Scale::of(values.collect::<Vec<_>>().into_iter()),
            y: Scale::Linear(100.0),
        };
        let Some((_, first)) = all.first() else { continue };
        let below = if panel.x.is_logarithmic() { "ms, log scale" } else { "ms" };
        panel.frame(&mut svg, first.operation.title.trim(), [below, "% of calls"], &[]);
        for (look, series) in all {
            svg.path(&looks[*look].stroke(), &steps(&panel, series));
        }
    }
    Some(svg.finish(title))
}

/// One step up for each value.
fn steps(panel: &Panel, series: &Series) -> Vec<[f64; 2]> {
    let sorted = series.sorted();
    let share = |count: usize| count as f64 / sorted.len() as f64 * 100.0;
    let mut points = Vec::with_capacity(2 * sorted.len());
    for (at, value) in sorted.iter().enumerate() {
        points.push(panel.at(*value, share(at)));
        points.push(panel.at(*value, share(at + 1)));
    }
    points
}
