//! One small diagram with lines: axes, grid, labels.

use super::scale::{Scale, label, labels};
use super::svg::{Anchor, Svg};

/// A diagram's place and axes.
#[derive(Debug, Clone, Copy)]
pub struct Panel {
    /// Left end of the x axis, pixels.
    pub left: f64,
    /// Upper end of the y axis, pixels.
    pub top: f64,
    /// Length of the x axis.
    pub width: f64,
    /// Length of the y axis.
    pub height: f64,
    /// What is below.
    pub x: Scale,
    /// What is at the left.
    pub y: Scale,
}

impl Panel {
    /// Where a point is.
    pub fn at(&self, x: f64, y: f64) -> [f64; 2] {
        [self.left + self.x.at(x) * self.width, self.top + self.height - self.y.at(y) * self.height]
    }

    /// Title, grid and labels; ticks of the x axis may be given.
    pub fn frame(&self, svg: &mut Svg, title: &str, [below, beside]: [&str; 2], ticks: &[f64]) {
        let bottom = self.top + self.height;
        svg.text("head", [self.left - 40.0, self.top - 12.0], Anchor::Start, title);
        for tick in self.y.ticks() {
            let [_, y] = self.at(0.0, tick);
            svg.line("grid", [self.left, y], [self.left + self.width, y]);
            svg.text("small faint", [self.left - 6.0, y + 3.5], Anchor::End, &label(tick));
        }
        let own;
        let ticks = if ticks.is_empty() {
            own = self.x.ticks();
            &own
        } else {
            ticks
        };
        let places = || ticks.iter().map(|tick| (self.at(*tick, 0.0)[0], *tick));
        for (x, _) in places() {
            svg.line("grid", [x, self.top], [x, bottom]);
        }
        for (x, label) in labels(places()) {
            svg.text("small faint", [x, bottom + 14.0], Anchor::Middle, &label);
        }
        let middle = self.left + self.width / 2.0;
        svg.text("small faint", [middle, bottom + 28.0], Anchor::Middle, below);
        let unit = [self.left + self.width, self.top - 12.0];
        svg.text("small faint", unit, Anchor::End, beside);
    }
}
