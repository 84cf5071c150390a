//! Reports as tables: in a terminal, and in Markdown.

use std::fmt::Write as _;

use super::{Report, Role, Runtime, Series};

/// Said where a runtime has no figure.
const NONE: &str = "–";

/// For a terminal.
pub fn text(report: &Report) -> String {
    render(report, aligned)
}

/// For a file in `docs/benchmarks`.
pub fn markdown(report: &Report) -> String {
    format!("# Benchmarks\n\n{}", render(report, piped))
}

type Cells = Vec<Vec<String>>;

fn render(report: &Report, table: fn(&Cells) -> String) -> String {
    let mut out = table(&facts(report));
    out.push('\n');
    out += &table(&runtimes(report));
    if !report.runtimes.iter().any(is_crio) {
        out += "\nBest peer missing: there is no CRI-O here. Its figures, if there are any, are history.\n";
    }
    out += "\nMedians. «ahead»: how many times the best measured peer's median is Corten's.\n\n";
    out += &table(&overview(report));
    out += "\nEvery series.\n\n";
    out += &table(&details(report));
    if !report.failures.is_empty() {
        out += "\nNot measured.\n\n";
        out += &table(&failures(report));
    }
    out
}

fn is_crio(runtime: &Runtime) -> bool {
    runtime.role == Role::Peer && runtime.name.to_lowercase().contains("cri-o")
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

fn facts(report: &Report) -> Cells {
    let mut cells = vec![row(["machine", ""])];
    cells.extend(report.facts.iter().map(|fact| row([&fact.name, &fact.value])));
    cells
}

fn runtimes(report: &Report) -> Cells {
    let mut cells = vec![row(["runtime", "network", "programs"])];
    for runtime in &report.runtimes {
        cells.push(row([&title(runtime), &runtime.network, &runtime.versions.join(", ")]));
    }
    cells
}

/// How a runtime's column is called.
fn title(runtime: &Runtime) -> String {
    match runtime.role {
        Role::History => format!("{} (history)", runtime.name),
        Role::Corten | Role::Peer | Role::Floor => runtime.name.clone(),
    }
}

fn overview(report: &Report) -> Cells {
    let mut header = row(["operation", "pods", "unit"]);
    header.extend(report.runtimes.iter().map(title));
    header.push("ahead".to_owned());
    let mut cells = vec![header];
    for (operation, pods) in report.rows() {
        let found = |runtime: &Runtime| report.find(&runtime.name, &operation.key, pods);
        let series: Vec<Option<&Series>> = report.runtimes.iter().map(found).collect();
        let unit = series.iter().flatten().next().map_or("", |series| series.unit.name());
        let mut line = vec![operation.title.clone(), pods.map_or(String::new(), |n| n.to_string())];
        line.push(unit.to_owned());
        let medians = series
            .iter()
            .map(|series| series.map_or_else(|| NONE.to_owned(), |series| number(series.median())));
        line.extend(medians);
        let ours = report.runtimes.iter().position(|runtime| runtime.role == Role::Corten);
        let ahead = ours.and_then(|at| series[at]).and_then(|series| report.ahead(series));
        line.push(ahead.map_or_else(String::new, |times| format!("{}×", number(times))));
        cells.push(line);
    }
    cells
}

fn details(report: &Report) -> Cells {
    let names = ["operation", "pods", "runtime", "median", "p90", "p99", "min", "runs", "unit"];
    let mut cells = vec![row(names)];
    for (operation, pods) in report.rows() {
        for runtime in report.runtimes.iter().filter(|runtime| runtime.role != Role::History) {
            let Some(series) = report.find(&runtime.name, &operation.key, pods) else { continue };
            let mut line = vec![operation.title.clone()];
            line.push(pods.map_or(String::new(), |n| n.to_string()));
            line.push(runtime.name.clone());
            line.extend([series.median(), series.p90(), series.p99(), series.min()].map(number));
            line.push(series.values.len().to_string());
            line.push(series.unit.name().to_owned());
            cells.push(line);
        }
    }
    cells
}

fn failures(report: &Report) -> Cells {
    let mut cells = vec![row(["runtime", "operation", "pods", "why"])];
    for failure in &report.failures {
        let pods = failure.pods.map_or(String::new(), |n| n.to_string());
        cells.push(row([&failure.runtime, &failure.operation, &pods, &failure.error]));
    }
    cells
}

/// Three digits that say something, thousands apart: `0.53`, `12.4`, `1,070`.
pub fn number(value: f64) -> String {
    let decimals = match value.abs() {
        // What would be rounded up to more digits has fewer decimals.
        small if small < 9.995 => 2,
        middle if middle < 99.95 => 1,
        _ => 0,
    };
    let plain = format!("{value:.decimals$}");
    let (whole, fraction) = plain.split_once('.').map_or((&*plain, ""), |parts| parts);
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        let left = whole.len() - at;
        if at > 0 && left % 3 == 0 && digit.is_ascii_digit() && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if fraction.is_empty() { grouped } else { format!("{grouped}.{fraction}") }
}

/// Whether a column holds figures, which stand at its right.
fn is_figures(cells: &Cells, column: usize) -> bool {
    let begins = |cell: &String| {
        cell.is_empty() || cell == NONE || cell.starts_with(|first: char| first.is_ascii_digit())
    };
    let body = || cells.iter().skip(1).filter_map(|line| line.get(column));
    body().any(|cell| cell.starts_with(|first: char| first.is_ascii_digit())) && body().all(begins)
}

fn aligned(cells: &Cells) -> String {
    let columns = cells.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let all = cells.iter().filter_map(|line| line.get(column));
        all.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let layout: Vec<(usize, bool)> =
        (0..columns).map(|column| (width(column), is_figures(cells, column))).collect();
    let mut out = String::new();
    for line in cells {
        let mut text = String::new();
        for (cell, (width, right)) in line.iter().zip(&layout) {
            // Writing to a String cannot fail.
            let _ = if *right {
                write!(text, "{cell:>width$}  ")
            } else {
                write!(text, "{cell:<width$}  ")
            };
        }
        out += text.trim_end();
        out.push('\n');
    }
    out
}

fn piped(cells: &Cells) -> String {
    let mut out = String::new();
    for (at, line) in cells.iter().enumerate() {
        let safe = line.iter().map(|cell| {
            let parts = cell.len() - cell.trim_start().len();
            let text = cell.trim().replace('|', "\\|").replace('\n', " ");
            if parts > 0 { format!("– {text}") } else { text }
        });
        out += &format!("| {} |\n", safe.collect::<Vec<_>>().join(" | "));
        if at == 0 {
            let rule = |column| if is_figures(cells, column) { "---:" } else { "---" };
            let rules: Vec<_> = (0..line.len()).map(rule).collect();
            out += &format!("|{}|\n", rules.join("|"));
        }
    }
    out
}
