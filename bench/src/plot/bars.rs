//! Bars: medians of each operation, runtimes below one another, with the aim.

use super::scale::{Scale, label, labels, shown};
use super::svg::{Anchor, Svg, head_lines, small_width_of, width_of};
use super::{Look, MARGIN, TOP, WIDTH, looks, picture};
use crate::aims::AIMS;
use crate::report::{Operation, Report, Unit, number};

/// Pixels between columns of diagrams, and between diagrams.
const GAP: [f64; 2] = [36.0, 16.0];
/// Height of a bar with the space below it.
const BAR: f64 = 17.0;
/// Pixels above the bars of a diagram, and below.
const HEAD: f64 = 24.0;
/// More for each line of its head but the first.
const LINE: f64 = 16.0;
/// Pixels between texts in one line.
const APART: f64 = 12.0;
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
    let width = (WIDTH - 2.0 * MARGIN - GAP[0]) / 2.0;
    // Of those beside one another, the bars begin at the same height.
    let rows: Vec<(Vec<Drawing<'_>>, f64, f64)> = diagrams
        .chunks(2)
        .map(|pair| {
            let pair: Vec<_> = pair.iter().map(|diagram| diagram.laid_out(width)).collect();
            let head = pair.iter().map(Drawing::head).fold(0.0, f64::max);
            let bars = pair.iter().map(|it| it.diagram.bars.len()).max().unwrap_or(0);
            (pair, head, head + bars as f64 * BAR + AXIS)
        })
        .collect();
    let body = rows.iter().map(|(_, _, height)| height + GAP[1]).sum();
    let explained = "Medians; shorter is better. Axes are logarithmic where the longest bar is ten times the shortest, or more. Green: the aim. Hatched: measured earlier on another machine.";
    let title = "What pods cost: operations";
    let mut svg = picture(report, title, explained, body);
    let mut top = TOP;
    for (pair, head, height) in rows {
        for (column, drawing) in pair.iter().enumerate() {
            let left = MARGIN + column as f64 * (width + GAP[0]);
            drawing.draw(&mut svg, [left, top], head, names);
        }
        top += height + GAP[1];
    }
    Some(svg.finish(title))
}

/// A diagram with what stands above it, as it fits.
struct Drawing<'a> {
    diagram: &'a Diagram<'a>,
    width: f64,
    scale: Scale,
    /// How many of the report's unit the one shown is.
    parts: f64,
    title: Vec<String>,
    aim: String,
    unit: String,
}

impl Diagram<'_> {
    fn laid_out(&self, width: f64) -> Drawing<'_> {
        let values = || self.bars.iter().map(|(_, median)| *median).chain([self.aim]);
        let (unit, parts) = shown(self.unit, values().fold(0.0, f64::max));
        let scale = Scale::of(values().map(|value| value / parts));
        let logarithmic = if scale.is_logarithmic() { ", log scale" } else { "" };
        let unit = format!("{unit}{logarithmic}");
        let aim = format!("aim {}", label(self.aim / parts));
        let pods = match self.pods {
            None => String::new(),
            Some(0) => ", no pods".to_owned(),
            Some(pods) => format!(", {pods} pods"),
        };
        let title = format!("{}{pods}", self.operation.title.trim());
        let beside = small_width_of(&unit) + small_width_of(&aim) + 2.0 * APART;
        let title = head_lines(&title, width - beside);
        Drawing { diagram: self, width, scale, parts, title, aim, unit }
    }
}

impl Drawing<'_> {
    /// Height of what stands above the bars.
    fn head(&self) -> f64 {
        HEAD + (self.title.len() as f64 - 1.0) * LINE
    }

    fn draw(&self, svg: &mut Svg, [left, top]: [f64; 2], head: f64, names: f64) {
        for (line, text) in self.title.iter().enumerate() {
            let y = top + 14.0 + line as f64 * LINE;
            svg.text("head", [left, y], Anchor::Start, text);
        }
        let right = left + self.width;
        svg.text("small faint", [right, top + 14.0], Anchor::End, &self.unit);
        let beside = right - small_width_of(&self.unit) - APART;
        svg.text("small aim", [beside, top + 14.0], Anchor::End, &self.aim);
        self.draw_bars(svg, [left + names, top + head], self.width - names - VALUES);
    }

    fn draw_bars(&self, svg: &mut Svg, [start, top]: [f64; 2], length: f64) {
        let Self { diagram, scale, parts, .. } = self;
        let place = |value: f64| start + scale.at(value) * length;
        let bottom = top + diagram.bars.len() as f64 * BAR;
        let ticks = scale.ticks();
        let ticks = || ticks.iter().map(|tick| (place(*tick), *tick));
        for (x, _) in ticks() {
            svg.line("grid", [x, top - 2.0], [x, bottom]);
        }
        for (x, label) in labels(ticks()) {
            svg.text("small faint", [x, bottom + 12.0], Anchor::Middle, &label);
        }
        let mut values = Vec::new();
        for (row, (look, median)) in diagram.bars.iter().enumerate() {
            let y = top + row as f64 * BAR;
            let end = place(median / parts).max(start + 1.0);
            svg.text("", [start - 8.0, y + 11.5], Anchor::End, &look.title);
            svg.rect(&look.fill(), [start, y + 2.0], [end - start, BAR - 5.0]);
            values.push(([end + 5.0, y + 11.0], number(median / parts)));
        }
        let aim = place(diagram.aim / parts);
        svg.line("goal", [aim, top - 4.0], [aim, bottom]);
        // Last, since they are to be read.
        for (place, value) in values {
            svg.text("small clear", place, Anchor::Start, &value);
        }
    }
}
