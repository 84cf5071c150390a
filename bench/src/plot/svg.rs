//! A small writer of SVG: shapes, texts, and one style for light and dark.

use std::fmt::Write as _;

/// Where a text stands relative to its point.
#[derive(Debug, Clone, Copy)]
pub enum Anchor {
    /// It begins there.
    Start,
    /// Its middle is there.
    Middle,
    /// It ends there.
    End,
}

impl Anchor {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

/// Colours of one background. The first series are Corten's own.
struct Theme {
    paper: &'static str,
    ink: &'static str,
    faint: &'static str,
    rule: &'static str,
    aim: &'static str,
    series: [&'static str; SERIES],
}

/// How many colours series have.
pub const SERIES: usize = 8;

const LIGHT: Theme = Theme {
    paper: "#ffffff",
    ink: "#1f2328",
    faint: "#656d76",
    rule: "#d8dee4",
    aim: "#1a7f37",
    series: [
        "#b7410e", "#e39a6c", "#57606a", "#2f6fb5", "#3b9c9c", "#8456b8", "#b08900", "#c2528b",
    ],
};

const DARK: Theme = Theme {
    paper: "#0d1117",
    ink: "#e6edf3",
    faint: "#8d96a0",
    rule: "#30363d",
    aim: "#3fb950",
    series: [
        "#e8692f", "#a5573a", "#9aa4af", "#5fa0e6", "#56c2c2", "#b28ae0", "#d8b441", "#e07fb2",
    ],
};

/// A picture being drawn.
pub struct Svg {
    width: f64,
    height: f64,
    body: String,
}

impl Svg {
    /// An empty one of this size in pixels.
    pub fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    /// A filled rectangle.
    pub fn rect(&mut self, class: &str, [x, y]: [f64; 2], [width, height]: [f64; 2]) {
        self.add(format_args!(
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" rx="1.5"/>"#
        ));
    }

    /// A straight line.
    pub fn line(&mut self, class: &str, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2]) {
        self.add(format_args!(
            r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#
        ));
    }

    /// A line through points.
    pub fn path(&mut self, class: &str, points: &[[f64; 2]]) {
        let mut data = String::new();
        for (at, [x, y]) in points.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = write!(data, "{}{x:.1} {y:.1}", if at == 0 { 'M' } else { 'L' });
        }
        self.add(format_args!(r#"<path class="{class}" d="{data}"/>"#));
    }

    /// A dot.
    pub fn dot(&mut self, class: &str, [x, y]: [f64; 2]) {
        self.add(format_args!(r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="2.6"/>"#));
    }

    /// A text.
    pub fn text(&mut self, class: &str, [x, y]: [f64; 2], anchor: Anchor, text: &str) {
        let (anchor, text) = (anchor.name(), escaped(text));
        self.add(format_args!(
            r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#
        ));
    }

    fn add(&mut self, shape: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.body, "{shape}");
    }

    /// The file.
    pub fn finish(self, title: &str) -> String {
        let Self { width, height, body } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\">\n<title>{}</title>\n\
             <style>\n{STYLE}{}@media (prefers-color-scheme: dark) {{\n{}}}\n</style>\n{}\
             <rect class=\"paper\" width=\"{width:.0}\" height=\"{height:.0}\"/>\n{body}</svg>\n",
            escaped(title),
            colours(&LIGHT),
            colours(&DARK),
            patterns(),
        )
    }
}

const STYLE: &str = "\
text { font: 12px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; }
.title { font-size: 17px; font-weight: 600; }
.head { font-size: 13px; font-weight: 600; }
.small { font-size: 10.5px; }
.curve { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.dashed { stroke-dasharray: 5 3; }
.clear { paint-order: stroke; stroke-width: 4px; stroke-linejoin: round; }
.past { opacity: 0.75; }
.grid { stroke-width: 1; }
.goal { stroke-width: 1.4; stroke-dasharray: 4 3; }
";

fn colours(theme: &Theme) -> String {
    let Theme { paper, ink, faint, rule, aim, series } = theme;
    let mut css = format!(
        ".paper {{ fill: {paper}; }}\n.clear {{ stroke: {paper}; }}\ntext {{ fill: {ink}; }}\n.faint {{ fill: {faint}; }}\n\
         .grid {{ stroke: {rule}; }}\n.goal {{ stroke: {aim}; }}\n.aim {{ fill: {aim}; }}\n"
    );
    for (at, colour) in series.iter().enumerate() {
        css += &format!(
            ".s{at} {{ fill: {colour}; }}\n.l{at} {{ stroke: {colour}; }}\n\
             .h{at} {{ fill: url(#p{at}); stroke: {colour}; stroke-width: 1; }}\n"
        );
    }
    css
}

/// Hatches, for what was not measured now.
fn patterns() -> String {
    let mut all = String::from("<defs>\n");
    for at in 0..SERIES {
        all += &format!(
            "<pattern id=\"p{at}\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\" \
             patternTransform=\"rotate(45)\"><line class=\"l{at}\" x1=\"0\" y1=\"0\" x2=\"0\" y2=\"5\" \
             stroke-width=\"2\"/></pattern>\n"
        );
    }
    all + "</defs>\n"
}

/// How wide a text of the usual size is, at most, in the widest of the fonts.
pub fn width_of(text: &str) -> f64 {
    text.chars().count() as f64 * 6.8
}

/// How wide a text in small print is, likewise.
pub fn small_width_of(text: &str) -> f64 {
    text.chars().count() as f64 * 6.4
}

/// How wide the head of a diagram is, likewise.
pub fn head_width_of(text: &str) -> f64 {
    text.chars().count() as f64 * 8.3
}

/// The head of a diagram in lines that are no wider than this, but for words
/// that are.
pub fn head_lines(text: &str, width: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if head_width_of(line) + head_width_of(word) + 5.0 <= width => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
