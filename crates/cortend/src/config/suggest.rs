//! What a mistyped key or value may have meant.

/// A parser's message, with «did you mean» where it names what it expected.
pub fn explain(message: &str) -> String {
    let message = message.trim_end();
    let mut quoted = message.split('`').skip(1).step_by(2);
    let Some(found) = quoted.next() else { return message.to_owned() };
    if !message.contains("expected") {
        return message.to_owned();
    }
    let nearest = quoted
        .map(|known| (distance(found, known), known))
        .min()
        // Half of the letters may be wrong: beyond that it is a guess.
        .filter(|(distance, known)| *distance * 2 <= known.len());
    match nearest {
        Some((_, known)) => format!("{message}; did you mean `{known}`?"),
        None => message.to_owned(),
    }
}

/// Letters to change, add, leave out or swap with their neighbour.
fn distance(from: &str, to: &str) -> usize {
    let (from, to) = (from.as_bytes(), to.as_bytes());
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    for i in 0..=from.len() {
        for j in 0..=to.len() {
            if i == 0 || j == 0 {
                rows[i][j] = i + j;
                continue;
            }
            let changed = usize::from(from[i - 1] != to[j - 1]);
            let mut best =
                (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + changed);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_recognised() {
        assert_eq!(distance("cir", "cri"), 1);
        assert_eq!(distance("hosts_dir", "hosts_dirs"), 1);
        assert_eq!(distance("", "abc"), 3);
        let text = explain("unknown field `sokcet`, expected one of `root`, `socket`");
        assert!(text.ends_with("did you mean `socket`?"), "{text}");
        let far = explain("unknown field `frobnicate`, expected one of `root`, `socket`");
        assert!(!far.contains("mean"), "{far}");
    }
}
