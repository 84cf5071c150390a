//! Signal names, as images and people write them.

use crate::error::{Error, Result};

/// SIGTERM, what stops a container when nobody says otherwise.
pub const SIGTERM: i32 = 15;

/// Names by number; the numbers are the same on every architecture that we
/// build for (x86 and ARM share the generic list).
const NAMES: [(&str, i32); 35] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("RTMIN", 34),
];

const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The number of a signal: `15`, `TERM`, `SIGTERM`, `SIGRTMIN+3`, `RTMAX-1`.
pub fn number(text: &str) -> Result<i32> {
    let unknown = || Error::invalid("signal", text, "there is no such signal");
    let upper = text.trim().to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let found = if let Ok(number) = bare.parse::<i32>() {
        number
    } else if let Some((_, number)) = NAMES.iter().find(|(name, _)| *name == bare) {
        *number
    } else if let Some(offset) = bare.strip_prefix("RTMIN+") {
        RTMIN.saturating_add(offset.parse().map_err(|_| unknown())?)
    } else if let Some(offset) = bare.strip_prefix("RTMAX") {
        RTMAX.saturating_add(if offset.is_empty() {
            0
        } else {
            offset.parse().map_err(|_| unknown())?
        })
    } else {
        return Err(unknown());
    };
    if (1..=RTMAX).contains(&found) { Ok(found) } else { Err(unknown()) }
}

/// The signal that stops a container: asked for by number (0 for not), else
/// the image's, else SIGTERM. An image's nonsense is not a reason to fail.
pub fn stop_signal(asked: i32, image: &str) -> i32 {
    if (1..=RTMAX).contains(&asked) {
        return asked;
    }
    number(image).unwrap_or(SIGTERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_to_write_a_signal() {
        for (text, expected) in [
            ("15", 15),
            ("SIGTERM", 15),
            ("term", 15),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("SIGRTMAX", 64),
        ] {
            assert_eq!(number(text), Ok(expected), "{text}");
        }
        for text in ["", "0", "65", "-9", "SIGNOPE", "RTMIN+x", "RTMIN+99"] {
            assert!(number(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_request_wins_over_the_image() {
        assert_eq!(stop_signal(3, "SIGINT"), 3);
        assert_eq!(stop_signal(0, "SIGINT"), 2);
        assert_eq!(stop_signal(0, ""), SIGTERM);
    }
}
