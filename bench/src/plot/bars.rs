//! Bars: medians of each operation, runtimes below one another, with the aim.

use super::scale::{Scale, label, shown};
use super::svg::{Anchor, Svg, small_width_of, width_of};
use super::{Look, MARGIN, TOP, WIDTH, looks, picture};
use crate::aims::AIMS;
use crate::report::{Operation, Report, Unit, number};

/// Pixels between columns of diagrams, and between diagrams.
const GAP: [f64; 2] = [36.0, 16.0];
/// Height of a bar with the space below it.
const BAR: f64 = 17.0;
/// Pixels above the bars of a diagram, and below.
const HEAD: f64 = 24.0;
const AXIS: f64 = 20.0;
/// Pixels at the right of bars, where values stand.
const VALUES: f64 = 52.0;

/// One diagram.
struct Diagram<'a> {
    operation: &'a Operation,
    pods: Option<u32>,
    unit: Unit,
    /// The runtimes that have a figure, and their medians.
    bars: Vec<(&'a Look, f64)>,
    aim: f64,
}

/// All operations that have an aim; none if nothing of them was measured.
pub fn draw(report: &Report) -> Option<String> {
    let looks = looks(report);
    let diagrams: Vec<Diagram<'_>> = AIMS
        .iter()
        .filter_map(|aim| {
            let found = |look: &'_ Look| report.find(&look.runtime, aim.key, aim.pods);
            let first = looks.iter().find_map(found)?;
            let bars = looks.iter().filter_map(|look| Some((look, found(look)?.median())));
            Some(Diagram {
                operation: &first.operation,
                pods: aim.pods,
                unit: first.unit,
                bars: bars.collect(),
                aim: aim.value,
            })
        })
        .collect();
    if diagrams.is_empty() {
        return None;
    }
    let names = looks.iter().map(|look| width_of(&look.title)).fold(0.0, f64::max) + 8.0;
    let heights: Vec<f64> = diagrams
        .chunks(2)
        .map(|pair| pair.iter().map(Diagram::height).fold(0.0, f64::max))
        .collect();
    let body = heights.iter().map(|height| height + GAP[1]).sum();
    let explained = "Medians; shorter is better. Axes are logarithmic where the longest bar is ten times the shortest, or more. Green: the aim. Hatched: measured earlier on another machine.";
    let title = "What pods cost: operations";
    let mut svg = picture(report, title, explained, body);
    let width = (WIDTH - 2.0 * MARGIN - GAP[0]) / 2.0;
    let mut top = TOP;
    for (pair, height) in diagrams.chunks(2).zip(heights) {
        for (column, diagram) in pair.iter().enumerate() {
            let left = MARGIN + column as f64 * (width + GAP[0]);
            diagram.draw(&mut svg, [left, top], width, names);
        }
        top += height + GAP[1];
    }
    Some(svg.finish(title))
}

impl Diagram<'_> {
    fn height(&self) -> f64 {
        HEAD + self.bars.len() as f64 * BAR + AXIS
    }

    fn draw(&self, svg: &mut Svg, [left, top]: [f64; 2], width: f64, names: f64) {
        let values = || self.bars.iter().map(|(_, median)| *median).chain([self.aim]);
        let (unit, parts) = shown(self.unit, values().fold(0.0, f64::max));
        let scale = Scale::of(values().map(|value| value / parts));
        let start = left + names;
        let length = width - names - VALUES;
        let place = |value: f64| start + scale.at(value / parts) * length;
        let logarithmic = if scale.is_logarithmic() { ", log scale" } else { "" };
        let title = self.operation.title.trim();
        let pods = match self.pods {
            None => String::new(),
            Some(0) => ", no pods".to_owned(),
            Some(pods) => format!(", {pods} pods"),
        };
        svg.text("head", [left, top + 14.0], Anchor::Start, &format!("{title}{pods}"));
        let unit = format!("{unit}{logarithmic}");
        let right = left + width;
        svg.text("small faint", [right, top + 14.0], Anchor::End, &unit);
        let aim = format!("aim {}", label(self.aim / parts));
        let beside = right - small_width_of(&unit) - 12.0;
        svg.text("small aim", [beside, top + 14.0], Anchor::End, &aim);
        let bottom = top + HEAD + self.bars.len() as f64 * BAR;
        for tick in scale.ticks() {
            let x = start + scale.at(tick) * length;
            svg.line("grid", [x, top + HEAD - 2.0], [x, bottom]);
            svg.text("small faint", [x, bottom + 12.0], Anchor::Middle, &label(tick));
        }
        let mut values = Vec::new();
        for (row, (look, median)) in self.bars.iter().enumerate() {
            let y = top + HEAD + row as f64 * BAR;
            let end = place(*median).max(start + 1.0);
            svg.text("", [start - 8.0, y + 11.5], Anchor::End, &look.title);
            svg.rect(&look.fill(), [start, y + 2.0], [end - start, BAR - 5.0]);
            values.push(([end + 5.0, y + 11.0], number(median / parts)));
        }
        let aim = place(self.aim);
        svg.line("goal", [aim, top + HEAD - 4.0], [aim, bottom]);
        // Last, since they are to be read.
        for (place, value) in values {
            svg.text("small clear", place, Anchor::Start, &value);
        }
    }
}
