//! What people see: steps with a number, calls, and what came of them.

use std::io::IsTerminal;
use std::time::Duration;

/// Columns of the left margin, below a step's title.
const INDENT: &str = "   ";

/// Writes to standard output.
pub struct Show {
    step: usize,
    colours: bool,
}

impl Show {
    /// Colours where somebody looks.
    pub fn new() -> Self {
        Self { step: 0, colours: std::io::stdout().is_terminal() }
    }

    /// A new step.
    pub fn step(&mut self, title: &str) {
        self.step += 1;
        println!("\n{}  {}", self.step, self.styled("1", title));
    }

    /// The call or command that is made now.
    pub fn call(&self, call: &str) {
        println!("{INDENT}{}", self.styled("36", &format!("> {call}")));
    }

    /// What came of it, line by line.
    pub fn result(&self, text: &str) {
        for line in text.trim_end().lines() {
            println!("{INDENT}  {line}");
        }
    }

    /// Words between steps.
    pub fn say(&self, text: &str) {
        println!("{text}");
    }

    fn styled(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// `12.3 ms`
pub fn time(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

/// `1.2 MB`, `42 kB`
pub fn size(bytes: u64) -> String {
    if bytes < 1_000_000 {
        format!("{} kB", bytes.div_ceil(1000))
    } else {
        format!("{:.1} MB", bytes as f64 / 1e6)
    }
}
