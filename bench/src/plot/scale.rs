//! From values to places on an axis.

use super::svg::small_width_of;
use crate::report::{Unit, number};

/// Where the ratio of what is shown reaches this, an axis is logarithmic.
const LOGARITHMIC_FROM: f64 = 10.0;
/// Steps of a linear axis, at least.
const STEPS: f64 = 3.0;

/// An axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// From zero to here.
    Linear(f64),
    /// From here to there, both above zero.
    Logarithmic(f64, f64),
}

impl Scale {
    /// The axis on which all of these values are seen.
    pub fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let finite = values.filter(|value| value.is_finite());
        let largest = finite.clone().fold(0.0, f64::max);
        let smallest = finite.filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
        if largest > 0.0 && largest / smallest >= LOGARITHMIC_FROM {
            // A bar of the smallest value has to be seen, too.
            let from = step_below(smallest * 0.75);
            return Self::Logarithmic(from, step_above(largest));
        }
        let step = step_of(largest);
        let steps = (largest / step).ceil().max(1.0);
        Self::Linear(if largest > 0.0 { step * steps } else { 1.0 })
    }

    /// Where a value is, from 0 to 1; what is outside is at the end.
    pub fn at(self, value: f64) -> f64 {
        let share = match self {
            Self::Linear(to) => value / to,
            Self::Logarithmic(from, _) if value <= from => 0.0,
            Self::Logarithmic(from, to) => (value / from).ln() / (to / from).ln(),
        };
        share.clamp(0.0, 1.0)
    }

    /// Values that are written at the axis.
    pub fn ticks(self) -> Vec<f64> {
        match self {
            Self::Linear(to) => {
                let step = step_of(to);
                let count = (to / step).round() as u32;
                (0..=count).map(|at| f64::from(at) * step).collect()
            }
            Self::Logarithmic(from, to) => {
                let decades = (to / from).log10();
                let (first, last) = (from.log10().floor() as i32, to.log10().ceil() as i32);
                let within = |value: &f64| *value >= from * 0.999 && *value <= to * 1.001;
                let parts: &[f64] = match decades {
                    few if few < 2.2 => &[1.0, 2.0, 5.0],
                    some if some < 3.5 => &[1.0, 3.0],
                    _ => &[1.0],
                };
                let all = (first..=last)
                    .flat_map(|power| parts.iter().map(move |part| part * 10f64.powi(power)));
                all.filter(within).collect()
            }
        }
    }

    /// Whether it is logarithmic.
    pub fn is_logarithmic(self) -> bool {
        matches!(self, Self::Logarithmic(..))
    }
}

/// What is written at ticks, given as places in pixels and values: not where it
/// would touch what is written at the tick before.
pub fn labels(ticks: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, String)> {
    const APART: f64 = 4.0;
    let mut end = f64::NEG_INFINITY;
    let mut labels = Vec::new();
    for (place, value) in ticks {
        let text = label(value);
        let half = small_width_of(&text) / 2.0;
        if place - half >= end + APART {
            end = place + half;
            labels.push((place, text));
        }
    }
    labels
}

/// 1, 2 or 5 of the power of ten that divides a range into some steps.
fn step_of(range: f64) -> f64 {
    if range <= 0.0 {
        return 1.0;
    }
    step_below(range / STEPS)
}

/// The largest of 1, 2, 5, 10, … that is not above a value.
fn step_below(value: f64) -> f64 {
    let power = 10f64.powi(value.log10().floor() as i32);
    let fits = [5.0, 2.0, 1.0].into_iter().find(|part| part * power <= value * 1.000_001);
    fits.unwrap_or(1.0) * power
}

/// The smallest of 1, 2, 5, 10, … that is not below a value.
fn step_above(value: f64) -> f64 {
    let power = 10f64.powi(value.log10().floor() as i32);
    let fits = [1.0, 2.0, 5.0, 10.0].into_iter().find(|part| part * power >= value * 0.999_999);
    fits.unwrap_or(10.0) * power
}

/// The unit in which figures of this size are shown, and how many of the
/// report's it is.
pub fn shown(unit: Unit, largest: f64) -> (&'static str, f64) {
    match unit {
        Unit::Kilobytes if largest >= 10_240.0 => ("MB", 1024.0),
        Unit::Milliseconds if largest >= 20_000.0 => ("s", 1000.0),
        Unit::Seconds if largest < 1.0 => ("ms", 0.001),
        unit => (unit.name(), 1.0),
    }
}

/// A value at an axis: `0.5`, `10`, `1,000`.
pub fn label(value: f64) -> String {
    let text = number(value);
    match text.split_once('.') {
        Some((whole, fraction)) => {
            let fraction = fraction.trim_end_matches('0');
            if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> Scale {
        Scale::of(values.iter().copied())
    }

    #[test]
    fn far_apart_is_logarithmic() {
        assert_eq!(of(&[3.0, 7.0]), Scale::Linear(8.0));
        assert_eq!(of(&[]), Scale::Linear(1.0));
        assert_eq!(of(&[0.0]), Scale::Linear(1.0));
        let Scale::Logarithmic(from, to) = of(&[11.0, 191.0, 0.0]) else { panic!("logarithmic") };
        assert!((from - 5.0).abs() < 1e-9 && (to - 200.0).abs() < 1e-9, "{from} {to}");
    }

    #[test]
    fn places_and_ticks() {
        let scale = Scale::Logarithmic(1.0, 100.0);
        assert!((scale.at(10.0) - 0.5).abs() < 1e-9);
        assert_eq!((scale.at(0.0), scale.at(1000.0)), (0.0, 1.0));
        assert_eq!(scale.ticks(), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        assert_eq!(Scale::Linear(8.0).ticks(), [0.0, 2.0, 4.0, 6.0, 8.0]);
        assert_eq!([0.5, 20.0, 1000.0, 0.0].map(label), ["0.5", "20", "1,000", "0"]);
    }
}
