//! Reports as pictures: bars for each operation, how often which latency was
//! met, and what more pods cost. SVG that reads well on light and dark paper.

mod bars;
mod growth;
mod latency;
mod panel;
mod scale;
mod svg;

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::report::{Report, Role, Runtime};
use svg::{Anchor, SERIES, Svg, width_of};

/// Pixels from left to right.
const WIDTH: f64 = 960.0;
/// Pixels around everything.
const MARGIN: f64 = 24.0;
/// Pixels below the title, where pictures begin.
const TOP: f64 = 56.0;
/// Pixels for what stands below.
const FOOT: f64 = 40.0;

/// Writes all pictures of a report into a directory: `operations.svg`,
/// `latency.svg` and `growth.svg`. One that would show nothing is not written. The
/// names of those that are.
///
/// # Errors
/// If a file cannot be written.
pub fn write(report: &Report, directory: &Path) -> Result<Vec<&'static str>> {
    let mut written = Vec::new();
    let pictures = [
        ("operations.svg", bars::draw(report)),
        ("latency.svg", latency::draw(report)),
        ("growth.svg", growth::draw(report)),
    ];
    for (name, picture) in pictures {
        let Some(picture) = picture else { continue };
        let path = directory.join(name);
        std::fs::write(&path, picture)
            .with_context(|| format!("unable to write {}", path.display()))?;
        written.push(name);
    }
    Ok(written)
}

/// How a runtime is drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Look {
    /// Its name in the report.
    runtime: String,
    /// Its name in the picture.
    title: String,
    /// Number of its colour.
    colour: usize,
    role: Role,
}

/// The runtimes of a report, ours first, in the colours of their roles. History
/// of what was measured now as well is left to the tables.
fn looks(report: &Report) -> Vec<Look> {
    // Two for Corten, one for the floor, the rest for peers.
    let mut next = [0, 2, 3];
    let mut looks = Vec::new();
    let is_old = |runtime: &Runtime| {
        let mut peers = report.runtimes.iter().filter(|peer| peer.role == Role::Peer);
        runtime.role == Role::History && peers.any(|peer| kind(peer) == kind(runtime))
    };
    for role in [Role::Corten, Role::Floor, Role::Peer, Role::History] {
        for runtime in report.runtimes.iter().filter(|it| it.role == role && !is_old(it)) {
            let slot = match role {
                Role::Corten => &mut next[0],
                Role::Floor => &mut next[1],
                Role::Peer | Role::History => &mut next[2],
            };
            let most = if role == Role::Corten {
                1
            } else if role == Role::Floor {
                2
            } else {
                SERIES - 1
            };
            let colour = (*slot).min(most);
            *slot += 1;
            let title = match role {
                Role::History => format!("{} (history)", runtime.name),
                Role::Corten | Role::Peer | Role::Floor => runtime.name.clone(),
            };
            looks.push(Look { runtime: runtime.name.clone(), title, colour, role });
        }
    }
    looks
}

/// The runtime itself, whatever it runs over: `containerd` of
/// `containerd 2.3.4+runc 1.5`.
fn kind(runtime: &Runtime) -> &str {
    runtime.name.split([' ', '+']).next().unwrap_or_default()
}

impl Look {
    /// Of a filled shape.
    fn fill(&self) -> String {
        match self.role {
            Role::History => format!("h{} past", self.colour),
            Role::Corten | Role::Peer | Role::Floor => format!("s{}", self.colour),
        }
    }

    /// Of a line.
    fn stroke(&self) -> String {
        match self.role {
            Role::Floor | Role::History => format!("curve dashed l{}", self.colour),
            Role::Corten | Role::Peer => format!("curve l{}", self.colour),
        }
    }
}

/// A picture with its title, what was measured where in small print, and room
/// for a body of this height.
fn picture(report: &Report, title: &str, explained: &str, body: f64) -> Svg {
    let mut svg = Svg::new(WIDTH, TOP + body + FOOT);
    svg.text("title", [MARGIN, 30.0], Anchor::Start, title);
    svg.text("small faint", [MARGIN, 46.0], Anchor::Start, explained);
    let fact = |name: &str| {
        let found = report.facts.iter().find(|fact| fact.name == name);
        found.map(|fact| fact.value.clone()).filter(|value| !value.is_empty())
    };
    let with = |name: &str, what: &str| Some(format!("{what} {}", fact(name)?));
    let parts = [
        fact("date"),
        fact("processor"),
        fact("cores").map(|cores| format!("{cores} cores")),
        with("kernel", "Linux"),
        with("cgroups", "cgroup"),
        with("commit", "commit"),
    ];
    let small: Vec<String> = parts.into_iter().flatten().collect();
    let place = [MARGIN, TOP + body + FOOT - 14.0];
    svg.text("small faint", place, Anchor::Start, &small.join(" · "));
    svg
}

/// Height of a legend's line.
const LEGEND: f64 = 20.0;

/// Names and colours of the runtimes, in as many lines as they need: its
/// height.
fn legend_height(looks: &[Look]) -> f64 {
    legend_places(looks).last().map_or(0.0, |[_, y]| y + LEGEND)
}

fn legend_places(looks: &[Look]) -> Vec<[f64; 2]> {
    let mut place = [MARGIN, 0.0];
    let mut places = Vec::new();
    for look in looks {
        let width = width_of(&look.title) + 42.0;
        if place[0] + width > WIDTH - MARGIN && place[0] > MARGIN {
            place = [MARGIN, place[1] + LEGEND];
        }
        places.push(place);
        place[0] += width;
    }
    places
}

fn legend(svg: &mut Svg, looks: &[Look], top: f64) {
    for (look, [x, y]) in looks.iter().zip(legend_places(looks)) {
        let y = top + y + 8.0;
        svg.path(&look.stroke(), &[[x, y], [x + 20.0, y]]);
        svg.text("", [x + 26.0, y + 4.0], Anchor::Start, &look.title);
    }
}

#[cfg(test)]
mod tests;
