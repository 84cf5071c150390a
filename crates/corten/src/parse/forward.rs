//! Ports to forward: `8080:80`.

use super::port::number;

/// A port inside, and ours that leads there; 0 for a free one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// On this machine.
    pub ours: u16,
    /// Inside.
    pub port: u16,
}

/// Reads `80`, `8080:80` or `:80`.
pub fn parse(text: &str) -> Result<Forward, String> {
    match text.split_once(':') {
        None => number(text).map(|port| Forward { ours: port, port }),
        Some(("", port)) => number(port).map(|port| Forward { ours: 0, port }),
        Some((ours, port)) => Ok(Forward { ours: number(ours)?, port: number(port)? }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_ours_and_theirs() {
        assert_eq!(parse("80"), Ok(Forward { ours: 80, port: 80 }));
        assert_eq!(parse("8080:80"), Ok(Forward { ours: 8080, port: 80 }));
        assert_eq!(parse(":80"), Ok(Forward { ours: 0, port: 80 }));
        for wrong in ["", "x", "80:", "0", "70000", "1:2:3", "8080:0"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
