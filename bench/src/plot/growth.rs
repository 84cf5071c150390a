//! What more pods cost: lines over the number of pods.

use super::panel::Panel;
use super::scale::{Scale, shown};
use super::svg::Svg;
use super::{Look, MARGIN, TOP, WIDTH, legend, legend_height, looks, picture};
use crate::operations::catalogue as keys;
use crate::report::{Report, Role, Unit};

/// What is shown: the key of an operation, a title, and whether it is divided
/// by the number of pods.
const OPERATIONS: [(&str, &str, bool); 4] = [
    (keys::UP.0, "making pods, 8 at once: time for each", true),
    (keys::DAEMON.0, "the daemon's memory (PSS)", false),
    (keys::LIST_CONTAINERS.0, "ListContainers", false),
    (keys::CONTAINER_STATS.0, "ListContainerStats", false),
];

const COLUMNS: usize = 2;
const HEIGHT: f64 = 190.0;
const ABOVE: f64 = 34.0;
const BELOW: f64 = 44.0;
const BESIDE: f64 = 46.0;
const GAP: f64 = 36.0;

/// A line: number of pods and value.
type Line<'a> = (&'a Look, Vec<(f64, f64)>);

struct Diagram<'a> {
    title: &'static str,
    unit: Unit,
    lines: Vec<Line<'a>>,
}

/// The picture; none if no operation was measured with different numbers.
pub fn draw(report: &Report) -> Option<String> {
    let mut looks = looks(report);
    looks.retain(|look| {
        let shown = |key: &str| OPERATIONS.iter().any(|(known, ..)| *known == key);
        let mut series = report.series.iter().filter(|series| series.runtime == look.runtime);
        series.any(|series| series.pods.is_some() && shown(&series.operation.key))
    });
    let diagrams: Vec<Diagram<'_>> =
        OPERATIONS.iter().filter_map(|operation| diagram(report, &looks, *operation)).collect();
    if diagrams.is_empty() {
        return None;
    }
    let head = legend_height(&looks) + 8.0;
    let rows = diagrams.len().div_ceil(COLUMNS);
    let body = head + rows as f64 * (ABOVE + HEIGHT + BELOW);
    let title = "What pods cost: more of them";
    let explained = "Medians. A level line costs the same for each pod; both axes are logarithmic where values are ten times apart, or more.";
    let mut svg = picture(report, title, explained, body);
    legend(&mut svg, &looks, TOP);
    let column = (WIDTH - 2.0 * MARGIN - GAP * (COLUMNS - 1) as f64) / COLUMNS as f64;
    for (at, diagram) in diagrams.iter().enumerate() {
        let left = MARGIN + (at % COLUMNS) as f64 * (column + GAP) + BESIDE;
        let top = TOP + head + (at / COLUMNS) as f64 * (ABOVE + HEIGHT + BELOW) + ABOVE;
        diagram.draw(&mut svg, [left, top], column - BESIDE);
    }
    Some(svg.finish(title))
}

fn diagram<'a>(
    report: &Report,
    looks: &'a [Look],
    (key, title, each): (&str, &'static str, bool),
) -> Option<Diagram<'a>> {
    let all = || report.series.iter().filter(|series| series.operation.key == key);
    let lines: Vec<Line<'_>> = looks
        .iter()
        .filter_map(|look| {
            let mut line: Vec<(f64, f64)> = all()
                .filter(|series| series.runtime == look.runtime)
                .filter_map(|series| {
                    let pods = f64::from(series.pods.filter(|pods| *pods > 0)?);
                    let median = series.median();
                    Some((pods, if each { median / pods } else { median }))
                })
                .collect();
            line.sort_by(|a, b| a.0.total_cmp(&b.0));
            (!line.is_empty()).then_some((look, line))
        })
        .collect();
    let several = lines.iter().any(|(_, line)| line.len() > 1);
    several.then_some(Diagram { title, unit: all().next()?.unit, lines })
}

impl Diagram<'_> {
    fn draw(&self, svg: &mut Svg, [left, top]: [f64; 2], width: f64) {
        let points = || self.lines.iter().flat_map(|(_, line)| line.iter().copied());
        let (unit, parts) = shown(self.unit, points().map(|(_, value)| value).fold(0.0, f64::max));
        let mut pods: Vec<f64> = points().map(|(pods, _)| pods).collect();
        pods.sort_by(f64::total_cmp);
        pods.dedup();
        let panel = Panel {
            left,
            top,
            width,
            height: HEIGHT,
            x: Scale::of(pods.clone().into_iter()),
            y: Scale::of(points().map(|(_, value)| value / parts).collect::<Vec<_>>().into_iter()),
        };
        panel.frame(svg, self.title, ["pods", unit], &pods);
        for (look, line) in &self.lines {
            let places: Vec<[f64; 2]> =
                line.iter().map(|(pods, value)| panel.at(*pods, value / parts)).collect();
            svg.path(&look.stroke(), &places);
            for place in places {
                let class = match look.role {
                    Role::History => format!("h{}", look.colour),
                    Role::Corten | Role::Peer | Role::Floor => look.fill(),
                };
                svg.dot(&class, place);
            }
        }
    }
}
